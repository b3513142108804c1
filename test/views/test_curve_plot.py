"""The picture of a curve, by what is drawn: lines with their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from test.scorers import scorer_info
from topreward_ros.core.episode import IgnoredImages
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.defaults import DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.score_video import Curve, CurveEvent, CurvePoint
from topreward_ros.views import curve_plot
from topreward_ros.views.terminal import curve_summary, curves_table


def point(time_s: float, log_prob: float, stage: int = 1, threshold: float = -0.16) -> CurvePoint:
    score = PrefixScore(log_prob, -1.0, -4.0, num_frames=1)
    return CurvePoint(time_s, score, 0.2 * time_s, 0.0, 1, stage, 0.1, threshold)


def curve_of(
    *points: CurvePoint, task: str = "open it", state: State = State.RUNNING, **more: object
) -> Curve:
    settings = MonitorSettings.from_parameters(monitor_defaults())
    video = str(shared_file(DEMO_VIDEO))
    usual = {"events": (), "ended_early": False, "ignored": IgnoredImages(0, 0, 0)}
    return Curve(video, 3.0, task, scorer_info("m"), settings, state, points, **(usual | more))  # type: ignore[arg-type]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Curve], dict[str, np.ndarray]]:
    """What is drawn of a curve: the values of each line that has a label."""
    kept: list[Figure] = []
    monkeypatch.setattr(curve_plot, "write_picture", lambda figure, _: kept.append(figure))

    def draw(curve: Curve) -> dict[str, np.ndarray]:
        curve_plot.plot_curve(curve, tmp_path / "curve.png")
        lines = [line for axes in kept[-1].axes for line in axes.get_lines()]
        return {str(it.get_label()): np.asarray(it.get_ydata()) for it in lines}

    return draw


def has(lines: dict[str, np.ndarray], text: str) -> bool:
    return any(text in label for label in lines)


def test_the_progress_of_the_paper_is_drawn_for_who_scores_as_it_does(
    drawn: Callable[[Curve], dict[str, np.ndarray]],
) -> None:
    """It ends at 1 in whatever episode, also in one that failed."""
    points = [point(0.0, -3.0), point(1.0, -2.5), point(2.0, -2.0)]
    assert not has(drawn(curve_of(*points)), "min-max")
    assert has(drawn(curve_of(*points, prefix_schedule=PrefixSchedule.AUTHORS)), "min-max")
    staged = curve_of(*points, task="open it\nclose it", prefix_schedule=PrefixSchedule.AUTHORS)
    assert not has(drawn(staged), "min-max")


def test_no_line_joins_two_stages_and_each_has_its_threshold(
    drawn: Callable[[Curve], dict[str, np.ndarray]],
) -> None:
    points = [point(0.0, -3.0), point(1.0, -0.1), point(1.1, -4.0, 2, -0.5), point(2.0, -3.9, 2, -0.5)]
    lines = drawn(curve_of(*points, task="open it\nclose it"))
    assert str(lines["log p(True)"].tolist()) == str([-3.0, -0.1, nan, -4.0, -3.9])
    assert str(lines["success threshold"].tolist()) == str([-0.16, -0.16, nan, -0.5, -0.5])
    assert not any(isnan(it) for it in drawn(curve_of(*points[:2]))["log p(True)"])


def test_the_title_names_the_dots_that_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(curve_plot, "write_picture", lambda figure, _: kept.append(figure))
    going = curve_of(point(0.0, -3.0))
    for states, title in (
        ([], ""),
        ([State.SUCCEEDED], "green dot: SUCCESS"),
        ([State.FAILED, State.SUCCEEDED], "green dot: SUCCESS, red dot: FAILURE or TIMEOUT"),
    ):
        curve_plot.plot_curves(
            [going, *(replace(going, state=state) for state in states)], tmp_path / "x.png"
        )
        assert kept[-1].axes[0].get_title(loc="right") == title


@pytest.mark.parametrize(
    ("state", "events", "short", "long"),
    [
        (State.RUNNING, [], "undecided", "undecided when the video ended"),
        (State.STALLED, ["STALL"], "undecided", "undecided when the video ended (STALLED)"),
        (State.SUCCEEDED, ["SUCCESS", "EPISODE_ENDED"], "SUCCESS", "SUCCESS"),
        (State.FAILED, ["TIMEOUT", "EPISODE_ENDED"], "TIMEOUT", "TIMEOUT"),
    ],
)
def test_what_became_of_a_film_is_told_and_not_that_it_runs(
    state: State, events: list[str], short: str, long: str
) -> None:
    curve = curve_of(
        point(0.0, -3.0), state=state, events=tuple(CurveEvent(0.0, kind, nan, "") for kind in events)
    )
    for content, said in (
        (curve_summary(curve), f"outcome {long}\n"),
        (curves_table([curve]), f" {short}\n"),
    ):
        console = Console(width=120, file=StringIO(), record=True)
        console.print(content)
        text = "\n".join(" ".join(line.split()) for line in console.export_text().splitlines())
        assert said in text and "RUNNING" not in text
