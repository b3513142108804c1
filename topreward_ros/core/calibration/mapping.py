"""Calibrations as plain values, which a YAML file holds, and back: strictly, key by key.

A file that somebody edited is read as strictly as one that a program wrote: a key that is missing, unknown,
of another type or out of its range is refused, with its place in the file, its value and what it may be. How
the text of a file becomes plain values is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from hashlib import sha256
from itertools import pairwise
from math import inf, isfinite, isnan, nan
from typing import Any

from topreward_ros.core.calibration.comparison import Comparison, Finding, Side
from topreward_ros.core.calibration.estimates import Estimate, Estimates
from topreward_ros.core.calibration.fit import CalibrationError
from topreward_ros.core.calibration.probability import Kind, ProbabilityMap
from topreward_ros.core.calibration.task import Calibrations, Setup, TaskCalibration
from topreward_ros.core.detectors.failure import ConformalBand
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.frames import Window
from topreward_ros.core.instruction import InstructionError, clean_instruction, normalized_instruction
from topreward_ros.core.intervals import UNKNOWN, Interval
from topreward_ros.core.nearest import nearest
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import ProgressMode

FORMAT = "topreward_calibration/1"  #: raise the number when a key changes its meaning or goes
_MOST = 1_000_000
_MOST_PIXELS = 10**12
_BAND_MODES = (ProgressMode.STATIC_BASELINE.value, ProgressMode.CALIBRATED.value)

# Lowest and highest value of each setting of the detector, as in nodes/parameters.py.
_SUCCESS: Mapping[str, tuple[float, float]] = {
    "threshold": (-100.0, 0.0),
    "hysteresis": (0.0, 100.0),
    "dwell": (0.0, 3600.0),
    "min_scores": (1, 1000),
    "smoothing": (1, 1000),
    "confirm_rate": (0.0, 60.0),
}


# ---- to plain values ------------------------------------------------------------------------------------


def to_mapping(calibrations: Calibrations) -> dict[str, Any]:
    """All of it as dictionaries, lists, numbers and texts; what is not known is None."""
    assert calibrations.setup is not None
    setup = asdict(calibrations.setup)
    setup["cameras"] = list(setup["cameras"])
    return {
        "format": FORMAT,
        "setup": setup,
        "tasks": [_task_to_mapping(task) for task in calibrations.tasks],
    }


def calibrations_digest(calibrations: Calibrations) -> str:
    """A hash of what calibrations say, whatever file they are in."""
    return sha256(json.dumps(to_mapping(calibrations), sort_keys=True).encode()).hexdigest()


def _task_to_mapping(task: TaskCalibration) -> dict[str, Any]:
    curve: dict[str, Any] = {"kind": task.probability.kind.value}
    if task.probability.kind is Kind.PLATT:
        curve |= {"half_at": task.probability.log_odds[0], "slope": task.probability.slope}
    else:
        curve |= {
            "log_odds": list(task.probability.log_odds),
            "probability": list(task.probability.probability),
        }
    bands = {
        mode: {
            "alpha": band.alpha,
            "successes": band.successes,
            "seconds": list(band.seconds),
            "lower": list(band.lower),
        }
        for mode, band in task.bands.items()
    }
    return {
        "task": task.task,
        "success": asdict(task.success),
        "probability": curve,
        "nominal_duration": _known(task.nominal_duration),
        "bands": bands,
        "picture": task.picture and list(task.picture),
        "made_from": {
            "successes": task.successes,
            "failures": task.failures,
            "allowed_false_alarms": task.allowed_false_alarms,
        },
        "estimates": task.estimates and _estimates_to_mapping(task.estimates),
        "comparison": task.comparison and _comparison_to_mapping(task.comparison),
    }


def _comparison_to_mapping(comparison: Comparison) -> dict[str, Any]:
    return {
        "finding": comparison.finding.value,
        "kept": "fitted" if comparison.keeps_fitted else "parameters",
        "fitted": asdict(comparison.fitted),
        "parameters": asdict(comparison.parameters),
    }


def _estimates_to_mapping(estimates: Estimates) -> dict[str, Any]:
    made = {}
    for it in fields(estimates):
        estimate: Estimate = getattr(estimates, it.name)
        made[it.name] = [
            _rounded(value) for value in (estimate.value, estimate.interval.low, estimate.interval.high)
        ]
    return made


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def _rounded(value: float) -> float | None:
    return None if isnan(value) else round(float(value), 4)


# ---- and back -------------------------------------------------------------------------------------------


def from_mapping(content: Any, source: str) -> Calibrations:
    """The calibrations in the content of a file called ``source``. Raises `CalibrationError`."""
    top = _Section(content, source)
    if (found := top.value("format")) != FORMAT:
        raise top.error("format", found, f"this version reads {FORMAT}: make the file anew")
    setup = _setup(top.section("setup"))
    tasks = [_task(section) for section in top.sections("tasks")]
    top.finish()
    seen: set[str] = set()
    for number, task in enumerate(tasks):
        name = normalized_instruction(task.task)
        if name in seen:
            raise top.error(f"tasks[{number}].task", task.task, "stands there twice: remove one of them")
        seen.add(name)
    return Calibrations(setup, tuple(tasks), source)


def _setup(section: _Section) -> Setup:
    made = Setup(
        model=section.text("model"),
        revision=section.text("revision"),
        prompt_hash=section.text("prompt_hash"),
        layout=section.text("layout"),
        chat_template=section.truth("chat_template"),
        contrastive=section.truth("contrastive"),
        dtype=section.text("dtype"),
        max_pixels=section.whole("max_pixels", 1, _MOST_PIXELS),
        sample_rate=section.number("sample_rate", 0.01, 60.0),
        max_frames=section.whole("max_frames", 2, _MOST),
        window=section.text("window", tuple(it.value for it in Window)),
        # Files of before there were these have neither.
        front_padding=section.whole("front_padding", 0, _MOST) if section.has("front_padding") else 0,
        fixed_length=section.whole("fixed_length", 0, _MOST) if section.has("fixed_length") else 0,
        camera_layout=section.text("camera_layout", ("primary", "tile")),
        cameras=tuple(section.texts("cameras")),
    )
    section.finish()
    return made


def _task(section: _Section) -> TaskCalibration:
    text = section.text("task")
    try:
        task = clean_instruction(text)
    except InstructionError as error:
        raise section.error("task", text, str(error)) from error
    if not task or task != text:
        raise section.error("task", text, "must be one line of text, as a monitor takes an instruction")
    made_from = section.section("made_from")
    estimates = section.optional("estimates")
    # Files of before there was one have none.
    comparison = section.optional("comparison") if section.has("comparison") else None
    bands = section.section("bands")
    calibration = TaskCalibration(
        task=task,
        success=_success(section.section("success")),
        probability=_probability(section.section("probability")),
        successes=made_from.whole("successes", 1, _MOST),
        failures=made_from.whole("failures", 1, _MOST),
        allowed_false_alarms=made_from.number("allowed_false_alarms", 0.0, 1.0),
        picture=_picture(section),
        nominal_duration=section.number("nominal_duration", 0.0, inf, or_none=True),
        bands={mode: _band(bands.section(mode)) for mode in _BAND_MODES if bands.has(mode)},
        estimates=_estimates(estimates) if estimates else None,
        comparison=_comparison(comparison) if comparison else None,
    )
    made_from.finish()
    bands.finish()
    section.finish()
    return calibration


def _success(section: _Section) -> SuccessSettings:
    values: dict[str, Any] = {}
    for it in fields(SuccessSettings):
        low, high = _SUCCESS[it.name]
        read = section.whole if it.type in (int, "int") else section.number
        values[it.name] = read(it.name, low, high)
    section.finish()
    return SuccessSettings(**values)


def _probability(section: _Section) -> ProbabilityMap:
    kind = Kind(section.text("kind", tuple(it.value for it in Kind)))
    if kind is Kind.PLATT:
        half_at, slope = section.number("half_at", -1e6, 1e6), section.number("slope", 1e-6, 1e6)
        section.finish()
        return ProbabilityMap(kind, (half_at,), slope=slope)
    odds = section.numbers("log_odds", -1e6, 1e6)
    probability = section.numbers("probability", 0.0, 1.0)
    section.finish()
    _check_pairs(section, "log_odds", odds, "probability", probability, fewest=2)
    if any(later < earlier for earlier, later in pairwise(probability)):
        raise section.error("probability", probability, "must not fall: a higher score is no less likely")
    return ProbabilityMap(kind, tuple(odds), tuple(probability))


def _band(section: _Section) -> ConformalBand:
    alpha, successes = section.number("alpha", 0.0, 1.0), section.whole("successes", 1, _MOST)
    seconds, lower = section.numbers("seconds", 0.0, inf), section.numbers("lower", 0.0, 1.0)
    section.finish()
    _check_pairs(section, "seconds", seconds, "lower", lower, fewest=2)
    try:
        return ConformalBand(tuple(seconds), tuple(lower), successes, alpha)
    except ValueError as error:
        raise section.error("successes", successes, str(error)) from error


def _check_pairs(
    section: _Section, name: str, places: list[float], other: str, values: list[float], fewest: int
) -> None:
    if len(places) < fewest or len(places) != len(values):
        raise section.error(
            other,
            f"{len(values)} numbers",
            f"must be as many as {name} has ({len(places)}), {fewest} or more",
        )
    if any(later <= earlier for earlier, later in pairwise(places)):
        raise section.error(name, places, "must rise from one number to the next")


def _picture(section: _Section) -> tuple[int, int] | None:
    value = section.value("picture")
    if value is None:
        return None
    if not (
        isinstance(value, list)
        and len(value) == 2
        and all(type(it) is int and 0 < it < _MOST for it in value)
    ):
        raise section.error("picture", value, "must be [width, height] in pixels, or null")
    return value[0], value[1]


def _estimates(section: _Section) -> Estimates:
    def read(name: str) -> Estimate:
        value, low, high = section.numbers(name, -inf, inf, count=3, or_none=True)
        return Estimate(value, UNKNOWN if isnan(low) or isnan(high) else Interval(low, high))

    made = Estimates(**{it.name: read(it.name) for it in fields(Estimates)})
    section.finish()
    return made


def _comparison(section: _Section) -> Comparison:
    made = Comparison(
        _side(section.section("fitted")),
        _side(section.section("parameters")),
        Finding(section.text("finding", tuple(it.value for it in Finding))),
    )
    kept, right = section.text("kept"), "fitted" if made.keeps_fitted else "parameters"
    if kept != right:
        raise section.error("kept", kept, f"must be {right}, as what was counted says: calibrate anew")
    section.finish()
    return made


def _side(section: _Section) -> Side:
    counts = [section.whole(name, 0, _MOST) for name in ("detected", "early", "false_alarms")]
    side = Side(_success(section.section("settings")), *counts)
    section.finish()
    return side


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Section:
    """A mapping in the file, of which every key is taken once."""

    def __init__(self, content: Any, source: str, path: str = "") -> None:
        self._source, self._path = source, path
        if not isinstance(content, Mapping):
            where = f": {path}" if path else ""
            raise CalibrationError(
                f"{printable(source, 300)}{where} is no calibration that `topreward calibrate` wrote: it "
                f"holds {_shown(content)}, and keys with values belong there"
            )
        self._content = content
        self._taken: set[str] = set()

    def error(self, name: str, value: Any, mend: str) -> CalibrationError:
        """What to say of the value of a key."""
        return CalibrationError(
            f"{printable(self._source, 300)}: {self._path}{name} = {_shown(value)}: {mend}"
        )

    def value(self, name: str) -> Any:
        """The value of a key, whatever it is."""
        self._taken.add(name)
        if name not in self._content:
            raise CalibrationError(
                f"{printable(self._source, 300)} lacks the key {self._path}{name}: restore it, or make the "
                "file anew by `topreward calibrate`"
            )
        return self._content[name]

    def has(self, name: str) -> bool:
        """Whether there is such a key."""
        return name in self._content

    def section(self, name: str) -> _Section:
        """The mapping below a key."""
        return _Section(self.value(name), self._source, f"{self._path}{name}.")

    def optional(self, name: str) -> _Section | None:
        """The mapping below a key, or None for null."""
        return None if self.value(name) is None else self.section(name)

    def sections(self, name: str) -> list[_Section]:
        """The mappings in the list below a key, at least one."""
        value = self.value(name)
        if not isinstance(value, list) or not value:
            raise self.error(name, value, "must be a list, with at least one entry")
        return [_Section(it, self._source, f"{self._path}{name}[{k}].") for k, it in enumerate(value)]

    def text(self, name: str, choices: Sequence[str] = ()) -> str:
        """A text, one of ``choices`` where there are some."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self.error(name, value, "must be text; quote it")
        if choices and value not in choices:
            raise self.error(name, value, f"must be one of {', '.join(choices)}")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(it, str) for it in value):
            raise self.error(name, value, "must be a list of texts")
        return value

    def truth(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.error(name, value, "must be true or false")
        return value

    def number(self, name: str, low: float, high: float, *, or_none: bool = False) -> float:
        """A finite number from ``low`` to ``high``; NaN for null, where that may be."""
        return self._number(name, self.value(name), low, high, or_none)

    def whole(self, name: str, low: float, high: float) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.value(name)
        if type(value) is not int or not low <= value <= high:
            raise self.error(name, value, f"must be a whole number{_range(low, high)}")
        return value

    def numbers(
        self, name: str, low: float, high: float, *, count: int = 0, or_none: bool = False
    ) -> list[float]:
        """A list of finite numbers, ``count`` of them if that is not 0; NaN for null, where that may be."""
        value = self.value(name)
        if not isinstance(value, list) or (count and len(value) != count):
            raise self.error(name, value, f"must be a list of {count or 'some'} numbers")
        return [self._number(f"{name}[{k}]", it, low, high, or_none) for k, it in enumerate(value)]

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for name in self._content:
            if name not in self._taken:
                shown = _shown(name, 60)
                close = nearest(shown, self._taken)
                mend = f"did you mean {close}?" if close else "remove it"
                raise self.error(shown, self._content[name], f"there is no such key: {mend}")

    def _number(self, name: str, value: Any, low: float, high: float, or_none: bool) -> float:
        if value is None and or_none:
            return nan
        if type(value) in (int, float) and low <= value <= high:
            with suppress(OverflowError):  # an int that no float holds
                if isfinite(made := float(value)):
                    return made
        mend = f"must be a number{_range(low, high)}{' or null' * or_none}"
        if isinstance(value, str) and _reads_as_number(value):
            mend += "; YAML takes this for text: write it without quotes and with a decimal point, as -1.0e-1"
        raise self.error(name, value, mend)


def _range(low: float, high: float) -> str:
    if isfinite(low) and isfinite(high):
        return f" from {low:g} to {high:g}"
    return f", {low:g} or more" if isfinite(low) else f", {high:g} or less" if isfinite(high) else ""


def _shown(value: Any, longest: int = 80) -> str:
    try:
        return "null" if value is None else printable(str(value), longest)
    except ValueError:  # Python writes out no int of more than some thousand digits
        return "a number of thousands of digits"
