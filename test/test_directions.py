"""Which room may use which: read from the imports in the source, those inside functions included.

    core ← scoring ← offline ← serving, views ← nodes ← cli    core: numpy alone · up to views: no ROS

Within scoring: base ← question ← checkpoint ← qwen3_vl, any_vlm, reward_heads, remote, openai_api
← registry, pool.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "topreward_ros"

#: Rooms from the ground up. Each may use those before it, and `defaults`, which stands in the hall.
ROOMS = ("core", "scoring", "offline", "serving", "views", "nodes", "cli")
HALL = ("defaults",)
#: Wings of scoring from the ground up, above what lies in scoring itself. The engines do not know each other.
WINGS = ("question", "checkpoint", "qwen3_vl", "any_vlm", "reward_heads", "remote", "openai_api")
ENGINES = {"qwen3_vl", "any_vlm", "reward_heads", "remote", "openai_api"}
#: What lies in scoring itself and knows more than the ground; no wing uses it.
CHOOSERS = {"registry", "pool", "served_models"}

INTERFACES = ("msg", "srv", "action")  # generated, and part of ROS
ROS = {"rclpy", "ament_index_python", "cv_bridge", "launch", "launch_ros"} | {
    f"{name}_msgs" for name in ("sensor", "std", "diagnostic", "rcl", "lifecycle", "rosgraph")
} | {"std_srvs", "rcl_interfaces", "builtin_interfaces"}  # fmt: skip

Module = tuple[str, ...]  #: parts of a dotted name below `topreward_ros`


def modules() -> dict[Module, Path]:
    """Every module of the package that has something in it."""
    paths = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
    return {name: path for name, path in paths.items() if name[-1] != "__init__"}


MODULES = modules()


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that the module in ``path`` imports anywhere, as far as they may be modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports whole, from topreward_ros on"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def own(name: str) -> Module | None:
    """The module of ours that ``name`` is, or is something of; None for a library."""
    first, *rest = name.split(".")
    if first != "topreward_ros":
        return None
    parts = tuple(rest)
    if parts and parts[0] in INTERFACES:
        return parts[:1]
    while parts and parts not in MODULES:
        parts = parts[:-1]
    assert parts, f"{name} is no module"
    return parts


def used_by(module: Module) -> set[Module]:
    """The modules of ours that it imports."""
    return {used for name in imports(MODULES[module]) if (used := own(name))}


def library(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_imports_go_down_alone(module: Module) -> None:
    room = module[0]
    used_rooms = {used[0] for used in used_by(module)}
    if room in HALL:
        assert not used_rooms, f"{'.'.join(module)} is used by every room and may use none"
        return
    allowed = {*HALL, *ROOMS[: ROOMS.index(room) + 1]}
    if ROOMS.index(room) >= ROOMS.index("nodes"):
        allowed |= set(INTERFACES)
    assert used_rooms <= allowed, f"{'.'.join(module)} uses {sorted(used_rooms - allowed)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name[0] == "scoring"], ids=".".join)
def test_wings_of_scoring_go_down_alone(module: Module) -> None:
    wing = module[1] if len(module) > 2 else None
    used_wings = {used[1] for used in used_by(module) if used[0] == "scoring" and len(used) > 2}
    if wing is None:
        allowed = set(WINGS) if module[1] in CHOOSERS else set()
    else:
        allowed = {*WINGS[: WINGS.index(wing) + 1]} - (ENGINES - {wing})
        choosers = {used[1] for used in used_by(module) if used[0] == "scoring" and len(used) == 2} & CHOOSERS
        assert not choosers, f"{'.'.join(module)} uses {choosers}"
    assert used_wings <= allowed, f"{'.'.join(module)} uses {sorted(used_wings - allowed)}"


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter({module: used_by(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" ← ".join(".".join(module) for module in error.args[1]))


def test_no_ros_below_nodes() -> None:
    for module, path in MODULES.items():
        if module[0] in HALL or module[0] in ROOMS[: ROOMS.index("nodes")]:
            used = {library(name) for name in imports(path)} & ROS
            assert not used, f"{'.'.join(module)} uses {sorted(used)}"


def test_core_needs_numpy_alone() -> None:
    for module, path in MODULES.items():
        if module[0] == "core":
            used = {library(name) for name in imports(path)} - sys.stdlib_module_names
            assert used <= {"numpy", "topreward_ros"}, f"{'.'.join(module)} uses {sorted(used)}"


def test_views_do_without_torch() -> None:
    for module, path in MODULES.items():
        if module[0] == "views":
            used = {library(name) for name in imports(path)} & {"torch", "transformers"}
            assert not used, f"{'.'.join(module)} uses {sorted(used)}"


def test_every_room_and_wing_is_known() -> None:
    assert {module[0] for module in MODULES if len(module) > 1} == set(ROOMS)
    assert {module[1] for module in MODULES if module[0] == "scoring" and len(module) > 2} == set(WINGS)
