"""The curve of a video: which frames are scored, what comes of the scores, where it stops, how it is kept."""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from test.core.calibrations import calibration, setup
from test.scorers import Brightness
from topreward_ros.core.calibration.probability import Kind, ProbabilityMap
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, ProgressReport, State
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.prefix_schedule import PrefixSchedule
from topreward_ros.offline.score_video import (
    Curve,
    due_times,
    outcomes_to_json,
    score_video,
    score_videos,
)
from topreward_ros.offline.video import Video, VideoError, open_video
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.worker import ScoringWorker
from topreward_ros.views.curve_plot import plot_curve, plot_curves
from topreward_ros.views.terminal import curve_summary, curves_table

RATE = 10.0
FRAMES = 61
SETTINGS = replace(
    MonitorSettings.from_parameters(monitor_defaults()),
    sample_rate=2.0,
    success=SuccessSettings(threshold=-0.6, hysteresis=0.5, dwell=1.0, min_scores=2, smoothing=1),
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s that get brighter for 4 s and then stay white."""
    path = tmp_path_factory.mktemp("video") / "brighter.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (64, 48))
    for k in range(FRAMES):
        writer.write(np.full((48, 64, 3), min(255, round(255 * k / 40)), np.uint8))
    writer.release()
    return path


def never_ends() -> MonitorSettings:
    return replace(SETTINGS, end_episode_on_success=False)


def test_every_due_frame_is_scored_with_the_whole_prefix(video: Path) -> None:
    scorer = Brightness()
    seen = []
    curve = score_video(video, "  make it bright ", scorer, never_ends(), on_score=seen.append)
    times = [point.time_s for point in curve.points]
    assert times == pytest.approx([0.5 * k for k in range(13)], abs=1e-3)
    assert times == due_times(video, 2.0)
    assert [point.num_frames for point in curve.points] == list(range(1, 14))
    assert {instruction for instruction, _ in scorer.asked} == {"make it bright"}
    newest = scorer.asked[-1][1]
    assert all(earlier is later for earlier, later in zip(scorer.asked[-2][1], newest, strict=False))
    assert repr(tuple(seen)) == repr(curve.points)
    assert curve.duration_s == pytest.approx(6.0, abs=1e-3)


def test_numbers_follow_from_the_scores(video: Path) -> None:
    curve = score_video(video, "x", Brightness(), never_ends())
    for point in curve.points:
        assert point.progress == pytest.approx(1.0 - point.score.log_prob / point.score.log_prob_static)
    assert curve.points[-1].progress > 0.98
    rewards = [point.reward for point in curve.points]
    assert rewards[0] == 0.0
    assert sum(rewards) == pytest.approx(curve.points[-1].progress)
    assert curve.minmax()[0] == 0.0 and curve.minmax().max() == 1.0


def test_nothing_is_scored_after_the_episode(video: Path) -> None:
    scorer = Brightness()
    curve = score_video(video, "x", scorer, SETTINGS)
    assert [event.type for event in curve.events] == ["EPISODE_STARTED", "SUCCESS", "EPISODE_ENDED"]
    # -0.6 nat are passed at 3.5 s and must then be held for 1 s
    assert [event.time_s for event in curve.events] == pytest.approx([0.0, 4.5, 4.5], abs=1e-3)
    assert curve.points[-1].time_s == curve.events[-1].time_s
    assert len(scorer.asked) == len(curve.points) == 10
    assert curve.ended_early and curve.state is State.SUCCEEDED


def test_extra_looks_are_for_success_alone(video: Path) -> None:
    looking = replace(SETTINGS, success=replace(SETTINGS.success, dwell=0.3, confirm_rate=5.0))
    curve = score_video(video, "x", Brightness(), looking)
    # -0.6 nat are passed at 3.5 s; looks at 3.7 s and 3.9 s
    assert [event.time_s for event in curve.events] == pytest.approx([0.0, 3.9, 3.9], abs=1e-3)
    assert [point.time_s for point in curve.points] == pytest.approx([0.5 * k for k in range(8)], abs=1e-3)
    assert curve.state is State.SUCCEEDED and curve.ended_early
    scorer = Brightness()
    curve = score_video(video, "x", scorer, replace(looking, end_episode_on_success=False))
    assert len(scorer.asked) == len(curve.points) + 2, "nothing is looked at once SUCCESS has come"
    assert repr(curve.points) == repr(score_video(video, "x", Brightness(), never_ends()).points)
    scorer = Brightness()
    score_video(video, "x", scorer, looking, prefixes=3)
    assert len(scorer.asked) == 3, "some prefixes alone confirm nothing"


def test_live_and_recorded_have_the_same_looks_events_and_scores_to_the_digit(video: Path) -> None:
    """Live as the node does it: with the scoring thread, whose answers come before the next frame."""
    success = replace(SETTINGS.success, threshold=-0.35, dwell=0.5, min_scores=4, confirm_rate=5.0)
    settings = replace(SETTINGS, success=success)
    recorded, scorer = Brightness(), Brightness()
    curve = score_video(video, "make it bright", recorded, settings)

    monitor, told = TaskMonitor(settings, lambda: "live"), threading.Semaphore(0)
    worker = ScoringWorker(scorer, told.release)
    outputs = monitor.set_task("make it bright")
    asked = []
    for stamp_ns, read in open_video(video):
        due, more = monitor.observe(stamp_ns, stamp_ns)
        outputs += more
        request, more = monitor.add_frame(Frame(stamp_ns, read())) if due else (None, [])
        outputs += more
        if request is not None:
            asked.append(request.prefix[-1].stamp_ns)
            if request.extra:
                assert worker.submit_extra(replace(request, time_left_s=math.inf))  # on a busy machine, too
            else:
                worker.submit(request)
            assert told.acquire(timeout=60.0)
            (result,) = worker.results()
            assert result.score is not None
            outputs += monitor.add_score(result.request, result.score)
    assert worker.stop()
    live_events = [output for output in outputs if isinstance(output, Event)]
    reports = [output for output in outputs if isinstance(output, ProgressReport) and output.num_frames]
    assert (
        asked == [prefix[-1].stamp_ns for _, prefix in recorded.asked] and len(asked) > len(curve.points) + 1
    )
    assert [(event.type.name, event.stamp.ns / NS_PER_S, event.message) for event in live_events] == [
        (event.type, event.time_s, event.message) for event in curve.events
    ]
    assert [repr(report.score) for report in reports] == [repr(point.score) for point in curve.points]
    assert [event.type for event in curve.events] == ["EPISODE_STARTED", "SUCCESS", "EPISODE_ENDED"]


def test_a_video_that_ends_with_the_episode_did_not_end_early(video: Path) -> None:
    curve = score_video(video, "x", Brightness(), never_ends())
    assert not curve.ended_early
    assert [event.type for event in curve.events] == ["EPISODE_STARTED", "SUCCESS"]


def test_timeout(video: Path) -> None:
    curve = score_video(video, "x", Brightness(), replace(SETTINGS, episode_timeout=2.0))
    assert [event.type for event in curve.events] == ["EPISODE_STARTED", "TIMEOUT", "EPISODE_ENDED"]
    assert [point.time_s for point in curve.points] == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=1e-3)
    assert curve.state is State.FAILED and curve.ended_early


def test_a_given_rate_stretches_time(video: Path) -> None:
    curve = score_video(video, "x", Brightness(), never_ends(), rate=5.0)
    assert curve.points[-1].time_s == pytest.approx(12.0)
    assert len(curve.points) == 25


def test_json_holds_everything_and_is_strict(video: Path) -> None:
    curve = score_video(video, "öffne \"das\" 'x'", Brightness(), SETTINGS)
    content = json.loads(curve.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["format"] == "topreward_curve/1"
    assert content["instruction"] == "öffne \"das\" 'x'"
    assert content["model"]["model_id"] == "brightness" and content["model"]["random_weights"] is False
    assert content["model"]["max_pixels"] == 4096
    assert content["settings"]["progress_mode"] == "static_baseline"
    assert content["settings"]["success"]["threshold"] == -0.6
    assert content["state"] == "SUCCEEDED" and content["ended_early"] is True
    assert len(content["scores"]) == len(curve.points)
    last, point = content["scores"][-1], curve.points[-1]
    assert last["time"] == point.time_s and last["log_prob"] == point.score.log_prob
    assert last["progress"] == point.progress and last["progress_minmax"] == 1.0
    assert last["log_prob_std"] is None and math.isnan(point.score.log_prob_std)
    assert [event["type"] for event in content["events"]] == [event.type for event in curve.events]


def test_json_names_a_file_whose_name_is_no_text(video: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    odd.write_bytes(video.read_bytes())
    text = score_video(odd, "x", Brightness(), SETTINGS).to_json()
    assert json.loads(text.encode("utf-8"))["video"] == str(odd)


def test_what_cannot_be_scored(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="instruction is empty"):
        score_video(video, "  ", Brightness(), SETTINGS)
    with pytest.raises(VideoError, match=r"no video at .*missing\.mp4"):
        score_video(tmp_path / "missing.mp4", "x", Brightness(), SETTINGS)

    class Broken(Brightness):
        def score_one(self, request: ScoreRequest) -> PrefixScore:
            raise ScorerError("out of memory")

    with pytest.raises(ScorerError, match="out of memory"):
        score_video(video, "x", Broken(), SETTINGS)


def damaged_folder(path: Path, damaged: tuple[int, ...]) -> Path:
    """Images for 10 Hz, some of which cannot be read."""
    path.mkdir()
    for k in range(21):
        cv2.imwrite(str(path / f"{k}.png"), np.full((48, 64, 3), 10 * k, np.uint8))
        if k in damaged:
            (path / f"{k}.png").write_bytes(b"no picture")
    return path


@pytest.mark.parametrize(
    ("prefixes", "schedule", "second_s"),
    [(0, PrefixSchedule.MONITOR, 0.6), (5, PrefixSchedule.MONITOR, 0.6), (21, PrefixSchedule.AUTHORS, 0.5)],
)
def test_the_next_frame_takes_the_slot_of_one_that_cannot_be_read(
    tmp_path: Path, prefixes: int, schedule: PrefixSchedule, second_s: float
) -> None:
    """The frames of 0.5 s and 2.0 s are due; nothing follows the latter. That of 0.7 s is told, too.

    In the authors' schedule, which knows the slots beforehand, the frame that stands in has the slot's time.
    """
    folder = damaged_folder(tmp_path / "images", (5, 7, 20))
    scorer = Brightness()
    curve = score_video(
        folder, "x", scorer, never_ends(), rate=10.0, prefixes=prefixes, prefix_schedule=schedule
    )
    times = dict.fromkeys(point.time_s for point in curve.points)
    assert list(times) == pytest.approx([0.0, second_s, 1.0, 1.5])
    newest = [prefix[-1].image[0, 0, 0] for _, prefix in scorer.asked]
    assert list(dict.fromkeys(newest)) == [0, 60, 100, 150]
    assert [len(prefix) for _, prefix in scorer.asked] == [1, 2, 3, 4]
    assert due_times(folder, 2.0, 10.0) == pytest.approx([0.0, 0.6, 1.0, 1.5])
    assert [place.time_s for place in curve.damaged] == pytest.approx([0.5, 0.7, 2.0])
    places = json.loads(curve.to_json())["damaged"]
    assert [(place["until"], place["frames"]) for place in places] == [(0.5, 1), (0.7, 1), (2.0, 1)]
    assert "5.png" in places[0]["reason"]
    assert shown(curve, tmp_path / "curve.png", rate=10.0).shape[1] == 1200


def test_a_whole_video_has_no_damage(video: Path) -> None:
    assert json.loads(score_video(video, "x", Brightness(), SETTINGS).to_json())["damaged"] == []


def shown(curve: Curve, path: Path, rate: float = 0.0) -> np.ndarray:
    """The picture that is drawn of a curve, (H, W, 3)."""
    plot_curve(curve, path, rate=rate)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def test_the_picture_shows_the_frames_and_the_warning(video: Path, tmp_path: Path) -> None:
    curve = score_video(video, "cost $5 and $6_x^2 {", Brightness(), SETTINGS)
    picture = shown(curve, tmp_path / "curve.png")
    assert picture.shape[1] == 1200
    # the strip goes from black to white
    strip = picture[650:700].mean(axis=(0, 2))
    left, right = strip[80:1180].argmin() + 80, 1100
    assert strip[left] < 60 and left < 300 and strip[right] > 220
    random = replace(curve, model=replace(curve.model, random_weights=True))
    warned = shown(random, tmp_path / "random.png")
    red = (np.abs(warned.astype(int) - (0x28, 0x28, 0xC6)).sum(axis=2) < 30)[:130].sum()
    none = (np.abs(picture.astype(int) - (0x28, 0x28, 0xC6)).sum(axis=2) < 30)[:130].sum()
    assert red > 2000 and none == 0


def test_the_picture_of_a_start_that_looks_finished(video: Path, tmp_path: Path) -> None:
    class Certain(Brightness):
        def score_one(self, request: ScoreRequest) -> PrefixScore:
            return PrefixScore(-0.1, -3.0, -0.1, num_frames=len(request.prefix))

    curve = score_video(video, "x", Certain(), SETTINGS)
    assert all(math.isnan(point.progress) for point in curve.points)
    assert json.loads(curve.to_json())["scores"][0]["progress"] is None
    assert shown(curve, tmp_path / "curve.png").shape[1] == 1200


# ---- several, and the prefixes of the paper ----


def test_several_at_once_give_the_curves_of_each(video: Path, tmp_path: Path) -> None:
    """With the model that ships, films of two lengths, more of them than are scored side by side."""
    films = [clip("drawer-open-success.mp4"), video, clip("drawer-open-failure.mp4"), video]
    settings = MonitorSettings.from_parameters(monitor_defaults())
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(monitor_defaults()))
    together = score_videos(films, "open the drawer", scorer, settings, at_once=3)
    for film, curve in zip(films, together, strict=True):
        assert isinstance(curve, Curve)
        alone = score_video(film, "open the drawer", scorer, settings)
        assert curve.video == str(film)
        assert [point.time_s for point in curve.points] == [point.time_s for point in alone.points]
        for point, other in zip(curve.points, alone.points, strict=True):
            assert point.score.log_prob == pytest.approx(other.score.log_prob, abs=2e-5)
            assert point.progress == pytest.approx(other.progress, abs=2e-5)
        assert [event.type for event in curve.events] == [event.type for event in alone.events]
    assert [curve.state for curve in together if isinstance(curve, Curve)][:1] == [State.SUCCEEDED]
    plot_curves([curve for curve in together if isinstance(curve, Curve)], tmp_path / "several.png")
    assert cv2.imread(str(tmp_path / "several.png")).std() > 10


def test_one_that_fails_does_not_harm_the_others(video: Path, tmp_path: Path) -> None:
    class NotTwice(Brightness):
        """Fails on the frames of 40 pixels."""

        def score_one(self, request: ScoreRequest) -> PrefixScore:
            if request.prefix[0].image.shape[0] == 40:
                raise ScorerError("no 40")
            return super().score_one(request)

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no film")
    small = tmp_path / "small.mp4"
    writer = cv2.VideoWriter(str(small), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (40, 40))
    for _ in range(30):
        writer.write(np.zeros((40, 40, 3), np.uint8))
    writer.release()
    films = [bad, video, small, video]
    outcomes = score_videos(films, "x", NotTwice(), never_ends(), at_once=2)
    assert isinstance(outcomes[0], VideoError) and "bad.mp4" in str(outcomes[0])
    assert isinstance(outcomes[2], ScorerError) and str(outcomes[2]) == "no 40"
    alone = score_video(video, "x", Brightness(), never_ends())
    assert repr(outcomes[1]) == repr(outcomes[3]) == repr(alone)
    content = json.loads(outcomes_to_json([str(film) for film in films], outcomes))
    assert content["format"] == "topreward_curves/1"
    assert content["curves"][2] == {"video": str(small), "error": "no 40"}
    assert content["curves"][1] == json.loads(alone.to_json())


@pytest.mark.parametrize(("prefixes", "counts"), [(1, [13]), (4, [1, 5, 9, 13]), (50, list(range(1, 14)))])
def test_prefixes_are_evenly_spaced_over_the_frames_of_the_monitor(
    video: Path, prefixes: int, counts: list[int]
) -> None:
    scorer = Brightness()
    schedule = PrefixSchedule.MONITOR
    curve = score_video(video, "x", scorer, never_ends(), prefixes=prefixes, prefix_schedule=schedule)
    assert [len(prefix) for _, prefix in scorer.asked] == counts
    whole = score_video(video, "x", Brightness(), never_ends())
    assert [repr(point.score) for point in curve.points] == [repr(whole.points[k - 1].score) for k in counts]
    assert curve.points[-1].time_s == whole.points[-1].time_s


def test_the_prefixes_of_the_paper_end_after_evenly_spaced_frames_of_the_video(video: Path) -> None:
    """61 frames at 10 Hz: every fifth is sampled, and prefixes end after 1, 11, 21 ... of them."""
    scorer = Brightness()
    seen = []
    curve = score_video(video, "x", scorer, never_ends(), prefixes=7, on_score=seen.append)
    assert [point.video_frames for point in curve.points] == [1, 11, 21, 31, 41, 51, 61]
    assert [point.num_frames for point in curve.points] == [1, 3, 5, 7, 9, 11, 13]
    assert [point.time_s for point in curve.points] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert repr(tuple(seen)) == repr(curve.points)
    assert curve.settings == never_ends() and curve.duration_s == pytest.approx(6.0, abs=1e-3)
    whole = score_video(video, "x", Brightness(), never_ends())
    assert [repr(point.score) for point in curve.points] == [repr(point.score) for point in whole.points[::2]]
    assert [point.video_frames for point in whole.points] == list(range(1, 62, 5))
    assert curve.to_json_value()["prefix_schedule"] == "authors"
    assert whole.to_json_value()["prefix_schedule"] is None
    scores = curve.to_json_value()["scores"]
    assert [score["video_frames"] for score in scores] == [1, 11, 21, 31, 41, 51, 61]


@pytest.mark.parametrize("rate", [3, 5, 10, 15, 20, 24, 25, 29.97, 30])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 40, 95])
def test_each_prefix_of_the_paper_holds_the_frames_that_the_rule_names(
    rate: float, frames: int, tmp_path: Path
) -> None:
    """The rule in numpy: nearest frames to slots of 2 Hz, half to even, those before the prefix's end."""
    for k in range(frames):
        cv2.imwrite(str(tmp_path / f"{k:03}.png"), np.full((32, 32, 3), k, np.uint8))
    scorer = Brightness()
    curve = score_video(tmp_path, "x", scorer, never_ends(), rate=rate, prefixes=15)
    ends = np.unique(np.linspace(1, frames, min(15, frames), dtype=int)) if frames > 2 else [frames]
    picks = np.unique(np.minimum(np.round(np.arange(0, frames, rate / 2)).astype(int), frames - 1))
    assert [point.video_frames for point in curve.points] == list(ends)
    asked = [[int(frame.image[0, 0, 0]) for frame in prefix] for _, prefix in scorer.asked]
    assert asked == [list(p) for p in dict.fromkeys(tuple(picks[picks < end]) for end in ends)]
    assert [point.num_frames for point in curve.points] == [int(np.sum(picks < end)) for end in ends]
    times = [[frame.stamp_ns / 1e9 for frame in prefix] for _, prefix in scorer.asked]
    assert times[-1] == pytest.approx(picks / rate, abs=1e-9)


def test_prefixes_that_hold_the_same_frames_have_the_same_score_and_are_scored_once(tmp_path: Path) -> None:
    for k in range(12):
        cv2.imwrite(str(tmp_path / f"{k:03}.png"), np.full((32, 32, 3), 20 * k, np.uint8))
    scorer = Brightness()
    curve = score_video(tmp_path, "x", scorer, never_ends(), rate=10.0, prefixes=15)
    assert [point.video_frames for point in curve.points] == list(range(1, 13))
    assert [point.num_frames for point in curve.points] == [1] * 5 + [2] * 5 + [3] * 2
    assert len(scorer.asked) == 3
    assert len({point.score.log_prob for point in curve.points}) == 3
    rewards = [point.reward for point in curve.points]
    assert sum(rewards) == pytest.approx(curve.points[-1].progress - curve.points[0].progress)
    assert [k for k, reward in enumerate(rewards) if reward] == [5, 10]


def test_frames_that_the_budget_drops_are_told(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = replace(never_ends(), max_frames=8)
    curve = score_video(video, "x", Brightness(), few, prefixes=3)
    assert curve.points[-1].num_frames <= 8
    assert "13 frames and max_frames is 8" in caplog.text and "set max_frames to 14" in caplog.text


def clip(name: str) -> Path:
    return Path(__file__).parents[1] / "data" / "clips" / name


# ---- calibrations ----


_SKETCH = ProbabilityMap(Kind.ANCHORS, (-4.0, 4.0), (0.1, 0.9))


@pytest.mark.parametrize(
    ("made_for", "picture", "weak", "decides", "said"),
    [
        ("make it bright", None, False, True, ""),
        ("make it bright", None, True, True, "is weak"),
        ("make it bright", (96, 72), False, False, "does not hold here: frames are 64x48"),
        ("make it dark", None, False, False, "has no calibration of this task"),
    ],
)
def test_a_curve_says_whether_its_calibration_decided(
    video: Path, made_for: str, picture: tuple[int, int] | None, weak: bool, decides: bool, said: str
) -> None:
    fitted = calibration(made_for, -0.9, picture=picture, **({"probability": _SKETCH} if weak else {}))
    settings = replace(SETTINGS, calibrations=Calibrations(setup(), (fitted,), "c.yaml"))
    curve = score_video(video, "make it bright", Brightness(), settings)
    assert bool(said) == bool(curve.calibration_notes) and said in "".join(curve.calibration_notes)
    written = json.loads(curve.to_json())["calibration"]
    assert (written["success"] != [None]) == decides and written["weak"] == [weak and decides]
    assert (written["why_not"] == [None]) == decides
    thresholds = {event.threshold for event in curve.events if event.type == "SUCCESS"}
    assert thresholds == {-0.9 if decides else SETTINGS.success.threshold}
    console = Console(width=200, record=True, file=StringIO())
    console.print(curve_summary(curve))
    assert said in console.export_text()


def test_an_expected_answer_is_shown_on_the_scale_of_the_answers(video: Path) -> None:
    curve = score_video(video, "make it bright", Brightness(), SETTINGS)
    console = Console(width=200, record=True, file=StringIO())
    console.print(curve_summary(curve))
    five = replace(curve, model=replace(curve.model, answers='" 1"=1 " 2"=2 " 3"=3 " 4"=4 " 5"=5'))
    console.print(curve_summary(five))
    usual, *_, expected = re.split(r"(?=video  )", console.export_text())[-2:]
    assert "log p" in usual and "True" in usual and " of 1 to 5" not in usual
    assert re.search(r"answer +[1-5](\.\d+)? of 1 to 5 is expected", expected) and "log p" not in expected
    assert json.loads(five.to_json())["model"]["answers"] == five.model.answers


# ---- pauses, and pictures that change ----


def film(path: Path, pictures: list[np.ndarray]) -> Path:
    """A folder of images, played at 10 Hz."""
    path.mkdir()
    for k, picture in enumerate(pictures):
        cv2.imwrite(str(path / f"{k:04d}.png"), picture)
    return path


def test_pictures_that_change_their_shape_end_the_episode_and_the_curve_says_so(tmp_path: Path) -> None:
    wide, high = np.full((48, 64, 3), 40, np.uint8), np.full((64, 48, 3), 40, np.uint8)
    lone = film(tmp_path / "lone", [wide] * 12 + [high] + [wide] * 17)
    curve = score_video(lone, "x", Brightness(), never_ends(), rate=10.0)
    assert [event.type for event in curve.events] == ["EPISODE_STARTED"] and not curve.ended_early
    assert [point.time_s for point in curve.points] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert not curve.ignored.counts(), "it was not due, and so not even read"
    due_one = film(tmp_path / "due one", [wide] * 10 + [high] + [wide] * 19)
    curve = score_video(
        due_one,
        "x",
        Brightness(),
        never_ends(),
        rate=10.0,
        prefixes=6,
        prefix_schedule=PrefixSchedule.MONITOR,
    )
    assert [point.time_s for point in curve.points] == [0.0, 0.5, 1.1, 1.5, 2.0, 2.5]
    assert json.loads(curve.to_json())["ignored"] == {
        "out_of_order": 0,
        "out_of_line": 0,
        "other_shape": 1,
        "not_pictures": 0,
        "frozen": 0,
    }

    turned = film(tmp_path / "turned", [wide] * 12 + [high] * 18)
    scorer = Brightness()
    curve = score_video(turned, "x", scorer, never_ends(), rate=10.0)
    assert [event.type for event in curve.events] == ["EPISODE_STARTED", "ABORTED", "EPISODE_ENDED"]
    assert "the picture changed from 64x48 to 48x64" in curve.events[1].message
    assert [point.time_s for point in curve.points] == [0.0, 0.5, 1.0]
    assert curve.ended_early and curve.state is State.IDLE and curve.duration_s == pytest.approx(1.7)
    console = Console(record=True, width=160)
    console.print(curves_table([curve]))
    text = console.export_text()
    assert "turned: 2 frames of another shape were not used" in text
    assert "turned: broken off at 1.00 s, the picture changed from 64x48 to 48x64" in text
    console.print(curve_summary(curve))
    assert "2 frames of another shape" in console.export_text()
    assert {frame.image.shape for _, prefix in scorer.asked for frame in prefix} == {(48, 64, 3)}


@pytest.mark.parametrize("rate", [0.1, 0.2, 1.0, 2.0])
def test_every_image_of_a_slow_folder_is_scored(tmp_path: Path, rate: float) -> None:
    slow = film(tmp_path / "slow", [np.full((48, 64, 3), 40, np.uint8)] * 6)
    curve = score_video(slow, "x", Brightness(), never_ends(), rate=rate)
    assert [point.time_s for point in curve.points] == due_times(slow, 2.0, rate)
    assert [point.time_s for point in curve.points] == [k / rate for k in range(6)]


def test_pauses_of_a_film_cost_two_frames_and_its_last_one_is_scored(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As live, where the two images that confirm a pause are not used; a file says where it ends."""

    class Pausing:
        def __init__(self, opened: Video) -> None:
            self.opened, self.info, self.damaged = opened, opened.info, opened.damaged

        def __iter__(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
            for k, (stamp, read) in enumerate(self.opened):
                yield stamp + 10**9 * ((k >= 23) * 20 + (k >= FRAMES - 1) * 60), read

    monkeypatch.setattr(
        "topreward_ros.offline.score_video.open_video", lambda path, rate: Pausing(open_video(path, rate))
    )
    curve = score_video(video, "x", Brightness(), never_ends())
    times = [point.time_s for point in curve.points]
    assert times[:7] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 22.5, 23.0], abs=1e-3)
    assert times[-2:] == pytest.approx([25.5, 86.0], abs=1e-3)
    assert times == due_times(video, 2.0)
    assert curve.duration_s == pytest.approx(86.0, abs=1e-3) and not curve.ended_early


class Moment(Brightness):
    """Sure of `first` from its fourth prefix on, of everything else from its third."""

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        frames = len(request.prefix)
        done = frames > (4 if request.instruction == "first" else 3)
        return PrefixScore(-0.1 if done else -4.0, -1.0, -4.0, num_frames=frames)


def test_the_picture_says_that_the_model_does_not_know_the_instruction(video: Path, tmp_path: Path) -> None:
    curve = score_video(video, "first\nsecond", Moment(), SETTINGS)
    for known, says in ((("first", "second"), False), (("first",), True)):
        picture = tmp_path / "curve.svg"
        plot_curve(replace(curve, model=replace(curve.model, instructions=known)), picture)
        assert ("the model does not know this instruction" in picture.read_text()) is says


def test_stages_are_scored_one_after_the_other(video: Path, tmp_path: Path) -> None:
    curve = score_video(video, "first\n\nsecond\nthird\n", Moment(), SETTINGS)
    assert [event.type for event in curve.events][:4] == [
        "EPISODE_STARTED",
        "SUBTASK_SUCCESS",
        "EPISODE_ENDED",
        "EPISODE_STARTED",
    ]
    assert [(event.type, event.stage) for event in curve.events if "SUCCESS" in event.type] == [
        ("SUBTASK_SUCCESS", 1),
        ("SUBTASK_SUCCESS", 2),
    ]
    assert [point.stage for point in curve.points] == [1] * 7 + [2] * 6 + [3]
    assert [point.num_frames for point in curve.points] == [*range(1, 8), *range(1, 7), 1]
    for point in curve.points:
        assert point.progress == (point.stage - 1 + point.stage_progress) / 3
    content = json.loads(curve.to_json())
    assert content["stages"] == ["first", "second", "third"] and content["instruction"].count("\n") == 2
    assert content["scores"][-2]["progress_minmax"] == 2 / 3 and content["scores"][-1]["stage"] == 3
    plot_curve(curve, tmp_path / "stages.png")
    console = Console(width=100, record=True)
    console.print(curve_summary(curve))
    shown = console.export_text()
    assert "first, then second, then third" in shown and "3 of 3" in shown
    returns = [sum(it.reward for it in curve.points if it.stage == stage) for stage in (1, 2, 3)]
    told = ", ".join(f"{it:.3f} in stage {stage}" for stage, it in enumerate(returns, start=1))
    assert f"return {told} (progress_delta; each stage is an episode" in " ".join(shown.split())
    with pytest.raises(UserError, match="are of one task"):
        score_video(video, "first\nsecond", Moment(), SETTINGS, prefixes=15)
