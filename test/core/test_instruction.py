"""The rule for the text of an instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.instruction import InstructionError, clean_instruction


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("open the drawer\n", "open the drawer"),  # "$(printf ...)" in other shells, a topic
        ("\ufeffopen the drawer\r\n", "open the drawer"),
        ("open\u00a0the\u2003drawer", "open the drawer"),
        ("open the\u2028drawer", "open the drawer"),
        ("open\t the \x0b drawer", "open the drawer"),
        ("op\u200ben the\u2060 draw\u00ader\u200e", "open the drawer"),
        ("\u202eopen the drawer\u202c", "open the drawer"),
        ("o\0p\0e\0n\0", "open"),
        ("open \x1b[2Jit", "open [2Jit"),
        ("cafe\u0301", "caf\u00e9"),
        ("Open the DRAWER.", "Open the DRAWER."),
        ("\u06a9\u062a\u0627\u0628\u200c\u0647\u0627", "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627"),
        ("\U0001f469\u200d\U0001f373", "\U0001f469\u200d\U0001f373"),
        ("\ufeff\u200b \n", ""),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_does_not_count(typed, seen):
    assert clean_instruction(typed) == seen


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("caf\udce9", "--task is not UTF-8: it has the byte 0xe9 after 'caf'; write it in UTF-8"),
        ("\udcff", "the byte 0xff at its beginning"),
        ("x\ud83d", "the character U\\+D83D after 'x'"),
        ("caf\ufffd au lait", "the character U\\+FFFD after 'caf'"),
    ],
)
def test_bytes_that_are_no_text_are_refused(typed, named):
    with pytest.raises(InstructionError, match=named):
        clean_instruction(typed, "--task")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=["\ufffd"])))
def test_a_clean_text_stays_and_can_be_written(text):
    clean = clean_instruction(text)
    assert clean_instruction(clean) == clean == clean.strip()
    clean.encode("utf-8")
