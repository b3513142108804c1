"""Which of the names that there are was meant by one that there is not.

`nearest` is for a name that is wrong, `misspelt` for one that may be right though it is not known, and
`closest` where one is named at any rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_SHORTEST_BEGIN = 3  # letters: fewer begin too many names
_SPELT_ALIKE = 0.6  # how alike two names are at least of which one may stand for the other, from 0 to 1


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``name`` seems to stand for, whatever the case of its letters; empty: none.

    A name of which ``name`` says some words, or the begin, is nearer than one that is only spelt alike.

    >>> nearest("stale", ["STALL", "STALE_IMAGES"]), nearest("stal", ["STALL", "STALE_IMAGES"])
    ('STALE_IMAGES', 'STALL')
    >>> nearest("sample_rat", ["task", "sample_rate"]), nearest("colour", ["task", "sample_rate"])
    ('sample_rate', '')
    """
    known = list(known)
    folded = name.casefold()
    words = _words(folded)
    holding = [
        each
        for each in known
        if (words and words <= _words(each.casefold()))
        or (len(folded) >= _SHORTEST_BEGIN and each.casefold().startswith(folded))
    ]
    return _most_alike(name, holding, 0.0) or _most_alike(name, known, _SPELT_ALIKE)


def misspelt(name: str, known: Iterable[str], alike: float) -> str:
    """The one of ``known`` that ``name`` is, but for its spelling; empty: none. Words and begins say nothing.

    ``alike``: how alike the two are spelt at least, from 0 to 1. Who asks knows what else may be right.

    >>> misspelt("moniter", ["monitor"], 0.85), misspelt("motor", ["monitor"], 0.85)
    ('monitor', '')
    """
    return _most_alike(name, known, alike)


def closest(name: str, known: Sequence[str]) -> str:
    """The one of ``known``, of which there is one at least, that is most like ``name``, however unlike.

    >>> closest("drawer open", ["drawer close", "open the drawer"]), closest("@", ["drawer close"])
    ('open the drawer', 'drawer close')
    """
    return nearest(name, known) or _most_alike(name, known, 0.0)


def _most_alike(name: str, known: Iterable[str], alike: float) -> str:
    """The one of ``known`` that is spelt most like ``name``, ``alike`` at least (0 to 1); empty: none."""
    folded = {each.casefold(): each for each in known}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=alike)
    return folded[close[0]] if close else ""


def _words(name: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", name))
