"""How alike names are is judged in one place; its rules are shown by the examples of core/nearest.py."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "topreward_ros"


def test_nothing_else_compares_the_spelling_of_names() -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if "difflib" in path.read_text()] == ["nearest.py"]
