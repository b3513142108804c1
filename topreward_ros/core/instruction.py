"""One rule for the text of an instruction, whichever way it came: option, parameter, topic or service.

Two instructions that look the same are the same to the model and to the monitor:

- white space of any kind and length becomes one space, and none is left at the ends: a line break that
  `$(cat task.txt)` brings, a tab, a no-break space;
- what has no picture is dropped: byte order marks, zero-width spaces, soft hyphens, marks of direction,
  control characters. Zero-width joiners stay, because some scripts need them to be read;
- letters with accents are composed (Unicode NFC), as Qwen's own tokenizer composes them first.

Everything else stays as it was typed, upper case and punctuation included: the model sees them, too. Bytes
that were no UTF-8 are refused. From a command line they arrive as lone surrogates, which neither a tokenizer
nor a file takes; from ROS 2 as the replacement character U+FFFD.
"""

from __future__ import annotations

import unicodedata

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

# Format characters that show, or change what shows: the joiners, and Arabic and Syriac signs around numbers.
_SHOWN = frozenset("\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2\U000110bd\U000110cd")


class InstructionError(UserError):
    """A text cannot be an instruction."""


def clean_instruction(text: str, what: str = "the instruction") -> str:
    """``text`` by the rule above; empty where nothing in it can be seen.

    ``what``: how the user knows it, such as '--task'. Raises `InstructionError` for what was no UTF-8.

    >>> clean_instruction("\\ufeff open\\u00a0the\\n drawer\\u200b\\n")
    'open the drawer'
    """
    for i, character in enumerate(text):
        if "\ud800" <= character <= "\udfff" or character == "\ufffd":
            after = f" after '{printable(text[:i][-40:])}'" if i else " at its beginning"
            raise InstructionError(
                f"{what} is not UTF-8: it has {_named(character)}{after}; write it in UTF-8"
            )
    spaced = "".join(" " if character.isspace() else character for character in text)
    seen = "".join(character for character in spaced if not _is_invisible(character))
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def _named(damaged: str) -> str:
    """What a character that stands for bytes which were no UTF-8 is to the user."""
    code = ord(damaged)
    return f"the byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"the character U+{code:04X}"


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") and character not in _SHOWN
