"""Compare detectors of SUCCESS on curves that were scored once:

    python -m training.success_detectors curves.npz                   # choose on eval-0, report on the others
    python -m training.success_detectors curves.npz --choose eval-1 --false-alarms 0.02
    python -m training.success_detectors curves.npz --thresholds -0.1 -0.2    # what is shipped, at these

Of each family the settings are chosen on one set, and what is printed, a table in Markdown, was counted on
the others. Chosen is what has the least cost of those with so few false alarms. The cost is the mean delay
over the successes, where one that is missed, or announced more than 0.5 s before it is one, costs 5 s. A
false alarm is a SUCCESS in a failure or in a film in which nothing was done. What is shipped, and what was
shipped before, stand beside the chosen ones with their own settings.

Every detector has the arming, the hysteresis and the interruptions of the monitor's own
(`topreward_ros.core.events`), and is told what that was told, guards included. Nothing is scored here.
"""

from __future__ import annotations

import argparse
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf, isfinite, isnan, log, nan
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track

from topreward_ros.core.calibration.told import Told, fired_at
from topreward_ros.core.events import NewDetector, SuccessDetector, SuccessSettings
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import monitor_defaults
from training import controls
from training.success_curves import Film, read_films

_EARLY_S = 0.5  # a SUCCESS that comes sooner before the truth is a false alarm
_MISSED_S = 5.0  # what a success costs that is not announced, or too early
PERIOD_S = 0.5  # between two frames that are due
_LOOKS = 4.0  # [Hz] frames of the clips

#: The defaults of version 0.1: the delay to beat.
BEFORE = SuccessSettings(threshold=-0.22, hysteresis=0.5, dwell=2.0, min_scores=3, smoothing=3)


# ---- detectors --------------------------------------------------------------------------------------


class InProgress(SuccessDetector):
    """The same in progress: threshold and hysteresis are shares of 1, of 1 - r / r_static, minus 1."""

    static = nan

    def add(self, stamp_ns: int, log_prob: float, log_prob_static: float = nan) -> bool:
        self.static = self.static if isnan(log_prob_static) else log_prob_static
        start = nan if isnan(log_prob_static) else -1.0  # the start held still is no progress
        return super().add(stamp_ns, progress(log_prob, self.static) - 1.0, start)


class Median(SuccessDetector):
    """On the median of the newest three scores [nat] in place of their average."""

    def __init__(self, settings: SuccessSettings, period_s: float = 0.0) -> None:
        super().__init__(settings, period_s)
        self._three: deque[float] = deque(maxlen=3)

    def add(self, stamp_ns: int, log_prob: float, log_prob_static: float = nan) -> bool:
        self._three.append(log_prob)
        return super().add(stamp_ns, median(self._three), log_prob_static)

    def interrupt(self, why: str) -> None:
        self._three.clear()
        super().interrupt(why)

    def break_off(self, why: str) -> None:
        self._three.clear()
        super().break_off(why)


class MedianInProgress(Median, InProgress):
    """The progress of the median."""


class Sequential(SuccessDetector):
    """A sequential test: the sum of the log-likelihood ratios, done against not done, of all scores.

    It begins anew at or below ``lowest``: 0 makes it Page's CUSUM; below 0, Wald's SPRT that is repeated
    until it decides for done. SUCCESS at `settings.threshold`, here above 0, in nats of the ratio.
    """

    def __init__(self, ratio: Ratio, lowest: float, settings: SuccessSettings, period_s: float = 0.0) -> None:
        super().__init__(settings, period_s)
        self._ratio, self._lowest_sum = ratio, lowest
        self._arming = SuccessDetector(replace(BEFORE, dwell=inf, smoothing=1), period_s)
        self._static = nan
        self._sum, self._seen = 0.0, 0

    @property
    def confirm_rate(self) -> float:
        return self.settings.confirm_rate if self._sum > 0.0 and self._arming.armed else 0.0

    def add(self, stamp_ns: int, log_prob: float, log_prob_static: float = nan) -> bool:
        self._static = self._static if isnan(log_prob_static) else log_prob_static
        self._arming.add(stamp_ns, log_prob, log_prob_static)
        if self._arming.broken_off or not isfinite(log_prob):
            self._sum, self._seen = 0.0, 0
        self._sum += self._ratio.of(progress(log_prob, self._static))
        self._seen += 1
        if self._sum <= self._lowest_sum or not self._arming.armed:
            self._sum, self._seen = 0.0, 0
        enough = self._seen >= self.settings.min_scores
        self.fired = self._sum >= self.settings.threshold and enough
        return self.fired

    def interrupt(self, why: str) -> None:
        self._arming.interrupt(why)
        self._sum, self._seen = 0.0, 0

    def break_off(self, why: str) -> None:
        self._arming.break_off(why)
        self._sum, self._seen = 0.0, 0

    def anew(self) -> SuccessDetector:
        return Sequential(self._ratio, self._lowest_sum, self.settings, PERIOD_S)


def progress(log_prob: float, static: float) -> float:
    """1 - r / r_static in [0, 1]; NaN where that is not known."""
    return min(max(1.0 - log_prob / static, 0.0), 1.0) if isfinite(static) and static < -1e-6 else nan


@dataclass(frozen=True)
class Ratio:
    """Log-likelihood ratio [nat] of a progress, done against not done: linear in log(1 - progress)."""

    offset: float
    slope: float

    @staticmethod
    def feature(value: float) -> float:
        return -log(max(1.0 - value, 1e-3))

    def of(self, value: float) -> float:
        return 0.0 if isnan(value) else self.offset + self.slope * self.feature(value)

    @classmethod
    def fitted(cls, films: Iterable[Film]) -> Ratio:
        """By logistic regression (Platt's scaling) on all scores of clips, without the prior odds."""
        values, labels = [], []
        for film in films:
            static = nan
            for told, _, stamp_s, log_prob, log_prob_static in film.rows:
                if told > Told.EXTRA or film.is_control:
                    continue
                static = static if isnan(log_prob_static) else log_prob_static
                value = progress(log_prob, static)
                if not isnan(value):
                    values.append(cls.feature(value))
                    labels.append(film.done_s <= stamp_s)
        x, y = np.column_stack([np.ones(len(values)), values]), np.array(labels, float)
        weights = np.zeros(2)
        for _ in range(30):  # Newton's method
            p = 1.0 / (1.0 + np.exp(-x @ weights))
            hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
            weights += np.linalg.solve(hessian, x.T @ (y - p))
        prior = log(y.mean() / (1 - y.mean()))
        return cls(float(weights[0]) - prior, float(weights[1]))


# ---- counting ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a detector did on some films."""

    films: Sequence[Film]
    times_s: Sequence[float]  #: of SUCCESS, per film; NaN: none

    def of(self, which: Callable[[Film], bool]) -> Found:
        chosen = [k for k, film in enumerate(self.films) if which(film)]
        return Found([self.films[k] for k in chosen], [self.times_s[k] for k in chosen])

    @property
    def successes(self) -> Found:
        return self.of(lambda film: isfinite(film.done_s))

    @property
    def failures(self) -> Found:
        return self.of(lambda film: isnan(film.done_s) and not film.is_control)

    def controls(self, names: Iterable[str]) -> Found:
        kept = set(names)
        return self.of(lambda film: film.kind in kept)

    @property
    def fired(self) -> int:
        return sum(map(isfinite, self.times_s))

    @property
    def delays_s(self) -> list[float]:
        """From the truth to SUCCESS, of those that were announced and not too early."""
        pairs = zip(self.times_s, self.films, strict=True)
        delays = [time_s - film.done_s for time_s, film in pairs]
        return [delay for delay in delays if delay >= -_EARLY_S]

    @property
    def early(self) -> int:
        return sum(
            time_s - film.done_s < -_EARLY_S for time_s, film in zip(self.times_s, self.films, strict=True)
        )

    @property
    def recall(self) -> float:
        return len(self.delays_s) / max(1, len(self.films))

    @property
    def cost(self) -> float:
        """[s] per success."""
        delays = self.delays_s
        return (sum(delays) + _MISSED_S * (len(self.films) - len(delays))) / max(1, len(self.films))

    @property
    def false_alarms(self) -> float:
        """The share of the failures with one."""
        return self.failures.fired / max(1, len(self.failures.films))


def run(films: Sequence[Film], new_detector: NewDetector, settings: SuccessSettings) -> Found:
    """Show films to a detector, a new one each."""
    return Found(films, [fired_at(film.rows, new_detector, settings, PERIOD_S) for film in films])


# ---- families ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Detectors of one kind, and the settings among which is chosen."""

    name: str
    new_detector: NewDetector
    settings: Sequence[SuccessSettings]
    unit: str = "nat"  #: of the threshold


def families(ratio: Ratio, looks: float) -> Iterator[Family]:
    """All of them; ``looks`` [Hz]: the rate of extra looks, 0 for none."""
    nats = (-0.04, -0.06, -0.08, -0.1, -0.13, -0.16, -0.22, -0.3, -0.4)
    shares = (-0.01, -0.015, -0.02, -0.03, -0.04, -0.06, -0.08, -0.1)
    holds = ((0.0, 1), (0.25, 2), (0.5, 2), (0.5, 3), (1.0, 3), (2.0, 3))  # dwell [s], scores

    def settings(
        thresholds: Iterable[float], hysteresis: float, spans: Iterable[int]
    ) -> list[SuccessSettings]:
        return [
            SuccessSettings(threshold, hysteresis, dwell, scores, span, looks)
            for threshold, span, (dwell, scores) in product(thresholds, spans, holds)
        ]

    yield Family("average of scores", SuccessDetector, settings(nats, 0.5, (2, 3)))
    yield Family("each score", SuccessDetector, settings(nats, 0.5, (1,)))
    yield Family("median of 3 scores", Median, settings(nats, 0.5, (1,)))
    yield Family("average of progress", InProgress, settings(shares, 0.15, (2, 3)), "progress")
    yield Family("each progress", InProgress, settings(shares, 0.15, (1,)), "progress")
    yield Family("median of 3 progresses", MedianInProgress, settings(shares, 0.15, (1,)), "progress")
    sums = [
        SuccessSettings(threshold, 0.5, 0.0, scores, 1, looks)
        for threshold, scores in product((2, 3, 4, 5, 6, 8, 10, 13, 16), (1, 2, 3))
    ]
    for name, lowest in (("CUSUM of the ratio", 0.0), ("SPRT of the ratio, repeated", -3.0)):
        yield Family(name, partial(Sequential, ratio, lowest), sums, "nat of the ratio")


def chosen(family: Family, films: Sequence[Film], false_alarms: float) -> SuccessSettings:
    """The settings with the least cost of those with so few false alarms, and with the fewest SUCCESS where
    nothing was done; or else with the fewest of both."""

    def rank(settings: SuccessSettings) -> tuple[float, float]:
        found = run(films, family.new_detector, settings)
        wrong = found.controls(controls.NOTHING_DONE).fired
        return wrong + max(found.false_alarms, false_alarms), found.successes.cost

    return min(family.settings, key=rank)


# ---- the table --------------------------------------------------------------------------------------

_KINDS = ("stop", "retreat", "miss", "noise", "idle")
HEADER = (
    "| detector | recall | too early | false alarms on failures | by kind: "
    + ", ".join(_KINDS)
    + " | nothing "
    "was done | done and undone | delay: median, p95 [s] | cost [s] | worst task: recall, delay p95 |"
)
HEADER += "\n" + "|---" * (HEADER.count("|") - 1) + "|"


def row(name: str, found: Found) -> str:
    """A line of the table."""
    successes, failures = found.successes, found.failures
    by_kind = [failures.of(lambda film, kind=kind: film.kind == kind) for kind in _KINDS]  # type: ignore[misc]
    cells = [
        name,
        f"{successes.recall:.3f} of {len(successes.films)}",
        str(successes.early),
        f"{failures.fired / max(1, len(failures.films)):.3f} of {len(failures.films)}",
        ", ".join(f"{kind.fired}/{len(kind.films)}" for kind in by_kind),
        _share(found.controls(controls.NOTHING_DONE)),
        _share(found.controls(controls.UNDONE)),
        f"{_quantile(successes.delays_s, 50):.2f}, {_quantile(successes.delays_s, 95):.2f}",
        f"{successes.cost:.2f}",
        _worst_task(successes),
    ]
    return "| " + " | ".join(cells) + " |"


def _share(found: Found) -> str:
    return f"{found.fired}/{len(found.films)}"


def _quantile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else nan


def _worst_task(successes: Found) -> str:
    by_task: dict[str, Found] = {}
    for name in sorted({film.task for film in successes.films}):
        by_task[name] = successes.of(lambda film, name=name: film.task == name)  # type: ignore[misc]
    if not by_task:
        return ""
    recall = min(by_task, key=lambda name: by_task[name].recall)
    late = max(
        by_task, key=lambda name: _quantile(by_task[name].delays_s, 95) if by_task[name].delays_s else inf
    )
    late_s = _quantile(by_task[late].delays_s, 95)
    return f"{by_task[recall].recall:.2f} ({recall}), {late_s:.2f} ({late})"


def said(settings: SuccessSettings, unit: str) -> str:
    """Settings in words. A threshold in progress is written as such."""
    threshold = settings.threshold + 1.0 if unit == "progress" else settings.threshold
    parts = [f"{threshold:g} {unit}"]
    if settings.smoothing > 1:
        parts.append(f"span {settings.smoothing}")
    parts.append(f"{settings.dwell:g} s, {settings.min_scores} scores")
    parts.append(f"looks at {settings.confirm_rate:g} Hz" if settings.confirm_rate else "no looks")
    return ", ".join(parts)


def main() -> None:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curves", type=Path, help="file that training.success_curves wrote")
    parser.add_argument("--choose", default="eval-0", help="the set on which is chosen (%(default)s)")
    parser.add_argument("--false-alarms", type=float, default=0.02, help="share (%(default)s)")
    parser.add_argument(
        "--thresholds",
        type=float,
        nargs="+",
        metavar="NAT",
        help="only what is shipped, at these, on each set",
    )
    parser.add_argument("--alarms", action="store_true", help="list the false alarms of what is shipped")
    options = parser.parse_args()
    films, model = read_films(options.curves)
    own = [film for film in films if film.set == options.choose]
    others = [film for film in films if film.set != options.choose]
    if not own or not others:
        raise SystemExit(f"{options.curves} has no films of {options.choose}, or none of another set")
    shipped = MonitorSettings.from_parameters(monitor_defaults()).success
    if options.thresholds:
        _print_thresholds(films, model, shipped, options.thresholds)
        return
    rows: list[tuple[str, NewDetector, SuccessSettings]] = [
        (f"before: {said(BEFORE, 'nat')}", SuccessDetector, BEFORE),
        (f"shipped: {said(shipped, 'nat')}", SuccessDetector, shipped),
        ("shipped, without looks", SuccessDetector, replace(shipped, confirm_rate=0.0)),
    ]
    all_families = [*families(Ratio.fitted(own), 0.0), *families(Ratio.fitted(own), _LOOKS)]
    for family in track(all_families, "choosing", console=Console(stderr=True), transient=True):
        settings = chosen(family, own, options.false_alarms)
        rows.append((f"{family.name}: {said(settings, family.unit)}", family.new_detector, settings))
    print(
        f"{model}; chosen on {options.choose} ({len(own)} films) at false alarms of at most "
        f"{options.false_alarms:g}, counted on the others ({len(others)} films)\n"
    )
    print(HEADER)
    for name, new_detector, settings in rows:
        print(row(name, run(others, new_detector, settings)))
    if options.alarms:
        print()
        _list_alarms(run(films, SuccessDetector, shipped))


def _print_thresholds(
    films: Sequence[Film], model: str, shipped: SuccessSettings, thresholds: Sequence[float]
) -> None:
    """A table of what is shipped at other thresholds, for each set and all of them."""
    print(f"{model}\n\n{HEADER}")
    sets = {film.set for film in films}
    for threshold, which in product(thresholds, ("all", *sorted(sets))):
        some = [film for film in films if which in ("all", film.set)]
        settings = replace(shipped, threshold=threshold)
        print(row(f"{which}: {said(settings, 'nat')}", run(some, SuccessDetector, settings)))


def _list_alarms(found: Found) -> None:
    """Every false alarm, by film."""
    by_film: dict[str, list[str]] = defaultdict(list)
    for film, time_s in zip(found.films, found.times_s, strict=True):
        if isfinite(time_s) and not time_s - film.done_s >= -_EARLY_S:
            truth = f", done at {film.done_s:g} s" if isfinite(film.done_s) else ""
            by_film[film.kind].append(
                f"{film.set}/{film.task}/{film.attempt:04d}-{film.view} at {time_s:g} s{truth}"
            )
    for kind, named in sorted(by_film.items()):
        print(f"{kind}: " + "; ".join(named))


if __name__ == "__main__":
    main()
