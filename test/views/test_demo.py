"""What `topreward demo` says when it is over, from plain data."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from topreward_ros.core.outputs import State
from topreward_ros.defaults import DEMO_CLIPS, DEMO_TASK, monitor_defaults, shared_file
from topreward_ros.views.demo import Take, summary, takes_table, unexpected, why_not_all
from topreward_ros.views.messages import Happening, Sample
from topreward_ros.views.watch import WatchLog

SECOND = 10**9


def take(clip: int, progress: float, success_s: float | None = None, scores: int = 3) -> Take:
    """A shipped clip with ``scores`` at 2 Hz, three due, the last with ``progress``."""
    log = WatchLog("/task_progress")
    log.add_event(Happening("e", 100 * SECOND, "EPISODE_STARTED", ""))
    for k in range(scores):
        sample = Sample(
            episode_id="e",
            instruction="x",
            state=State.RUNNING,
            stamp_ns=100 * SECOND + k * SECOND // 2,
            progress=progress if k == scores - 1 else 0.0,
            log_prob=-1,
            log_prob_false=-1,
            log_prob_static=-4,
            num_frames=k + 1,
            elapsed_s=k / 2,
            latency_s=0.25,
            message="",
        )
        log.add_progress(sample, now_s=k)
    if success_s is not None:
        log.add_event(Happening("e", 100 * SECOND + round(success_s * SECOND), "SUCCESS", ""))
        log.add_event(Happening("e", 100 * SECOND + round(success_s * SECOND), "EPISODE_ENDED", "success"))
    return Take(log, 3, gave_up=False, clip=DEMO_CLIPS[clip])


def printed(takes: list[Take]) -> str:
    console = Console(width=100, file=StringIO(), color_system=None)
    console.print(takes_table(takes))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_shipped_clips_come_out_as_is_said_of_them_and_of_no_other() -> None:
    """As the shipped model scores them; test/ros/test_golden_clips.py plays them as well."""
    pytest.importorskip("torch", reason="scoring needs PyTorch")
    from topreward_ros.core.monitor_settings import MonitorSettings
    from topreward_ros.offline.score_video import score_video
    from topreward_ros.scoring.base import ScorerSettings
    from topreward_ros.scoring.registry import load_scorer

    scorer = load_scorer("embedded", ScorerSettings.from_parameters(monitor_defaults()))
    settings = MonitorSettings.from_parameters(monitor_defaults())
    fits: list[list[bool]] = []
    for number, clip in enumerate(DEMO_CLIPS):
        curve = score_video(shared_file(clip.video), DEMO_TASK, scorer, settings)
        success_s = next((event.time_s for event in curve.events if event.type == "SUCCESS"), None)
        progress = curve.points[-1].progress
        assert unexpected(take(number, progress, success_s)) == ""
        fits.append([not unexpected(take(other, progress, success_s)) for other in range(len(DEMO_CLIPS))])
    assert fits == [[True, False, False], [False, True, False], [False, True, True]]


@pytest.mark.parametrize(
    ("clip", "progress", "success_s", "problem"),
    [
        (0, 0.95, 1.0, ""),
        (0, 0.95, None, "SUCCESS did not come"),
        (0, 0.5, 1.0, "progress is below 0.8"),
        (1, 0.4, None, ""),
        (1, 0.6, None, "progress is above 0.5"),
        (1, 0.4, 1.0, "SUCCESS came"),
        (2, 0.1, None, ""),
        (2, 0.2, 1.0, "SUCCESS came, progress is above 0.1"),
        (2, float("nan"), None, "there is no progress"),
    ],
)
def test_what_is_not_as_it_should_be(
    clip: int, progress: float, success_s: float | None, problem: str
) -> None:
    assert unexpected(take(clip, progress, success_s)) == problem


def test_the_table_tells_each_clip_with_its_time_of_success() -> None:
    said = printed([take(0, 0.95, 1.0), take(1, 0.6), take(2, 0.05, scores=2)])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    assert rows == [
        ["success", "0.95", "at 1.0 s", "yes"],
        ["failure", "0.60", "none", "no: progress is above 0.5"],
        ["idle", "0.05", "none", "yes"],
    ]
    assert "demo: 8 scores, median latency 0.25 s" in said
    assert "demo: idle: 1 of the scores missing: their frames were lost" in said
    assert "random" not in said


def test_random_weights_are_named_under_the_table() -> None:
    random = take(0, 0.5)
    random.log.random_weights = True
    assert "random weights: the numbers mean nothing" in printed([random])
    assert "random weights" in summary(random)


@pytest.mark.parametrize(
    ("scores", "gave_up", "said"),
    [
        (3, False, ""),
        (2, False, "1 of the scores missing: their frames were lost on the way"),
        (2, True, "1 of the scores missing: the monitor gave none for 30 s"),
        (5, False, "2 scores too many: somebody else publishes"),
    ],
)
def test_why_the_scores_are_not_those_due(scores: int, gave_up: bool, said: str) -> None:
    log = WatchLog("/task_progress")
    log.score_count = scores
    of = Take(log, 3, gave_up)
    assert said in "".join(why_not_all(of))
    assert bool(said) == bool(why_not_all(of))
