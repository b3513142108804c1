"""Scripts outside the package keep up with it: what they import is there, and each starts.

Names are looked up in the source, so that nothing needs to be installed for it. Scripts are then imported and
asked for `--help`, as far as their libraries are installed: the simulator seldom is. Nodes are imported only.
"""

from __future__ import annotations

import ast
import importlib
import symtable
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path for folder in ("training", "bench", "docs", "examples") for path in (ROOT / folder).glob("[!_]*.py")
)
BUILT = {f"topreward_ros.{kind}": kind for kind in ("msg", "srv", "action")}  #: made from interface files


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def source_of(module: str, beside: Path) -> Path | None:
    """File or folder of one of our modules, as the script ``beside`` finds it; None for a library."""
    parts = module.split(".")
    for folder in (ROOT, beside.parent) if parts[0] not in ("topreward_ros", "training") else (ROOT,):
        path = folder.joinpath(*parts)
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if path.is_dir() and any(path.glob("*.py")):
            return path
    assert parts[0] not in ("topreward_ros", "training"), (
        f"{name_of(beside)} imports {module}: it is not there"
    )
    return None


@cache
def defined_in(source: Path) -> set[str]:
    """Names that can be imported from a module, or from a package: the modules in it count, too."""
    if source.is_dir():
        inside = {path.stem for path in source.iterdir() if path.suffix == ".py" or path.is_dir()}
        init = source / "__init__.py"
        return inside | (defined_in(init) if init.is_file() else set())
    table = symtable.symtable(source.read_text(encoding="utf-8"), str(source), "exec")
    return {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
    }


def missing(script: Path) -> Iterator[str]:
    """What ``script`` imports of ours, anywhere in it, that is not there."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                source_of(alias.name, script)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {alias.name for alias in node.names}
            if kind := BUILT.get(node.module):
                known = {path.stem for path in (ROOT / kind).iterdir()}
            else:
                source = source_of(node.module, script)
                known = names if source is None else defined_in(source)
            yield from (f"{node.module}.{name} (line {node.lineno})" for name in sorted(names - known))


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_what_is_imported_is_there(script: Path) -> None:
    assert not list(missing(script))


def test_a_name_that_has_gone_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from topreward_ros.offline.score_video import score_video, score_frames\n"
        "from topreward_ros.offline import score_video as module, nothing\n"
        "from topreward_ros.msg import TaskProgress, TaskRegress\n"
        "import numpy\n"
    )
    assert list(missing(script)) == [
        "topreward_ros.offline.score_video.score_frames (line 1)",
        "topreward_ros.offline.nothing (line 2)",
        "topreward_ros.msg.TaskRegress (line 3)",
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_it_starts_and_tells_its_usage(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.parent.name == "training":
        module_name = f"training.{script.stem}"
        pytest.importorskip("training", reason="training/ is not installed with the package")
    else:
        module_name = script.stem
        monkeypatch.syspath_prepend(script.parent)
        monkeypatch.delitem(sys.modules, module_name, raising=False)  # another folder's of the same name
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library in {"", "topreward_ros", "training", *(path.stem for path in SCRIPTS)}:
            raise
        pytest.skip(f"needs {library}")
    if "parse_args(" in script.read_text(encoding="utf-8"):  # a node would start to run
        monkeypatch.setattr(sys, "argv", [script.name, "--help"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {script.name}")
