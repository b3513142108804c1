"""The order in which a folder's images were taken, as far as their names tell it.

Numbers in names count as numbers: frame2 comes before frame10, `_-1` before `_0`, 0x9 before 0xa. Where names
can be read in two ways (decimal fractions, or seconds and nanoseconds without leading zeros) the spacing of
the numbers decides. Dates and numbers in other spellings are put in order of size first (name_spelling.py). A
counter that has started again goes on after its largest number. Whatever remains a guess is told in a note.
Names of several streams side by side, such as depth and colour, are refused. No file is opened here.
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

from topreward_ros.core.errors import UserError
from topreward_ros.offline.name_spelling import in_order_of_size

_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)")
#: How programs name a copy of a file whose name was taken.
_COPY = re.compile(
    r"( ?\(\d+\)| - copy( \(\d+\))?| copy( \d+)?| \((another |\d+(st|nd|rd|th) )?copy( \d+)?\)|~\d+)$",
    re.IGNORECASE,
)
#: Random parts of names, as tools that export datasets add: hexadecimal hashes and UUIDs.
_HASH = re.compile(
    r"(?<![^\W_])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{6,})(?![^\W_])", re.IGNORECASE
)
#: Units of the second number of a stamp in two whole numbers: milli-, micro- and nanoseconds.
_DIGITS_OF_UNITS = (3, 6, 9)
_FEWEST_FOR_SPACING = 4  # names, below which an even spacing is chance
_EVEN = 0.75  # share of equal steps above which other ones are gaps
#: Words before the number of a camera, which is no number of an image.
_CAMERA = re.compile(
    r"(?:^|[^a-z])(?:cam|camera|channel|ch|dev|device|eye|kinect|lens|realsense|sensor|stream|view)[ _-]?$"
)
_MOST_CAMERAS = 100  # larger numbers behind such a word are times or counters
#: Largest numbers + 1 of binary counters; those of decimal digits follow from the names.
_BINARY_COUNTERS = (1 << 8, 1 << 16, 1 << 32)
#: How many times larger than all other steps the gap is between the last and the first number of a counter
#: that has started again.
_CLEAR_GAP = 10

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
    def of(cls, name: str, spelling: str) -> _Name:
        """``spelling``: the name without its suffix, in order of size (name_spelling.py)."""
        parts = _NUMBER.split(spelling)
        stem = splitext(name)[0]
        return cls(name, stem, tuple(part.casefold() for part in parts[::2]), tuple(parts[1::2]))

    @property
    def suffix(self) -> str:
        return splitext(self.whole)[1].casefold()


class SeveralStreamsError(UserError):
    """Names of images belong to several streams that were taken side by side."""


def in_order(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names in the order of their numbers, and notes on what is uncertain about it.

    Raises `SeveralStreamsError` for names of several streams, whose text is to follow the folder's name.

    >>> in_order(["frame10.png", "frame2.png", "frame1.png"])
    (['frame1.png', 'frame2.png', 'frame10.png'], [])
    >>> in_order(["7.25.png", "7.5.png", "7.05.png"])[0]
    ['7.05.png', '7.25.png', '7.5.png']
    """
    some = sorted(names)
    spellings, notes = in_order_of_size(_without_hashes([splitext(name)[0] for name in some]))
    parsed = [_Name.of(name, spelling) for name, spelling in zip(some, spellings, strict=True)]
    if hexadecimal := _hexadecimal(parsed):
        return hexadecimal
    signed = _signed(parsed, notes)
    two_whole_numbers = _pairs_of_whole_numbers(parsed, signed, notes)
    keys = {name.whole: _key(name, signed, two_whole_numbers) for name in parsed}
    _refuse_streams(parsed, keys)
    ordered = sorted(keys, key=lambda whole: (keys[whole], whole.casefold(), whole))
    ordered = _with_counter_started_again(ordered, parsed, keys, notes)
    notes += _notes_on_copies(parsed) + _notes_on_kinds(parsed, keys) + _notes_on_equal_numbers(ordered, keys)
    notes += _notes_on_gaps(ordered, keys)
    return ordered, notes


def _without_hashes(stems: list[str]) -> list[str]:
    """With an x for a random part that all have at one place, where the rest tells them apart."""
    if len(stems) < 2:
        return stems
    found = [list(_HASH.finditer(stem)) for stem in stems]
    for k in range(min(map(len, found), default=0)):
        fits = [fit[k] for fit in found]
        parts = [fit[0] for fit in fits]
        mixed = sum(not part.isdecimal() and any(map(str.isdecimal, part)) for part in parts)
        rest = [f"{stem[: fit.start()]}x{stem[fit.end() :]}" for stem, fit in zip(stems, fits, strict=True)]
        if (
            len(set(map(len, parts))) == 1
            and len(set(parts)) == len(parts)
            and 2 * mixed >= len(parts)
            and len({_NUMBER.sub("0", part) for part in rest}) == 1
            and len(set(rest)) == len(rest)
        ):
            return rest
    return stems


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
    """Places of numbers that have a dot and one further number behind them; 1.2.3 and 0x1.2 have none."""
    dots = [text == "." for text in name.texts]
    for k, number in enumerate(name.numbers):
        if not number.isdecimal():
            dots[k] = dots[k + 1] = False
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


def _originals(names: Sequence[_Name]) -> list[_Name]:
    """The names without those that look like copies of others."""
    stems = {name.stem for name in names}
    return [
        name for name in names if (original := _COPY.sub("", name.stem)) == name.stem or original not in stems
    ]


def _kind(key: _Key) -> tuple[tuple[str | Fraction, ...], tuple[Fraction, ...]]:
    """The texts of a key, with the numbers of cameras, and its other numbers."""
    texts: list[str | Fraction] = [key[0]]
    numbers: list[Fraction] = []
    for text, number, after in zip(key[::2], key[1::2], key[2::2], strict=False):
        assert isinstance(text, str) and isinstance(number, Fraction)
        is_camera = (
            len(key) > 3
            and number.denominator == 1
            and 0 <= number < _MOST_CAMERAS
            and _CAMERA.search(text) is not None
        )
        (texts if is_camera else numbers).append(number)
        texts.append(after)
    return tuple(texts), tuple(numbers)


def _refuse_streams(names: Sequence[_Name], keys: dict[str, _Key]) -> None:
    """Raise `SeveralStreamsError` where two kinds of names have numbers of the same range.

    Where they differ in their suffix alone, these must be the same numbers: one stream may have two formats.
    """
    kinds: dict[tuple[int, str, tuple[str | Fraction, ...]], dict[tuple[Fraction, ...], str]] = defaultdict(
        dict
    )
    for name in _originals(names):
        texts, numbers = _kind(keys[name.whole])
        if numbers:
            kinds[len(numbers), name.suffix, texts][numbers] = name.whole
    several = [(kind[0], kind[2], images) for kind, images in kinds.items() if len(images) > 1]
    for k, (count, texts, images) in enumerate(several):
        for other_count, other_texts, others in several[:k]:
            if count != other_count:
                continue
            low, high = max(min(images), min(others)), min(max(images), max(others))
            fewer = min(images, others, key=len)
            if texts == other_texts:
                together = len(images.keys() & others.keys())
            else:
                together = sum(low <= numbers <= high for numbers in fewer)
            if 2 * together >= len(fewer):
                first, second = sorted((images[min(images)], others[min(others)]))
                raise SeveralStreamsError(
                    f"holds several streams of images side by side, such as {first} and {second}: give each "
                    "a folder of its own, and name that of the camera that is to be scored"
                )


def _with_counter_started_again(
    ordered: list[str], names: Sequence[_Name], keys: dict[str, _Key], notes: list[str]
) -> list[str]:
    """``ordered``, with the numbers after a counter's largest behind it: 9998, 9999, 0001.

    Only names count in which one number alone differs.
    """
    kinds: dict[tuple[str | Fraction, ...], list[str]] = defaultdict(list)
    for whole in ordered:
        kinds[keys[whole][::2]].append(whole)
    most = max(kinds.values(), key=len, default=[])
    columns = list(zip(*(keys[whole][1::2] for whole in most), strict=True))
    varying = [k for k, column in enumerate(columns) if len(set(column)) > 1]
    if len(varying) != 1:
        return ordered
    (place,) = varying
    numbers = [Fraction(value) for value in columns[place]]
    if any(number.denominator > 1 or number < 0 for number in numbers):
        return ordered
    of_this_kind = set(most)
    digits = {len(name.numbers[place]) for name in names if name.whole in of_this_kind}
    values = [int(number) for number in numbers]
    steps = [later - earlier for earlier, later in pairwise(values)]
    gap = max(steps)
    at = steps.index(gap) + 1
    usual = max([*steps[: at - 1], *steps[at:], 1])
    sizes = [10 ** max(digits)] if len(digits) == 1 and max(digits) > 1 else []
    for size in sorted([*sizes, *_BINARY_COUNTERS]):
        across = size - values[-1] + values[0]  # one number may be left out: cameras have no picture 0
        if size > values[-1] and across <= 2 * usual and gap >= _CLEAR_GAP * max(across, usual):
            notes.append(
                f"the counter in the names is taken to have started again: {most[-1]} comes before {most[0]}"
                "; if that is not their order, number them anew"
            )
            turned = iter([*most[at:], *most[:at]])
            return [next(turned) if whole in of_this_kind else whole for whole in ordered]
    if sizes and sizes[0] > 1000 and 2 * gap > sizes[0] and gap >= _CLEAR_GAP * usual:
        notes.append(
            f"between {most[at - 1]} and {most[at]} the numbers jump; if these are two recordings, give each "
            "a folder, and if the counter has started again, number them anew"
        )
    return ordered


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
    kinds: Counter[tuple[str | Fraction, ...]] = Counter()
    examples: dict[tuple[str | Fraction, ...], str] = {}
    for name in _originals(names):
        texts = _kind(keys[name.whole])[0]
        kinds[texts] += 1
        examples.setdefault(texts, name.whole)
    leading = {keys[name.whole][:2] for name in names}
    if len(kinds) < 2 or (len({key[0] for key in leading}) == 1 and len(leading) == len(names)):
        return []  # the first number alone orders them, whatever follows
    if not any(name.numbers for name in names):
        return ["the names hold no numbers and are read in alphabetical order; number them to be sure"]
    (most, _), (other, _) = kinds.most_common()[0], kinds.most_common()[-1]
    return [
        f"the names are of {len(kinds)} kinds, such as {examples[most]} and {examples[other]}, which are "
        "read one after the other; name what belongs together alike, give each camera a folder of its own "
        "and take out what is no frame"
    ]


def _notes_on_equal_numbers(ordered: Sequence[str], keys: dict[str, _Key]) -> list[str]:
    for first, second in pairwise(ordered):
        if keys[first] == keys[second]:
            return [f"{first} and {second} have the same number, and both are used; remove one of them"]
    return []


def _notes_on_gaps(ordered: Sequence[str], keys: dict[str, _Key]) -> list[str]:
    """What is missing from numbers that otherwise go on by one step."""
    steps = [_step(keys[first], keys[second]) for first, second in pairwise(ordered)]
    if len(ordered) < _FEWEST_FOR_SPACING:
        return []
    (usual, count), *_ = Counter(steps).most_common(1)
    if usual <= 0 or count <= _EVEN * len(steps):
        return []
    gaps = {k: int(step / usual) - 1 for k, step in enumerate(steps) if step > usual and not step % usual}
    if not gaps:
        return []
    (first, _), missing = next(iter(gaps.items())), sum(gaps.values())
    what = "1 number is" if missing == 1 else f"{missing} numbers are"
    where = "between" if len(gaps) == 1 else "first between"
    return [
        f"{what} missing, {where} {ordered[first]} and {ordered[first + 1]}; the images behind are taken "
        "to follow at once, so their times are early if images were lost"
    ]


def _step(first: _Key, second: _Key) -> Fraction:
    """From one key to the next where one number alone differs; 0 where more does."""
    if len(first) != len(second) or first[::2] != second[::2]:
        return Fraction(0)
    steps = [
        Fraction(later) - Fraction(earlier)
        for earlier, later in zip(first[1::2], second[1::2], strict=True)
        if earlier != later
    ]
    return steps[0] if len(steps) == 1 else Fraction(0)
