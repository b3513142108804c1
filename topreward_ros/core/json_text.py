"""JSON from files and from others: one function reads it, and one error says what is wrong with it.

Python's own reader fails in several ways: it has one error for text that is no JSON and another for what is
nested too deep, and it takes whole numbers that no float can hold, which fail where they are used.
Here these are infinite, as 1e400 is.
"""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 50  #: levels of lists and objects; what handles a value calls itself for each
_MOST_DIGITS = 300  # of a whole number that stays one; a float holds 308


class JsonError(ValueError):
    """A text is no JSON that can be used."""


def parsed_json(text: str | bytes) -> Any:
    """The value that ``text`` says. A float can hold each whole number in it; others may be infinite.

    Raises `JsonError`, whose text goes on a sentence that names the file.

    >>> parsed_json('{"times": [0, 0.5]}')
    {'times': [0, 0.5]}
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # bytes that are no text, too
        raise JsonError(f"it is no JSON: {error}") from error
    if _is_deeper(value, DEEPEST):
        raise _too_deep()
    return value


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _too_deep() -> JsonError:
    return JsonError(f"it is nested deeper than {DEEPEST} levels")


def _is_deeper(content: Any, levels: int) -> bool:
    """Whether there are objects or lists below so many ``levels`` of them.

    >>> _is_deeper({"a": [1, {}]}, 3), _is_deeper({"a": [1, {}]}, 2)
    (False, True)
    """
    level = [content]
    for _ in range(levels + 1):
        level = [part for part in level if isinstance(part, dict | list)]
        if not level:
            return False
        inner = (part.values() if isinstance(part, dict) else part for part in level)
        level = [value for values in inner for value in values]
    return True
