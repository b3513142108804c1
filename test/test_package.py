"""The files that describe the package agree with each other and with what is there."""

from __future__ import annotations

import ast
import configparser
import doctest
import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from enum import IntEnum
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from topreward_ros import defaults
from topreward_ros.core.events import EventType
from topreward_ros.core.outputs import State
from topreward_ros.core.retry_words import Phase
from topreward_ros.core.rewards import RewardType

pytestmark = pytest.mark.installed

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted(path for kind in ("msg", "srv", "action") for path in (ROOT / kind).glob(f"*.{kind}"))
MODULES = sorted((ROOT / "topreward_ros").rglob("*.py"))
PROGRAMS = [path for folder in ("examples", "launch") for path in sorted((ROOT / folder).glob("*.py"))]


def module_name(path: Path) -> str:
    """Dotted name of a module of the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


#: Import name of a library where it is not the name it is installed by.
LIBRARY_OF_IMPORT = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "PIL": "pillow"}
#: What brings an imported library along, where rosdep or a declared dependency does it.
ROSDEP_OF_LIBRARY = {
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "pyyaml": "python3-yaml",
    "rich": "python3-rich",
    "urllib3": "python3-urllib3",
}
ROS_REQUIREMENTS = ("ros-jazzy", "ros-kilted")  # one or the other
REQUIREMENTS = tuple(
    f"requirements/{name}.txt" for name in ("run", "dev", "int8", "adapters", *ROS_REQUIREMENTS)
)
EXTRAS = ("adapters", "int8", "lerobot", "ray", "serve", "trees")
#: Where the tried version of an extra's libraries stands. Ray is not installed for the tests.
PINNED_EXTRAS = (("adapters", "adapters"), ("int8", "int8"), ("lerobot", "dev"), ("trees", "dev"))
ROS_PACKAGES = {"ament_index_python", "cv_bridge", "launch", "launch_ros", "rclpy", "rcl_interfaces"}


def package_xml() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def ranges() -> dict[str, Requirement]:
    lines = setup_cfg()["options"]["install_requires"].split("\n")
    requirements = map(Requirement, filter(None, lines))
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def optional(extra: str) -> dict[str, Requirement]:
    """Libraries that are imported only where a user asks for what needs them."""
    lines = setup_cfg()["options.extras_require"][extra].split("\n")
    requirements = map(Requirement, filter(None, lines))
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pins(name: str) -> dict[str, Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").split("\n")
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def imported_libraries(path: Path) -> set[str]:
    """Top-level names that the file imports, without the standard library and our own package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"topreward_ros"}


def declarations(path: Path) -> list[tuple[str, str, str]]:
    """Return (type, name, comment) of every field and constant of an interface file."""
    found = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        text, _, comment = line.partition("#")
        words = text.split()
        if words and words != ["---"]:
            found.append((words[0], words[1], comment.strip()))
    return found


def test_name_version_and_licence_are_the_same_everywhere() -> None:
    xml, cfg = package_xml(), setup_cfg()["metadata"]
    changelog = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    newest = re.search(r"^(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)\n-+$", changelog, re.MULTILINE)
    assert newest is not None, "CHANGELOG.rst has no 'X.Y.Z (YYYY-MM-DD)' heading"
    assert xml.findtext("version") == cfg["version"] == newest[1]
    assert xml.findtext("name") == cfg["name"] == defaults.PACKAGE
    assert xml.findtext("license") == cfg["license"] == "Apache-2.0"
    assert "project(topreward_ros)" in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("extra", "file"), [("", "run"), *PINNED_EXTRAS])
def test_pins_satisfy_the_ranges(extra: str, file: str) -> None:
    pinned = pins(f"requirements/{file}.txt")
    for name, requirement in (optional(extra) if extra else ranges()).items():
        assert requirement.specifier, f"setup.cfg gives no range for {name}"
        assert name in pinned, f"{name} is in setup.cfg and not pinned in requirements/{file}.txt"
        (pin,) = pinned[name].specifier
        assert requirement.specifier.contains(Version(pin.version)), f"{pinned[name]}: not {requirement}"


def test_every_extra_is_known() -> None:
    assert tuple(setup_cfg()["options.extras_require"]) == EXTRAS


@pytest.mark.parametrize("name", [*REQUIREMENTS, "training/requirements.txt"])
def test_requirement_files_pin_exactly(name: str) -> None:
    for requirement in pins(name).values():
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], str(requirement)


@pytest.mark.parametrize("ros", ROS_REQUIREMENTS)
def test_requirement_files_do_not_name_a_library_twice(ros: str) -> None:
    files = [set(pins(f"requirements/{name}.txt")) for name in ("run", "dev", "int8", "adapters", ros)]
    assert len(set.union(*files)) == sum(map(len, files))


def test_each_ros_is_pinned_with_the_packages_of_its_own_name() -> None:
    def named(distro: str) -> set[str]:
        names = pins(f"requirements/ros-{distro}.txt").keys()
        foreign = {
            name
            for name in names
            for other in ("jazzy", "kilted")
            if f"-{other}-" in name and other != distro
        }
        assert not foreign
        return {name.replace(f"-{distro}-", "-") for name in names if f"-{distro}-" in name}

    # Kilted's ament_cmake_ros is split in two and finds Python by itself.
    assert named("kilted") - named("jazzy") == {"ros-ament-cmake-ros-core"}
    assert named("jazzy") - named("kilted") == {"ros-python-cmake-module"}


def test_training_pins_what_it_imports_and_scores_with_what_is_shipped() -> None:
    pinned, run = pins("training/requirements.txt"), pins("requirements/run.txt")
    for path in (ROOT / "training").glob("*.py"):
        for name in imported_libraries(path) - {"training"}:
            library = canonicalize_name(LIBRARY_OF_IMPORT.get(name, name))
            assert library in pinned, (
                f"{path.name} imports {name}: add {library} to training/requirements.txt"
            )
    for name in pinned.keys() & run.keys():
        assert pinned[name].specifier == run[name].specifier, f"{name} differs from requirements/run.txt"


def test_every_imported_library_is_declared() -> None:
    in_xml = {element.text for element in package_xml() if element.tag.endswith("depend")}
    for path in [*MODULES, *PROGRAMS]:
        for name in sorted(imported_libraries(path)):
            library = canonicalize_name(LIBRARY_OF_IMPORT.get(name, name))
            if name.endswith(("_msgs", "_srvs", "_interfaces")) or name in ROS_PACKAGES:
                assert name in in_xml, f"{path.name} imports {name}, which package.xml does not name"
            else:
                declared = ranges().keys() | set().union(*(optional(extra) for extra in EXTRAS))
                assert library in declared, f"{path.name} imports {name}: add {library} to setup.cfg"
                key = ROSDEP_OF_LIBRARY.get(library)
                assert key is None or key in in_xml, f"{library}: add {key} to package.xml"


WITH_EXAMPLES = [path for path in MODULES if re.search(r"^ *>>> ", path.read_text("utf-8"), re.MULTILINE)]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    if path.is_relative_to(ROOT / "topreward_ros" / "scoring"):
        pytest.importorskip("torch")
    examples = doctest.testmod(importlib.import_module(module_name(path)))
    assert examples.attempted and not examples.failed


def test_examples_are_looked_for_everywhere() -> None:
    assert len(WITH_EXAMPLES) > 10, "the search finds nothing any more"


def test_every_module_says_what_it_is_for() -> None:
    for path in [*MODULES, *PROGRAMS]:
        if path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: no docstring"


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_and_constant_is_commented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commented_constants = "Values of `" in text
    for kind, name, comment in declarations(path):
        is_value = name.isupper() and commented_constants
        is_embedded = path.suffix != ".msg" and kind == "topreward_ros/TaskProgress"
        assert comment or is_value or is_embedded, f"{path.name}: {name} has no comment"


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("TaskEvent", EventType),
        ("TaskProgress", State),
        ("TaskReward", RewardType),
        ("SupervisorState", Phase),
    ],
)
def test_the_values_of_core_are_those_of_the_messages(file: str, values: type[IntEnum]) -> None:
    text = (ROOT / "msg" / f"{file}.msg").read_text(encoding="utf-8")
    constants = re.findall(r"^uint8 ([A-Z_]+) *= *(\d+)", text, re.MULTILINE)
    assert [(name, int(number)) for name, number in constants] == [(v.name, v.value) for v in values]


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_the_built_interface_is_the_one_in_the_file(path: Path) -> None:
    pytest.importorskip("rclpy")
    module = importlib.import_module(f"topreward_ros.{path.suffix[1:]}")
    interface = getattr(module, path.stem)
    parts = {
        ".msg": [interface],
        ".srv": [getattr(interface, part, None) for part in ("Request", "Response")],
        ".action": [getattr(interface, part, None) for part in ("Goal", "Result", "Feedback")],
    }[path.suffix]
    built: set[str] = set()
    for part in parts:
        built |= set(part.get_fields_and_field_types())
        built |= {name for name in dir(type(part)) if name.isupper() and name[0] != "_"}
    empty_part = {"structure_needs_at_least_one_member"}
    declared = {name.partition("=")[0] for _, name, _ in declarations(path)}
    assert built - empty_part == declared


def test_every_interface_is_built() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:msg|srv|action)/\w+\.(?:msg|srv|action)", text))
    assert listed == {str(path.relative_to(ROOT)) for path in INTERFACES}


def test_launch_files_state_no_default_of_a_node() -> None:
    """A value that stands in a launch file, too, would drift away from the one in config/."""
    for path in (ROOT / "launch").glob("*.launch.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "default_value":
                assert isinstance(node.value, ast.Name) and node.value.id == "NOT_GIVEN", (
                    f"{path.name}:{node.value.lineno} gives a launch argument a default"
                )


def test_monitor_defaults_are_those_of_the_file_and_a_fresh_copy() -> None:
    expected = yaml.safe_load((ROOT / "config" / "monitor.yaml").read_text(encoding="utf-8"))
    assert defaults.monitor_defaults() == expected["/**"]["ros__parameters"]
    defaults.monitor_defaults()["image_topics"].append("changed by a caller")
    assert defaults.monitor_defaults() == expected["/**"]["ros__parameters"]


def test_a_missing_file_is_named_with_the_places_searched() -> None:
    with pytest.raises(FileNotFoundError, match=r"config/nowhere\.yaml .*share/topreward_ros"):
        defaults.config_file("nowhere.yaml")


def test_programs_start_the_function_of_their_name() -> None:
    started = {
        "monitor": "nodes.monitor import main",
        "monitors": "nodes.monitors import main",
        "supervisor": "nodes.supervisor import main",
        "topreward": "cli.main import command",
        "video_player": "nodes.video_player import main",
    }
    programs = {path.name: path for path in (ROOT / "scripts").iterdir() if path.is_file()}
    assert set(programs) == set(started)
    for name, path in programs.items():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("#!/usr/bin/env python3\n")
        assert path.stat().st_mode & 0o111 == 0o111, f"{path} must be executable for all"
        assert f"from topreward_ros.{started[name]}" in text
        # Processes that it starts import it, and must not be programs themselves.
        assert text.partition('"""\n\n')[2].startswith('if __name__ == "__main__":')
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["options"]["scripts"] == "scripts/topreward", "what a shell finds is that program"
