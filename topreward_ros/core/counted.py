"""Things with their number before them, for messages to a human."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """``number`` of a thing; ``several``: its plural, where that is not ``one`` with an s.

    >>> counted(1, "episode"), counted(1200, "success", "successes")
    ('1 episode', '1,200 successes')
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
