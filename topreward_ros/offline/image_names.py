"""The order in which a folder's images were taken, as far as their names tell it.

Numbers in names count as numbers: frame2 comes before frame10, `_-1` before `_0`, 0x9 before 0xa. Where names
can be read in two ways (decimal fractions, or seconds and nanoseconds without leading zeros) the spacing of
the numbers decides. Whatever remains a guess is told in a note. No file is opened here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from os.path import splitext
from typing import TypeAlias

_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)")
#: How programs name a copy of a file whose name was taken.
_COPY = re.compile(r"( ?\(\d+\)| - copy( \(\d+\))?| copy( \d+)?|~\d+)$", re.IGNORECASE)
#: Units of the second number of a stamp in two whole numbers: milli-, micro- and nanoseconds.
_DIGITS_OF_UNITS = (3, 6, 9)
_FEWEST_FOR_SPACING = 4  # names, below which an even spacing is chance

#: Texts and numbers in turn, text first: what is compared.
_Key: TypeAlias = tuple["str | Fraction", ...]
#: The numbers before a.b in a name, a and b.
_Pair: TypeAlias = tuple[tuple[str, ...], str, str]


@dataclass(frozen=True, slots=True)
class _Name:
    """A name without its suffix, in texts and the numbers between them: one text more than numbers."""

    whole: str
    stem: str
    texts: tuple[str, ...]
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> _Name:
        stem = splitext(name)[0]
        parts = _NUMBER.split(stem)
        return cls(name, stem, tuple(part.casefold() for part in parts[::2]), tuple(parts[1::2]))


def in_order(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names in the order of their numbers, and notes on what is uncertain about it.

    >>> in_order(["frame10.png", "frame2.png", "frame1.png"])
    (['frame1.png', 'frame2.png', 'frame10.png'], [])
    >>> in_order(["7.25.png", "7.5.png", "7.05.png"])[0]
    ['7.05.png', '7.25.png', '7.5.png']
    """
    parsed = [_Name.of(name) for name in sorted(names)]
    if hexadecimal := _hexadecimal(parsed):
        return hexadecimal
    notes: list[str] = []
    signed = _signed(parsed, notes)
    two_whole_numbers = _pairs_of_whole_numbers(parsed, signed, notes)
    keys = {name.whole: _key(name, signed, two_whole_numbers) for name in parsed}
    ordered = sorted(keys, key=lambda whole: (keys[whole], whole.casefold(), whole))
    notes += _notes_on_copies(parsed) + _notes_on_kinds(parsed, keys) + _notes_on_equal_numbers(ordered, keys)
    return ordered, notes


def _hexadecimal(names: Sequence[_Name]) -> tuple[list[str], list[str]] | None:
    """Names that are told apart by hexadecimal numbers of equal length, such as 0009, 000a, 0010."""
    stems = [name.stem for name in names]
    if len(set(map(len, stems))) != 1 or len(set(stems)) < 2:
        return None
    columns = [set(column) for column in zip(*stems, strict=True)]
    differing = [k for k, characters in enumerate(columns) if len(characters) > 1]
    first, last = differing[0], differing[-1]
    varying = "".join(stem[first : last + 1] for stem in stems)
    if (
        first == last
        or not re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", varying)
        or varying.isdecimal()
        or varying.isalpha()
    ):
        return None
    ordered = [name.whole for name in sorted(names, key=lambda name: (name.stem, name.whole))]
    note = f"the names are read as hexadecimal numbers, from {ordered[0]} to {ordered[-1]}"
    return ordered, [note + "; if that is not their order, number them"]


def _signed(names: Sequence[_Name], notes: list[str]) -> set[tuple[int, str]]:
    """Where a dash is a minus: place and text before it, where other names have the same text and no dash."""
    unsigned = {(k, text) for name in names for k, text in enumerate(name.texts[:-1])}
    dashes = defaultdict(list)
    for name in names:
        for k, text in enumerate(name.texts[:-1]):
            if _may_be_minus(k, text):
                dashes[k, text].append(name.whole)
    signed = {(k, text) for k, text in dashes if (k, text[:-1]) in unsigned}
    for place, some in dashes.items():
        if place not in signed and len(some) > 1:
            notes.append(f"the dash in names such as {some[0]} is not taken for a minus: 1 comes before 2")
    return signed


def _may_be_minus(place: int, text: str) -> bool:
    return text.endswith("-") and (text[-2:-1] in ("_", " ", "=", "(") if len(text) > 1 else place == 0)


def _dotted(name: _Name) -> list[int]:
    """Places of numbers that have a dot and one further number behind them; 1.2.3 has none."""
    dots = [text == "." for text in name.texts]
    last = len(name.numbers)
    return [
        k
        for k in range(last - 1)
        if dots[k + 1] and not (k and dots[k]) and not (k + 2 < last and dots[k + 2])
    ]


def _pairs_of_whole_numbers(
    names: Sequence[_Name], signed: set[tuple[int, str]], notes: list[str]
) -> set[tuple[tuple[str, ...], int]]:
    """Where a.b is two whole numbers and no decimal fraction: texts of the name and place of a.

    A number with a minus is decimal.
    """
    groups: dict[tuple[tuple[str, ...], int], list[_Name]] = defaultdict(list)
    for name in names:
        for place in _dotted(name):
            if (place, name.texts[place]) in signed:
                continue
            groups[name.texts, place].append(name)
    whole = set()
    for (texts, place), group in groups.items():
        # numbers before them, such as date and minute, say which belong together
        pairs = [(name.numbers[:place], name.numbers[place], name.numbers[place + 1]) for name in group]
        is_whole, is_sure = _are_whole(pairs)
        if is_whole:
            whole.add((texts, place))
        if not is_sure:
            notes.append(_two_readings(group, pairs, is_whole))
    return whole


def _are_whole(pairs: Sequence[_Pair]) -> tuple[bool, bool]:
    """Whether the pairs a.b are two whole numbers each, and whether that is sure."""
    if _differing(pairs) is None:
        return False, True
    behind = [b for _, _, b in pairs if len(b) > 1]
    # Whole numbers have no zeros in front; decimal fractions of unequal length have lost those at their end.
    padded = any(b.startswith("0") for b in behind)
    rounded = any(b.endswith("0") for b in behind)
    if padded != rounded:
        return rounded, True
    if not padded and _count_up(pairs):
        return True, True
    most, _ = Counter(before for before, _, _ in pairs).most_common()[0]
    together = [(a, b) for before, a, b in pairs if before == most]
    longest = max(len(b) for _, b in together)
    decimal = _unevenness([_decimal(*pair) for pair in together])
    stamps = [
        _unevenness([int(a) + Fraction(int(b), 10**digits) for a, b in together])
        for digits in _DIGITS_OF_UNITS
        if digits >= longest
    ]
    apart = min(stamps, default=float("inf"))
    is_sure = len(together) >= _FEWEST_FOR_SPACING and max(decimal, apart) > 2 * min(decimal, apart)
    return apart < decimal, is_sure


def _decimal(a: str, b: str) -> Fraction:
    return int(a) + Fraction(int(b), 10 ** len(b))


def _differing(pairs: Sequence[_Pair]) -> tuple[int, int] | None:
    """Two of the pairs that the two readings put in different order, in that of whole numbers."""
    belonging: dict[tuple[tuple[str, ...], int], list[tuple[int, Fraction, int]]] = defaultdict(list)
    for k, (before, a, b) in enumerate(pairs):
        belonging[before, int(a)].append((int(b), _decimal(a, b), k))
    for some in belonging.values():
        for (_, earlier, i), (_, later, j) in pairwise(sorted(some)):
            if earlier > later:
                return i, j
    return None


def _count_up(pairs: Sequence[_Pair]) -> bool:
    """Whether the second numbers count from 0 or 1 on without a gap, as in 1.9, 1.10."""
    counts: dict[tuple[tuple[str, ...], int], set[int]] = defaultdict(set)
    for before, a, b in pairs:
        counts[before, int(a)].add(int(b))
    return all(min(some) <= 1 and max(some) - min(some) == len(some) - 1 for some in counts.values())


def _unevenness(times: Sequence[Fraction]) -> float:
    """Standard deviation of the steps between the sorted times, in means."""
    ordered = sorted(times)
    steps = [float(later - earlier) for earlier, later in pairwise(ordered)]
    mean = sum(steps) / len(steps)
    if not mean:
        return float("inf")
    return float((sum((step - mean) ** 2 for step in steps) / len(steps)) ** 0.5 / mean)


def _two_readings(group: Sequence[_Name], pairs: Sequence[_Pair], is_whole: bool) -> str:
    differing = _differing(pairs)
    assert differing is not None
    first, second = (group[k].whole for k in differing)
    if not is_whole:
        first, second = second, first
    kinds = (
        ("two whole numbers", "decimal fractions") if is_whole else ("decimal fractions", "two whole numbers")
    )
    return (
        f"{first} is read before {second}, their numbers as {kinds[0]}; as {kinds[1]} the order would be the "
        "other. Fill the numbers with zeros to equal length to be sure"
    )


def _key(name: _Name, signed: set[tuple[int, str]], whole: set[tuple[tuple[str, ...], int]]) -> _Key:
    key: list[str | Fraction] = []
    fractions = {k for k in _dotted(name) if (name.texts, k) not in whole}
    for k, text in enumerate(name.texts):
        if k - 1 in fractions:
            continue  # the dot and its fraction belong to the number before
        minus = k < len(name.numbers) and (k, text) in signed
        key.append(text[:-1] if minus else text)
        if k < len(name.numbers):
            number = name.numbers[k]
            value = Fraction(int(number, 16) if number[:2] in ("0x", "0X") else int(number))
            if k in fractions:
                value = _decimal(number, name.numbers[k + 1])
            key.append(-value if minus else value)
    return tuple(key)


def _notes_on_copies(names: Sequence[_Name]) -> list[str]:
    stems = {name.stem: name.whole for name in names}
    for name in names:
        original = _COPY.sub("", name.stem)
        if original != name.stem and original in stems:
            return [
                f"{name.whole} looks like a copy of {stems[original]}, and both are used; remove one of them"
            ]
    return []


def _notes_on_kinds(names: Sequence[_Name], keys: dict[str, _Key]) -> list[str]:
    stems = {name.stem for name in names}
    kinds: Counter[tuple[str | Fraction, ...]] = Counter()
    examples: dict[tuple[str | Fraction, ...], str] = {}
    for name in names:
        if _COPY.sub("", name.stem) not in stems - {name.stem}:
            texts = keys[name.whole][::2]
            kinds[texts] += 1
            examples.setdefault(texts, name.whole)
    if len(kinds) < 2:
        return []
    if not any(name.numbers for name in names):
        return ["the names hold no numbers and are read in alphabetical order; number them to be sure"]
    (most, _), (other, _) = kinds.most_common()[0], kinds.most_common()[-1]
    return [
        f"the names are of {len(kinds)} kinds, such as {examples[most]} and {examples[other]}, which are "
        "read one after the other; give each camera a folder of its own and take out what is no frame"
    ]


def _notes_on_equal_numbers(ordered: Sequence[str], keys: dict[str, _Key]) -> list[str]:
    for first, second in pairwise(ordered):
        if keys[first] == keys[second]:
            return [f"{first} and {second} have the same number, and both are used; remove one of them"]
    return []
