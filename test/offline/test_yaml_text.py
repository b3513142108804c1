"""Whatever PyYAML fails with, one error says it, and what reads files of others goes on without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from topreward_ros.nodes.parameters import for_others
from topreward_ros.offline.bag_recovery import _noted
from topreward_ros.offline.bag_writer import NOTES
from topreward_ros.offline.yaml_text import YamlError, parsed_yaml

BAD = (
    "[" * 5000, "a: [", "!!bool x", "!!timestamp x", "!!int ''", "2026-13-45", "? [1]\n: 2", "!!float x",
    "\0",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:9]))
def test_what_cannot_be_read_is_one_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(YamlError):
        parsed_yaml(text)
    file = tmp_path / NOTES
    file.write_text(text)
    assert _noted(tmp_path) == {}
    assert for_others(["monitor", "--params-file", str(file)], "/monitor") == []


def test_sections_that_hold_each_other_have_an_end(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("a: &it\n  b: *it\n")
    assert for_others(["monitor", "--params-file", str(file)], "/monitor") == []
