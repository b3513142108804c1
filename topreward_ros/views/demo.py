"""The results that `topreward demo` prints at its end: plain data in, text or a table out.

No ROS 2 and no output here: nodes/demo.py plays the videos and owns the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from topreward_ros.core.counted import counted
from topreward_ros.core.printable import printable
from topreward_ros.defaults import DemoClip
from topreward_ros.views.messages import Happening
from topreward_ros.views.terminal import RANDOM_WARNING, number, shown
from topreward_ros.views.watch import WatchLog, event_line

LAST_SCORE_S = 30.0  #: the last score of a video is awaited for so long without any score

_OUTCOMES = frozenset(("SUCCESS", "FAILURE", "STALL", "REGRESSION", "TIMEOUT", "ABORTED", "SCORER_ERROR")) | {
    "STALE_IMAGES",
    "FROZEN_IMAGES",
    "COVERED_IMAGES",
}


@dataclass(frozen=True, slots=True)
class Take:
    """One video that was played, and what the monitor said about it."""

    log: WatchLog
    due: int  #: frames that were due to be scored
    gave_up: bool  #: the last score did not come in time
    clip: DemoClip | None = None  #: None for a video of the user

    @property
    def progress(self) -> float:
        """The last progress; NaN where there is none."""
        return self.log.scores[-1].progress if self.log.scores else float("nan")

    @property
    def success(self) -> Happening | None:
        """The SUCCESS event; None where there is none."""
        return next((event for event in self.log.events if event.type == "SUCCESS"), None)


def summary(take: Take) -> str:
    """The result of a video of the user in one line, and a second where scores are missing or too many."""
    log = take.log
    events = [event_line(log, event).strip().split(":")[0] for event in log.events if event.type in _OUTCOMES]
    note = f" ({RANDOM_WARNING})" if log.random_weights else ""
    return (
        f"demo: {counted(log.score_count, 'score')} of {counted(take.due, 'due frame')}, "
        f"final progress {number(take.progress, 2)}, "
        f"events: {', '.join(events) or 'none'}, median latency {number(log.median_latency_s(), 2)} s{note}"
    ) + "".join(f"\ndemo: {printable(line)}" for line in why_not_all(take))


def why_not_all(take: Take) -> list[str]:
    """A line that says why there are not as many scores as due frames; none where there are."""
    log, missing = take.log, take.due - take.log.score_count
    if missing < 0:
        return [
            f"{counted(-missing, 'score')} too many: {'; '.join(log.warnings) or 'somebody else publishes'}"
        ]
    if missing == 0:
        return []
    if log.events and log.events[-1].type == "EPISODE_ENDED":
        why = f"the episode ended before ({log.events[-1].message})"
    elif take.gave_up:
        why = f"the monitor gave none for {LAST_SCORE_S:.0f} s: too slow for this video, or stuck"
    else:
        why = "their frames were lost on the way, or dropped because the monitor was still at an earlier one"
    return [f"{missing} of the scores missing: {why}"]


def unexpected(take: Take) -> str:
    """How the result of a shipped video differs from what is expected; empty where it does not."""
    clip = take.clip
    assert clip is not None, "nothing is expected of a video of the user"
    problems = []
    if clip.succeeds and take.success is None:
        problems.append("SUCCESS did not come")
    if not clip.succeeds and take.success is not None:
        problems.append("SUCCESS came")
    lowest, highest = clip.progress
    if not isfinite(take.progress):
        problems.append("there is no progress")
    elif take.progress < lowest:
        problems.append(f"progress is below {lowest:g}")
    elif take.progress > highest:
        problems.append(f"progress is above {highest:g}")
    return ", ".join(problems)


def takes_table(takes: Sequence[Take]) -> RenderableType:
    """The results of the shipped videos, and whether they are as expected."""
    table = Table(
        "clip", "final progress", "SUCCESS", "as expected", title="topreward demo", title_justify="left"
    )
    notes: list[RenderableType] = []
    for take in takes:
        assert take.clip is not None
        success, problem = take.success, unexpected(take)
        table.add_row(
            shown(take.clip.name),
            number(take.progress, 2),
            f"at {take.log.event_time_s(success):.1f} s" if success else "none",
            Text(f"no: {problem}", style="bold red") if problem else Text("yes", style="green"),
        )
        # After SUCCESS nothing is scored, so that scores are missing as expected.
        notes += [] if success else [shown(f"demo: {take.clip.name}: {line}") for line in why_not_all(take)]
    if any(take.log.random_weights for take in takes):
        notes.append(Text(RANDOM_WARNING, style="bold red"))
    latencies = [latency for take in takes for latency in take.log.latencies_s]
    count = sum(take.log.score_count for take in takes)
    latency = number(median(latencies) if latencies else float("nan"), 2, "s")
    return Group(table, Text(f"demo: {counted(count, 'score')}, median latency {latency}"), *notes)
