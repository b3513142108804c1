"""A detector that was fitted beside the one that the monitor has without it, on episodes that were left out.

A threshold that a few episodes chose may do worse than the one that was there before. So both are asked on
the same episodes: the fitted one as it was fitted without each of them, the other as it is. Whether they
differ by more than noise is judged as two evaluations are (core/intervals.py).

What is kept: where so few episodes cannot tell, the one that the monitor has, as a robot may act on
SUCCESS, and nobody who was told that nothing is known expects it to come otherwise than before. From
`PLATT_FROM` episodes of a kind on, what the fitted one promises of itself was measured to hold
(bench/RESULTS.md), and it needs no such proof: it goes where the other did no worse in anything that was
counted, and better in something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from topreward_ros.core.calibration.probability import PLATT_FROM
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.intervals import share_difference_interval


class Finding(Enum):
    """What the left-out episodes say of the fitted detector beside the other."""

    BETTER = "better"  #: in one share or more, beyond noise, and in none worse
    WORSE = "worse"  #: in one share or more, beyond noise, and in none better
    MIXED = "mixed"  #: both
    NO_DIFFERENCE = "no_difference"  #: none beyond noise
    TOO_FEW = "too_few"  #: none beyond noise, of fewer than `PLATT_FROM` episodes of a kind


@dataclass(frozen=True, slots=True)
class Side:
    """A detector, and what it did on the episodes."""

    settings: SuccessSettings  #: of the fitted one those that all episodes chose
    detected: int  #: successes that got a SUCCESS, not early
    early: int  #: successes that got one too early
    false_alarms: int  #: failures that got one

    @property
    def _badness(self) -> tuple[int, int, int]:
        return -self.detected, self.early, self.false_alarms

    def text(self, successes: int, failures: int) -> str:
        """Where SUCCESS came, of so many episodes of each kind."""
        early = f" (too early in {self.early} more)" if self.early else ""
        return (
            f"in {self.detected} of {successes} successes{early} and {self.false_alarms} of {failures} "
            "failures"
        )

    def dominates(self, other: Side) -> bool:
        """Whether it did no worse than ``other`` in anything that is counted, and better in something."""
        pairs = list(zip(self._badness, other._badness, strict=True))
        return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both detectors on the same episodes."""

    fitted: Side
    parameters: Side  #: the detector by the parameters success_* alone
    finding: Finding

    @property
    def keeps_fitted(self) -> bool:
        """Whether the fitted detector is kept; else the parameters are."""
        return self.tells and not self.parameters.dominates(self.fitted)

    @property
    def tells(self) -> bool:
        """Whether there were enough episodes to choose one of both."""
        return self.finding is not Finding.TOO_FEW

    @property
    def kept(self) -> Side:
        """The one that decides from now on."""
        return self.fitted if self.keeps_fitted else self.parameters

    def text(self, successes: int, failures: int) -> str:
        """What was found and what is kept, in sentences; of so many episodes of each kind."""
        said = {
            Finding.BETTER: "What was learnt is better than the parameters success_* alone",
            Finding.WORSE: "What was learnt is worse than the parameters success_* alone",
            Finding.MIXED: "What was learnt is better in one thing than the parameters success_* alone, and "
            "worse in another",
            Finding.NO_DIFFERENCE: "What was learnt is not better than the parameters success_* alone, "
            "beyond noise",
            Finding.TOO_FEW: "Too few episodes to tell whether what was learnt is better than the parameters "
            "success_* alone",
        }[self.finding]
        one, other = self.fitted, self.parameters
        counts = (
            f"on the episodes left out SUCCESS came by what was learnt {one.text(successes, failures)}, and "
            f"by the parameters {other.text(successes, failures)}"
        )
        if not self.tells:
            kept = (
                " So the parameters success_* of the monitor stay in force; to try what was learnt all the "
                f"same, set success_threshold to {one.settings.threshold:.3f} nat."
            )
        elif not self.keeps_fitted:
            kept = " The parameters did better on these and are kept: they stand in the file."
        else:
            kept = ""
        return f"{said}: {counts}.{kept}"


def compare(
    fitted: SuccessSettings, of_fitted: Sequence[str], parameters: SuccessSettings, of_other: Sequence[str]
) -> Comparison:
    """Compare what became of the same episodes, in the same order, by two detectors: a verdict each, as
    `estimates.LeftOut.verdict` has it."""
    pairs = list(zip(of_fitted, of_other, strict=True))
    of_successes = [pair for pair in pairs if pair[0] not in _OF_FAILURES]
    of_failures = [pair for pair in pairs if pair[0] in _OF_FAILURES]
    signs = {
        _sign(of_successes, "detected", is_good=True),
        _sign(of_successes, "early", is_good=False),
        _sign(of_failures, "false alarm", is_good=False),
    }
    return Comparison(
        _side(fitted, of_fitted),
        _side(parameters, of_other),
        _finding(signs, min(len(of_successes), len(of_failures))),
    )


_OF_FAILURES = ("false alarm", "kept quiet")


def _side(settings: SuccessSettings, verdicts: Sequence[str]) -> Side:
    return Side(settings, *(verdicts.count(it) for it in ("detected", "early", "false alarm")))


def _sign(pairs: Sequence[tuple[str, str]], verdict: str, *, is_good: bool) -> int:
    """1: the fitted one is better beyond noise in the share of this verdict, -1: worse, 0: neither."""
    interval = share_difference_interval([(other == verdict, mine == verdict) for mine, other in pairs])
    if not interval.is_known or interval.low <= 0 <= interval.high:
        return 0
    return 1 if (interval.low > 0) is is_good else -1


def _finding(signs: set[int], fewest: int) -> Finding:
    if {1, -1} <= signs:
        return Finding.MIXED
    if signs != {0}:
        return Finding.BETTER if 1 in signs else Finding.WORSE
    return Finding.NO_DIFFERENCE if fewest >= PLATT_FROM else Finding.TOO_FEW
