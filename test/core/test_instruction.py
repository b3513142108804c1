"""The rule for the text of an instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topreward_ros.core.instruction import LONGEST, InstructionError, clean_instruction


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
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0631\u0627",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0631\u0627",
        ),
        ("\u0645\u06cc\u0650\u200c\u062e", "\u0645\u06cc\u0650\u200c\u062e"),  # behind a vowel sign
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),  # half a letter of Hindi
        ("\u0d05\u0d35\u0d28\u0d4d\u200d", "\u0d05\u0d35\u0d28\u0d4d\u200d"),  # a letter of Malayalam
        ("\u0d28\u0d4d\u200d\u200b\u200d \n", "\u0d28\u0d4d\u200d"),
        ("\u0d28\u0d4d\u200c", "\u0d28\u0d4d"),  # at the end this shows as it would without
        ("\u09b0\u200d\u09cd\u09af", "\u09b0\u200d\u09cd\u09af"),  # Bengali, before the virama
        ("\u2764\ufe0f", "\u2764\ufe0f"),
        ("\U0001f469\U0001f3fd\u200d\u2695\ufe0f", "\U0001f469\U0001f3fd\u200d\u2695\ufe0f"),
        ("\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\ufe0f\u200d\U0001f308"),
        ("\U0001f642\u200d\u2194\ufe0f", "\U0001f642\u200d\u2194\ufe0f"),
        ("press 1\ufe0f\u20e3", "press 1\ufe0f\u20e3"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f", "\U0001f3f4\U000e0067\U000e0062\U000e007f"),
        ("\u845b\U000e0100", "\u845b\U000e0100"),  # a form of a Chinese character
        ("\u182d\u180e\u1820", "\u182d\u180e\u1820"),
        ("open\u180ethe\u3164drawer\u2800", "open the drawer"),
        ("open\uffa0the\u115f\u1160drawer", "open the drawer"),
        ("o\u034fp\u17b4e\ufe00n\ufe0f 1\ufe0f\u206f\u2065\ufff0\U000e0001", "open 1"),
        ("op\u200cen\u200d the\u200d \u200cd\u200brawer\u200d", "open the drawer"),
        ("m\u1edf\u200cng\u0103n", "m\u1edfng\u0103n"),  # Vietnamese does not join
        ("\u06a9\u062a\u0627\u0628\u200c \u200d\u0647\u0627\u200c", "\u06a9\u062a\u0627\u0628 \u0647\u0627"),
        ("\U0001f469\u200d \u200d\U0001f373", "\U0001f469 \U0001f373"),
        ("open\U000e0067\U000e0062 it\u180b", "open it"),
        ("e\u034f\u0301", "\u00e9"),
        ("\ufe0f", ""),
        ("\u3164\u034f\u2800\u200d\u200c\u180e\u115f\U000e0041", ""),
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


def test_a_text_that_is_too_long_is_refused_before_anything_else():
    assert len(clean_instruction(" " + "x" * LONGEST + "\n")) == LONGEST
    for text in ("x" * (LONGEST + 1), "caf\ufffd" * 10**6, "\u0958" * LONGEST):  # NFC takes two for the last
        with pytest.raises(InstructionError, match=r"--task has [0-9,]+ characters: at most 2,000 are taken"):
            clean_instruction(text, "--task")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=["\ufffd"])))
def test_a_clean_text_stays_and_can_be_written(text):
    clean = clean_instruction(text)
    assert clean_instruction(clean) == clean == clean.strip()
    clean.encode("utf-8")
