"""Whatever is wrong with a JSON text, one error says it; nothing else in the package parses JSON."""

from __future__ import annotations

import ast
from math import inf
from pathlib import Path

import pytest

from topreward_ros.core import json_text
from topreward_ros.core.json_text import DEEPEST, JsonError, parsed_json

PACKAGE = Path(json_text.__file__).parents[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1] 2",
        b"\xff\xfe{}",
        "\0",
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 100_000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    ],
    ids=lambda text: str(text[:12]),
)
def test_what_cannot_be_used_is_one_error(text: str | bytes) -> None:
    with pytest.raises(JsonError):
        parsed_json(text)


def test_what_can_be_used_is_taken() -> None:
    assert parsed_json(b'{"a": [1, -2.5, null, "\xc3\xa4"]}') == {"a": [1, -2.5, None, "\u00e4"]}
    assert parsed_json("[" * DEEPEST + "]" * DEEPEST)


def test_a_whole_number_that_no_float_holds_is_infinite() -> None:
    made = parsed_json(f"[{'9' * 300}, {'9' * 401}, -{'9' * 5000}, 1e400]")
    assert [float(value) for value in made] == [pytest.approx(1e300), inf, -inf, inf]


def test_nothing_else_parses_json() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("loads", "load", "JSONDecoder")
        and isinstance(node.value, ast.Name)
        and node.value.id == "json"
    ]
    assert found == ["core/json_text.py"]
