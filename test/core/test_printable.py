"""Text from outside is shown on one line, without commands to a terminal, and no longer than it may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.printable import printable


@given(st.text(), st.integers(3, 20))
def test_it_is_printable_and_not_too_long(text: str, longest: int) -> None:
    shown = printable(text, longest)
    assert shown.isprintable() and len(shown) == min(len(text), longest)
    assert len(text) <= longest or shown.endswith("...")


@given(st.text())
def test_what_can_be_printed_stays(text: str) -> None:
    shown = printable(text, stand_in="\N{REPLACEMENT CHARACTER}")
    pairs = list(zip(text, shown, strict=True))
    assert all(after == (before if before.isprintable() else "\ufffd") for before, after in pairs)
