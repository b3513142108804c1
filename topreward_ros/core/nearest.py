"""Which of the names that there are was meant by one that there is not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_SHORTEST_BEGIN = 3  # letters: fewer begin too many names


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``name`` seems to stand for, whatever the case of its letters; empty: none.

    A name of which ``name`` says some words, or the begin, is nearer than one that is only spelt alike.

    >>> nearest("stale", ["STALL", "STALE_IMAGES"]), nearest("stal", ["STALL", "STALE_IMAGES"])
    ('STALE_IMAGES', 'STALL')
    >>> nearest("sample_rat", ["task", "sample_rate"]), nearest("colour", ["task", "sample_rate"])
    ('sample_rate', '')
    """
    folded = {each.casefold(): each for each in known}
    name = name.casefold()
    words = _words(name)
    holding = [
        each
        for each in folded
        if (words and words <= _words(each)) or (len(name) >= _SHORTEST_BEGIN and each.startswith(name))
    ]
    close = get_close_matches(name, holding, n=1, cutoff=0.0) or get_close_matches(name, folded, n=1)
    return folded[close[0]] if close else ""


def _words(name: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", name))
