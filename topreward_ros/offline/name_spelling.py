"""Dates, times of day and numbers in names of images, written so that their digits come in order of size.

`31-12-2025` becomes `2025-12-31`, `1.05 PM` becomes `13.05`, `1e-05` becomes `0.00001`, `12,5` becomes
`12.5`. Where a date has several readings, the one counts in which the dates are closest together. Names that
have none of these stay as they are. Nothing is sorted here (image_names.py does), and no file is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY, _YEAR, _GAP = r"(?P<day>\d{1,2})", r"(?P<year>\d{4})", r"[-._, ]*"
#: Dates with the name of the month: 31-Dec-2025, Dec 31, 2025 and 2025-Dec-31.
_NAMED_MONTHS = tuple(
    re.compile(rf"(?<![^\W_]){before}{_GAP}{middle}{_GAP}{after}(?!\d)", re.IGNORECASE)
    for before, middle, after in ((_DAY, _MONTH, _YEAR), (_MONTH, _DAY, _YEAR), (_YEAR, _MONTH, _DAY))
)
_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})([-._/ ])(\d{1,2})\2(\d{4,})(?!\d)")
_EIGHT_DIGITS = re.compile(r"(?<!\d)(\d\d)()(\d\d)(\d{4})(?!\d)")
#: A date with two digits for the year; with a time behind it, or else it may be a time itself.
_SHORT_DATE = re.compile(r"(?<!\d)(\d\d)([-._/ ])(\d\d)\2(\d\d)(?!\d)")
_SHORT_DATE_AND_TIME = re.compile(_SHORT_DATE.pattern + r"(?=[-_ T.]+\d\d[-._:h ]?\d\d)")
#: The same without separators, before a time of six digits, perhaps with fractions of a second.
_SIX_DIGITS_AND_TIME = re.compile(
    r"(?<!\d)(\d\d)()(\d\d)(\d\d)(?=[-_ T.]+(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?:\d{3}|\d{6})?(?!\d))"
)
_WITHOUT_SEPARATORS = (_EIGHT_DIGITS, _SIX_DIGITS_AND_TIME)
_TWELVE_HOURS = re.compile(
    r"(?<!\d)(1[0-2]|0?[1-9])((?:[-.:_ ][0-5]\d){1,2})[\s_-]?([ap])\.?m(?![a-z])", re.IGNORECASE
)
#: As programs write small and large numbers: one digit before the point, a sign, two digits at most.
_POWER_OF_TEN = re.compile(r"(?<![^\W_])(?<![.,])(\d(?:[.,]\d+)?)e([+-]\d{1,2})(?![^\W_])", re.IGNORECASE)
#: The same behind a letter, where it may be no power; it is one if others have a fraction there.
_POWER_BEHIND_A_LETTER = re.compile(r"(?<=[^\W\d_])(\d(?:[.,]\d+)?)e([+-]\d\d)(?![^\W_])", re.IGNORECASE)
_FRACTION_BEHIND_A_LETTER = re.compile(r"(?<=[^\W\d_])\d+[.,]\d+(?![^\W_])(?![.,]\d)")
_COMMA = re.compile(r"(?<=\d),(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_YEARS = range(1970, 2100)
#: How much closer together dates are in one reading, so that the others need no mention.
_SURELY_CLOSER = 100

#: The three numbers of a date as they stand in a name.
_Triple = tuple[int, int, int]


def _day_first(numbers: _Triple) -> date:
    return date(numbers[2], numbers[1], numbers[0])


def _month_first(numbers: _Triple) -> date:
    return date(numbers[2], numbers[0], numbers[1])


def _year_first(numbers: _Triple) -> date:
    return date(*numbers)


_READINGS: dict[str, Callable[[_Triple], date]] = {
    "year first": _year_first,
    "day first": _day_first,
    "month first": _month_first,
}


def in_order_of_size(stems: Sequence[str]) -> tuple[list[str], list[str]]:
    """``stems`` (names without their suffix) so rewritten, in the same order, and notes on what is a guess.

    >>> in_order_of_size(["31-12-2025", "01-01-2026"])
    (['2025-12-31', '2026-01-01'], [])
    >>> in_order_of_size(["t0,5", "t1e+01"])
    (['t0.5', 't10'], [])
    """
    notes: list[str] = []
    written = [_with_numbered_month(" ".join(stem.split())) for stem in stems]
    for pattern, readings in (
        (_YEAR_LAST, ("day first", "month first")),
        (_EIGHT_DIGITS, ("day first", "month first")),
        (_SIX_DIGITS_AND_TIME, tuple(_READINGS)),
        (_SHORT_DATE_AND_TIME, tuple(_READINGS)),
        (_SHORT_DATE, tuple(_READINGS)),
    ):
        written = _with_iso_dates(written, pattern, readings, notes)
    written = [_TWELVE_HOURS.sub(_with_24_hours, stem) for stem in written]
    return _with_plain_numbers(written, notes), notes


def _with_numbered_month(stem: str) -> str:
    for pattern in _NAMED_MONTHS:
        if found := pattern.search(stem):
            month = _MONTHS.index(found["month"].lower()) + 1
            iso = f"{found['year']}-{month:02}-{int(found['day']):02}"
            return stem[: found.start()] + iso + stem[found.end() :]
    return stem


def _with_24_hours(found: re.Match[str]) -> str:
    hour = int(found[1]) % 12 + (12 if found[3] in "pP" else 0)
    return f"{hour:02}{found[2]}"


def _with_iso_dates(
    stems: list[str], pattern: re.Pattern[str], names: Sequence[str], notes: list[str]
) -> list[str]:
    """Put the year first in what all names that fit ``pattern`` have as a date, in a reading of ``names``."""
    found = [pattern.search(stem) for stem in stems]
    triples = [(int(fit[1]), int(fit[3]), int(fit[4])) for fit in found if fit]
    if not triples or not _may_be_dates(triples, pattern):
        return stems
    days: dict[str, list[date]] = {}
    for name in names:
        try:
            days[name] = [_READINGS[name](_with_century(triple, name)) for triple in triples]
        except ValueError:  # no day of the calendar
            continue
    if not days:
        if pattern is _YEAR_LAST:
            example = next(fit[0] for fit in found if fit)
            notes.append(
                f"dates such as {example} are neither all day first nor all month first; write them as "
                "2026-12-31 to be sure"
            )
        return stems
    spans = {name: (max(some) - min(some)).days for name, some in days.items()}
    best, *others = sorted(spans, key=lambda name: spans[name])
    doubtful = [
        name
        for name in others
        if spans[name] < _SURELY_CLOSER * max(1, spans[best])
        and _order(triples, days[name]) != _order(triples, days[best])
    ]
    if doubtful:
        example = next(fit[0] for fit in found if fit)
        notes.append(
            f"dates such as {example} are read {best}, because they are closest together so; {doubtful[0]} "
            "the order would be another. Write them as 2026-12-31 to be sure"
        )
    ordered_days = iter(days[best])
    dash = "" if pattern in _WITHOUT_SEPARATORS else "-"
    return [
        stem[: fit.start()] + next(ordered_days).strftime(f"%Y{dash}%m{dash}%d") + stem[fit.end() :]
        if fit
        else stem
        for stem, fit in zip(stems, found, strict=True)
    ]


def _may_be_dates(triples: Sequence[_Triple], pattern: re.Pattern[str]) -> bool:
    if pattern is _SHORT_DATE:  # or times of day
        return any(first > 23 or second > 59 or third > 59 for first, second, third in triples)
    if pattern in (_SHORT_DATE_AND_TIME, _SIX_DIGITS_AND_TIME):
        return True
    if pattern is _EIGHT_DIGITS and all(_is_iso(triple) for triple in triples):
        return False
    return all(1 <= a <= 31 and 1 <= b <= 31 and c in _YEARS for a, b, c in triples)


def _is_iso(triple: _Triple) -> bool:
    """Whether eight digits, which were taken for DD MM YYYY, are a date as YYYYMMDD."""
    year, (month, day) = triple[0] * 100 + triple[1], divmod(triple[2], 100)
    return year in _YEARS and 1 <= month <= 12 and 1 <= day <= 31


def _with_century(triple: _Triple, reading: str) -> _Triple:
    a, b, c = triple
    if reading == "year first":
        return a + 2000 if a < 100 else a, b, c
    return a, b, c + 2000 if c < 100 else c


def _order(triples: Sequence[_Triple], days: Sequence[date]) -> list[_Triple]:
    return [triple for _, triple in sorted(set(zip(days, triples, strict=True)))]


def _with_plain_numbers(stems: Sequence[str], notes: list[str]) -> list[str]:
    """Without powers of ten and commas in numbers."""
    before = {stem[: fit.start()] for stem in stems for fit in _FRACTION_BEHIND_A_LETTER.finditer(stem)}
    stems = [
        _POWER_BEHIND_A_LETTER.sub(
            lambda fit: _with_all_digits(fit) if fit.string[: fit.start()] in before else fit[0], stem
        )
        for stem in stems
    ]
    powers = [stem for stem in stems if _POWER_OF_TEN.search(stem)]
    with_fraction = any(re.search(r"\d[.,]\d", stem) for stem in stems if not _POWER_OF_TEN.search(stem))
    if any("-" in fit[2] for stem in powers if (fit := _POWER_OF_TEN.search(stem))) and not with_fraction:
        notes.append(
            f"names such as {powers[0]} are read as powers of ten; if the dash is no minus, number them anew"
        )
    plain = [_POWER_OF_TEN.sub(_with_all_digits, stem) for stem in stems]
    commas = [len(_COMMA.findall(stem)) for stem in plain]
    if sum(commas) == sum(len(_THOUSANDS.findall(stem)) for stem in plain):
        return [_THOUSANDS.sub("", stem) for stem in plain]  # fractions of three digits keep their order, too
    if max(commas) > 1 or any(_COMMA.search(stem) and re.search(r"\d\.\d", stem) for stem in plain):
        return plain  # lists of numbers
    return [_COMMA.sub(".", stem) for stem in plain]


def _with_all_digits(found: re.Match[str]) -> str:
    return f"{Decimal(found[1].replace(',', '.')).scaleb(int(found[2])):f}"
