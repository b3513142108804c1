"""One rule for the text of a task, whichever way it came: option, parameter, topic, service or action.

A task has one stage per line (`clean_task`), most have one line. A line that shows nothing is none, so that
the line break which a file ends with means nothing. A line ends at what Unicode calls a mandatory break
(UAX #14): line feed, carriage return, both, vertical tab, form feed, next line, line and paragraph separator.

Of each line, its instruction (`clean_instruction`), two that look the same are the same to the model and to
the monitor:

- white space of any kind and length becomes one space, and none is left at the ends: a tab, a no-break
  space. So do characters that look like a space: fillers of Hangul, the empty Braille pattern, Mongolian
  vowel separators outside of Mongolian;
- what has no picture is dropped: control and format characters, and what Unicode calls default ignorable
  (byte order marks, zero-width spaces, soft hyphens, marks of direction, variation selectors, joiners);
- what changes a picture stays where it does so: joiners inside words of scripts whose letters join or stack
  (Persian, Hindi ...) and inside emoji, selectors behind the signs that they select a form of;
- letters with accents are composed (Unicode NFC), as Qwen's own tokenizer composes them first.

Everything else stays as it was typed, upper case and punctuation included: the model sees them, too. Bytes
that were no UTF-8 are refused. From a command line they arrive as lone surrogates, which neither a tokenizer
nor a file takes; from ROS 2 as the replacement character U+FFFD. Text above `LONGEST` characters is refused,
too, before anything is done with it: cut, it would be another task.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import zip_longest

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

# Format characters that show by themselves: Arabic, Syriac and Kaithi signs around numbers.
_SHOWN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
# Letters and symbols that are blank: fillers of Hangul, the empty Braille pattern, a note without a head.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
# Default_Ignorable_Code_Point of Unicode (DerivedCoreProperties.txt) that is no format character: a joiner of
# graphemes, vowels of Khmer, and code points that are kept free for more of the kind.
_IGNORABLE = ((0x034F, 0x034F), (0x17B4, 0x17B5), (0x2065, 0x2065), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF))
_JOINER = "\u200d"
_JOINERS = frozenset(("\u200c", _JOINER))  # zero width: non-joiner, joiner
_FORMS = frozenset("\ufe0e\ufe0f")  # a sign as text, or as emoji
_MONGOLIAN_FORMS = frozenset("\u180b\u180c\u180d\u180f")
_VOWEL_SEPARATOR = "\u180e"  # of Mongolian; to Unicode before 6.3 it was a space
_KEYCAP, _KEYS = "\u20e3", frozenset("0123456789#*")
_MOST_MARKS = 16  # signs of vowels and the like behind one letter that are looked through
_FLAG = "\U0001f3f4"  # whose region follows in tags
_TAGS = range(0xE0020, 0xE0080)
_VIRAMA = 9  # combining class of the sign that stacks consonants in scripts of India


_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")

#: Characters of a task, more than anybody needs to tell a robot what to do.
LONGEST = 2000


class InstructionError(UserError):
    """A text cannot be an instruction."""


def clean_task(task: str | Iterable[str], what: str = "the task") -> str:
    """The stages of ``task``, one per line, each by the rule above; empty where nothing can be seen.

    ``task``: text, or a list of texts, which means the same as its items as lines. ``what``: how the user
    knows it. Raises `InstructionError` as `clean_instruction` does; the whole may be as long as one.

    >>> clean_task("open the  drawer\\n\\ntake out the cup\\n")
    'open the drawer\\ntake out the cup'
    >>> clean_task(["open the drawer", "", "take out the cup"])
    'open the drawer\\ntake out the cup'
    """
    text = task if isinstance(task, str) else "\n".join(task)
    text = _not_too_long(text.strip(), what)
    lines = [clean_instruction(line, what) for line in _LINE_BREAK.split(text)]
    return _not_too_long("\n".join(filter(None, lines)), what)


def normalized_instruction(instruction: str) -> str:
    """``instruction`` without case, extra white space and the full stop at its end: what two wordings of one
    task have in common for a list of tasks, be it a model's or a calibration's.

    Accents are composed (NFC), as those of an instruction are.

    >>> normalized_instruction("  Open the\\n drawer. ")
    'open the drawer'
    """
    text = unicodedata.normalize("NFC", instruction).casefold()
    return " ".join(text.split()).removesuffix(".").rstrip()


def clean_instruction(text: str, what: str = "the instruction") -> str:
    """``text`` by the rule above, as one line; empty where nothing in it can be seen.

    ``what``: how the user knows it, such as '--task'. Raises `InstructionError` for what was no UTF-8, and
    for what is too long.

    >>> clean_instruction("\\ufeff open\\u00a0the\\n drawer\\u200b\\n")
    'open the drawer'
    """
    text = _not_too_long(text.strip(), what)
    for i, character in enumerate(text):
        if "\ud800" <= character <= "\udfff" or character == "\ufffd":
            after = f" after '{printable(text[:i][-40:])}'" if i else " at its beginning"
            raise InstructionError(
                f"{what} is not UTF-8: it has {_named(character)}{after}; write it in UTF-8"
            )
    cleaned = _cleaned(text)
    while cleaned != text:  # what is dropped or composed may be what a joiner stood beside
        text, cleaned = cleaned, _cleaned(cleaned)
    return _not_too_long(cleaned, what)


def _not_too_long(text: str, what: str) -> str:
    if len(text) > LONGEST:
        raise InstructionError(f"{what} has {len(text):,} characters: at most {LONGEST:,} are taken")
    return text


def _named(damaged: str) -> str:
    """What a character that stands for bytes which were no UTF-8 is to the user."""
    code = ord(damaged)
    return f"the byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"the character U+{code:04X}"


def _cleaned(text: str) -> str:
    seen = ""
    candidates = [character for character in text if not _is_never_seen(character)]
    for character, after in zip_longest(candidates, candidates[1:], fillvalue=""):
        if character.isspace() or character in _BLANK:
            seen += " "
        elif character == _VOWEL_SEPARATOR:
            seen += character if _is_mongolian(seen[-1:]) and _is_mongolian(after) else " "
        elif not _acts_on_neighbours(character) or _acts(character, seen, after):
            seen += character
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def _is_never_seen(character: str) -> bool:
    if character in _SHOWN or character == _VOWEL_SEPARATOR or _acts_on_neighbours(character):
        return False
    if unicodedata.category(character) in ("Cc", "Cf"):
        return not character.isspace()
    return any(first <= ord(character) <= last for first, last in _IGNORABLE)


def _acts_on_neighbours(character: str) -> bool:
    return character in _JOINERS or ord(character) in _TAGS or _is_selector(character)


def _is_selector(character: str) -> bool:
    code = ord(character)
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or character in _MONGOLIAN_FORMS


def _acts(character: str, before: str, after: str) -> bool:
    """Whether a joiner, selector or tag changes how ``before`` it or ``after`` it looks."""
    last = before[-1:]
    if not last:
        return False
    if character in _JOINERS:
        return _joins(character, before, after)
    if ord(character) in _TAGS:
        return last == _FLAG or ord(last) in _TAGS
    if character in _FORMS:
        return (after == _KEYCAP and last in _KEYS) or (
            not last.isascii() and unicodedata.category(last)[0] in "SP"
        )
    if character in _MONGOLIAN_FORMS:
        return _is_mongolian(last)
    # other selectors: forms of Chinese characters, of letters of some scripts without case, and of symbols
    return unicodedata.category(last) in ("Lo", "Sm", "So")


def _joins(joiner: str, before: str, after: str) -> bool:
    """Whether a joiner between ``before`` and ``after`` may show (as in RFC 5892, appendices A.1 and A.2)."""
    if not after:  # letters of Malayalam and Bengali may end so
        return joiner == _JOINER and unicodedata.combining(before[-1]) == _VIRAMA
    if _VIRAMA in (unicodedata.combining(before[-1]), unicodedata.combining(after)):
        return True
    base = next((c for c in before[: -_MOST_MARKS - 1 : -1] if unicodedata.category(c) != "Mn"), "")
    return (_is_joining(base) and _is_joining(after)) or (_is_symbol(base) and _is_symbol(after))


def _is_symbol(character: str) -> bool:
    return (
        bool(character) and not character.isascii() and unicodedata.category(character) in ("So", "Sm", "Sk")
    )


def _is_joining(character: str) -> bool:
    """Whether it is a letter of a script in which letters join, as in Arabic, Syriac, N'Ko, Mongolian."""
    if not character or unicodedata.category(character) not in ("Lo", "Lm"):
        return False
    is_arabic = unicodedata.bidirectional(character) == "AL"
    return is_arabic or "\u07c0" <= character <= "\u07ff" or _is_mongolian(character)


def _is_mongolian(character: str) -> bool:
    return "\u1820" <= character <= "\u18aa"
