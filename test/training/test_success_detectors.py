"""Detectors are compared on what a monitor told one of them, and counted as one would by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

from test.core.scenes import scene
from test.scorers import scorer_info
from topreward_ros.core.calibration.told import Told, fired_at
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType, SuccessDetector, SuccessSettings
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import SequentialScorer
from training import success_curves, success_detectors
from training.clips import RATE
from training.success_curves import Film, record
from training.success_detectors import PERIOD_S, Found, Ratio, Sequential

SETTINGS = MonitorSettings.from_parameters(monitor_defaults())


class ByTime(SequentialScorer):
    """Low until `done_s`, high since, with a dip."""

    info = scorer_info("by time")

    def __init__(self, done_s: float, dip_s: float) -> None:
        self.done_s, self.dip_s = done_s, dip_s

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        time_s = request.prefix[-1].stamp_ns / NS_PER_S
        low = time_s < self.done_s or time_s == self.dip_s
        static = nan if request.extra else -4.0
        return PrefixScore(-3.0 if low else -0.05, -1.0, static, num_frames=len(request.prefix))

    def close(self) -> None:
        """Nothing is held."""


def watched(images: np.ndarray, scorer: ByTime, success: SuccessSettings) -> float:
    """When SUCCESS comes live."""
    monitor = TaskMonitor(replace(SETTINGS, success=success), lambda: "episode")
    monitor.set_task("open the drawer")
    for number, image in enumerate(images):
        stamp_ns = round(number / RATE * NS_PER_S)
        asked, outputs = monitor.observe(stamp_ns, stamp_ns)
        if asked:
            request, more = monitor.add_frame(Frame(stamp_ns, image))
            outputs = [*outputs, *more]
            if request is not None:
                outputs += monitor.add_score(request, scorer.score(request))
        for output in outputs:
            if isinstance(output, Event) and output.type is EventType.SUCCESS:
                return output.stamp.ns / NS_PER_S
    return nan


@cache
def cut_at(cut_s: float) -> np.ndarray:
    """60 frames of one scene, and from ``cut_s`` on of another."""
    return np.stack([scene(0), scene(1)])[(np.arange(60) / RATE >= cut_s).astype(int)]


@cache
def told_of(cut_s: float, dip_s: float) -> np.ndarray:
    """What is recorded, which depends on no settings of a detector."""
    return record(cut_at(cut_s), "open the drawer", ByTime(done_s=6.4, dip_s=dip_s), SETTINGS)


@pytest.mark.parametrize("cut_s", [3.0, 6.0, 7.5, 30.0])
@pytest.mark.parametrize("dip_s", [7.0, 7.25, -1.0])
@pytest.mark.parametrize(
    "success", [SETTINGS.success, replace(SETTINGS.success, confirm_rate=0.0), success_detectors.BEFORE]
)
def test_what_was_recorded_tells_what_a_monitor_does(
    cut_s: float, dip_s: float, success: SuccessSettings
) -> None:
    """With a cut to another scene, where the prefix begins anew, and a score that dips."""
    images, scorer = cut_at(cut_s), ByTime(done_s=6.4, dip_s=dip_s)
    told = told_of(cut_s, dip_s)
    assert (told[:, 0] == Told.ANEW).any() == (cut_s < 30.0)
    film = Film("eval-0", "drawer-open", "success", "side", 0, 6.4, told)
    live = watched(images, scorer, success)
    assert fired_at(film.rows, SuccessDetector, success, PERIOD_S) == live or isnan(live)
    assert isnan(live) == isnan(fired_at(film.rows, SuccessDetector, success, PERIOD_S))
    assert not isnan(live) or cut_s == 7.5, "the cut comes before three low scores of its own"


def film(kind: str, done_s: float, *scores: float, task: str = "drawer-open") -> Film:
    """Scores at 2 Hz."""
    told = [(Told.DUE, 0, k / 2, score, -4.0) for k, score in enumerate(scores)]
    return Film("eval-0", task, kind, "side", 0, done_s, np.array(told, float))


def test_what_is_counted() -> None:
    films = [
        *[film("success", 2.0)] * 3, film("stop", nan), film("miss", nan),
        film("photo", nan), film("undone", nan),
    ]  # fmt: skip
    found = Found(films, [2.5, 1.0, nan, 3.0, nan, nan, 4.0])
    assert found.successes.delays_s == [0.5] and found.successes.early == 1
    assert found.successes.recall == pytest.approx(1 / 3)
    assert found.successes.cost == pytest.approx((0.5 + 5.0 + 5.0) / 3)
    assert found.false_alarms == 0.5, "one failure of two"
    row = success_detectors.row("it", found)
    assert "| 0.333 of 3 | 1 | 0.500 of 2 | 1/1, 0/0, 0/1, 0/0, 0/0 | 0/1 | 1/1 | 0.50, 0.50 |" in row


def test_a_ratio_tells_done_from_not_done_and_the_sum_of_some_is_success() -> None:
    low, high = [-3.0, -2.0, -3.0, -2.5, -0.5], [-0.1, -0.05, -0.6, -0.1, -0.05]
    films = [film("success", 2.5, *low, *high), film("stop", nan, *low, -0.6, -0.1)]
    ratio = Ratio.fitted(films)
    assert ratio.of(0.3) < 0.0 < ratio.of(0.99) and ratio.of(nan) == 0.0
    settings = SuccessSettings(ratio.of(0.975) * 1.5, 0.5, 0.0, 2, 1)
    at_s = fired_at(
        film("success", 2.5, *low, *[-0.1] * 4).rows,
        lambda s, p: Sequential(ratio, 0.0, s, p),
        settings,
        PERIOD_S,
    )
    assert at_s == 3.0, "the second high score"


def test_from_a_file_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    low, high = [-3.0] * 5, [-0.05] * 6
    films = [film("success", 2.5, *low, *high), film("stop", nan, *low, *low), film("photo", nan, *low)]
    films += [replace(it, set="eval-1") for it in films]
    curves = tmp_path / "curves.npz"
    success_curves.write_films(curves, films, "a model (1)")
    loaded, model = success_curves.read_films(curves)
    assert model == "a model (1)" and [it.kind for it in loaded] == [it.kind for it in films]
    assert all(np.array_equal(one.told, other.told) for one, other in zip(loaded, films, strict=True))
    monkeypatch.setattr("sys.argv", ["success_detectors", str(curves)])
    success_detectors.main()
    table = capsys.readouterr().out
    assert "chosen on eval-0 (3 films)" in table and "counted on the others (3 films)" in table
    shipped = next(line for line in table.splitlines() if line.startswith("| shipped: "))
    assert "1.000 of 1" in shipped and "| 1.00, 1.00 |" in shipped  # without looks: three scores in 1 s
    (tmp_path / "other.npz").write_bytes(b"no curves")
    with pytest.raises(SystemExit, match=r"other.npz holds no curves"):
        success_curves.read_films(tmp_path / "other.npz")
