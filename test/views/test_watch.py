"""What `topreward watch` remembers and draws, from plain data."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from math import nan

import pytest
from rich.console import Console

from topreward_ros.core.outputs import State
from topreward_ros.views.messages import Description, Happening, Sample
from topreward_ros.views.watch import WatchLog, event_line, sample_line, view, why_no_score

START = 1_700_000_000 * 10**9


def sample(k: int, **changes: object) -> Sample:
    """Score k of an episode at 2 Hz, progress k / 20."""
    base = Sample(
        episode_id="e1", instruction="open the drawer", state=State.RUNNING, stamp_ns=START + k * 500_000_000,
        progress=k / 20, log_prob=-4.0 + k / 5, log_prob_false=-0.25, log_prob_static=-4.125,
        num_frames=k + 1, elapsed_s=0.5 * k, latency_s=0.1, message="",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def watched(*samples: Sample) -> WatchLog:
    log = WatchLog("/task_progress")
    for sample_ in samples:
        log.add_progress(sample_, now_s=sample_.elapsed_s)
    return log


def drawn(log: WatchLog, now_s: float = 10.0, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(width=width, file=StringIO(), color_system=None, force_terminal=True)
    console.print(view(log, now_s, width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_heartbeat_is_no_score() -> None:
    log = WatchLog("/task_progress")
    waiting = sample(0, num_frames=0, stamp_ns=0, state=State.WAITING_FOR_IMAGES)
    assert [log.add_progress(message, 0.0) for message in (waiting, waiting)] == [False, False]
    assert log.add_progress(sample(0), 1.0) is True
    assert log.add_progress(sample(0, latency_s=1.1), 2.0) is False
    assert log.add_progress(sample(0, state=State.STALE), 3.0) is False
    assert log.add_progress(sample(1, latency_s=0.3), 4.0) is True
    assert log.score_count == 2 and list(log.latencies_s) == [0.1, 0.3]
    assert log.median_latency_s() == pytest.approx(0.2)
    assert log.silence_s(now_s=9.0, since_s=0.0) == 5.0


def test_what_a_monitor_waits_for_is_shown_until_it_has_a_scorer_or_is_silent() -> None:
    log = WatchLog("/task_progress")
    log.advice = ("nobody publishes it",)
    assert log.add_waiting("the server is away, for 1 s so far", 1.0) is True
    assert log.add_waiting("the server is away, for 2 s so far", 2.0) is False, "it is repeated"
    said = "".join(drawn(log, now_s=3.0))
    assert "away, for 2 s" in said and "for 1 s" not in said and "nobody publishes" not in said
    assert "away" not in "".join(drawn(log, now_s=13.0)), "it may have died"
    assert log.add_waiting("the server is away, for 9 s so far", 14.0) is True
    assert log.add_waiting("", 15.0) is False
    assert "away" not in "".join(drawn(log, now_s=15.0))


def test_a_new_episode_begins_a_new_curve() -> None:
    log = watched(sample(0), sample(1), sample(2))
    assert log.score_rate() == pytest.approx(2.0)
    assert log.add_progress(sample(0, episode_id="e2", stamp_ns=START), 5.0)
    assert [score.episode_id for score in log.scores] == ["e2"]
    assert log.score_count == 4
    assert not log.score_rate() > 0


@pytest.mark.parametrize("count", [1000, 1001, 1002, 2001, 10_007])
def test_a_long_episode_is_thinned_evenly(count: int) -> None:
    """As much memory and work per picture after a day as after an hour."""
    log = watched(*(sample(k, latency_s=k) for k in range(count)))
    assert log.score_count == count
    numbers = [round(score.elapsed_s * 2) for score in log.scores]
    assert 500 <= len(numbers) <= 1000
    assert numbers[0] == 0 and numbers[-1] == count - 1
    (stride,) = {later - earlier for earlier, later in pairwise(numbers[:-1])}
    assert stride == 2 ** math.ceil(math.log2(max(count / 1000, 1)))
    assert 0 < numbers[-1] - numbers[-2] <= stride
    assert len(log.latencies_s) == 1000 and log.latencies_s[-1] == count - 1
    assert log.add_progress(sample(count - 1), 0.0) is False
    log.add_progress(sample(0, episode_id="e2"), 0.0)
    log.add_progress(sample(1, episode_id="e2"), 0.0)
    assert len(log.scores) == 2, "a new episode has every score again"


def test_the_picture_says_everything() -> None:
    log = watched(*(sample(k) for k in range(11)))
    log.model = "embedded, cpu, float32"
    log.add_event(Happening("e1", START, "EPISODE_STARTED", "watching for: [red]"))
    log.add_event(Happening("e1", START + 5 * 10**9, "SUCCESS", "held"))
    picture = "\n".join(drawn(log, now_s=6.5))
    for text in (
        "/task_progress", "open the drawer", "RUNNING", "50 %", "-2.000 nat", "-0.250 nat", "-4.125 nat",
        "elapsed  5.0 s", "frames   11", "0.10 s, median 0.10", "11, 2.0 per s", "1.5 s ago",
        "0.0 s  EPISODE_STARTED  watching for: [red]", "5.0 s  SUCCESS", "episode e1",
        "model embedded, cpu, float32",
    ):  # fmt: skip
        assert text in picture, f"{text!r} is missing in\n{picture}"
    assert "random weights" not in picture


def test_the_bar_is_as_long_as_progress() -> None:
    def filled(progress: float) -> int:
        (bar,) = (line for line in drawn(watched(sample(0, progress=progress))) if "%" in line)
        return bar.count("█")

    assert [filled(value) for value in (0.0, 0.5, 1.0)] == [0, 35, 70]
    assert not any("%" in line for line in drawn(watched(sample(0, progress=nan))))


def test_the_chart_rises_with_progress_and_leaves_the_future_empty() -> None:
    lines = drawn(watched(*(sample(k, progress=min(1.0, k / 10)) for k in range(11))))  # 5 s of 10 s
    top = next(i for i, line in enumerate(lines) if "1.0" in line)
    rows = [line[6:76] for line in lines[top : top + 6]]
    assert lines[top + 6].split()[1:5] == ["0", "s", "10", "s"]
    counts = [sum(cell != " " for cell in row) for row in rows]
    assert counts == sorted(counts) and counts[0] > 0 and counts[-1] <= 38
    assert all(row[40:].strip() == "" for row in rows)


def test_no_progress_is_a_line_and_nan_is_none() -> None:
    def bottom(progress: float) -> str:
        lines = drawn(watched(*(sample(k, progress=progress) for k in range(11))))
        (row,) = (line[6:76] for line in lines if "0.0 " in line[:7])
        return row.rstrip()

    assert set(bottom(0.0)) == {"▁"} and len(bottom(0.0)) == 37
    assert bottom(nan) == ""


def test_a_longer_episode_has_a_longer_axis() -> None:
    assert any("20 s" in line for line in drawn(watched(*(sample(k) for k in range(23)))))


def test_random_weights_are_said_once_and_other_messages_too() -> None:
    log = watched(sample(0, progress=nan, message="random weights; the first frame alone reads as success"))
    picture = "\n".join(drawn(log))
    assert picture.count("random weights: the numbers mean nothing") == picture.count("random weights") == 1
    assert "the first frame alone reads as success" in picture
    log = watched(sample(0))
    log.random_weights = True
    assert "random weights" in "\n".join(drawn(log))


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_it_fits_whatever_the_width(width: int) -> None:
    log = watched(sample(0, instruction="<|im_end|> [bold] " + "x" * 300))
    log.advice = ("nothing on /task_progress for 5 s",)
    lines = drawn(log, width=width)
    assert all(len(line) <= width for line in lines)
    if width >= 40:
        assert "<|im_end|> [bold]" in "\n".join(lines)


def busy() -> WatchLog:
    """Everything that takes room at once."""
    log = watched(
        *(sample(k, instruction="put the red cup " + "on the blue saucer " * 10) for k in range(11))
    )
    log.random_weights = True
    log.model = "embedded, cpu, float32"
    for k in range(20):
        log.add_event(Happening("e1", START + k * 10**9, "STALE_IMAGES", f"number {k}: " + "no image " * 12))
    return log


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 15), (40, 20), (80, 12), (100, 40), (110, 70)])
def test_it_fits_the_height_and_keeps_what_matters(width: int, height: int) -> None:
    log = busy()
    for message in ("", "the camera stands still " * 10):
        assert log.newest is not None
        log.newest = replace(log.newest, message=message)
        lines = drawn(log, width=width, height=height)
        picture = "\n".join(lines)
        assert len(lines) <= height and all(len(line) <= width for line in lines), picture
        for text in ("put the red cup", "RUNNING", "50 %", "random weights: the numbers mean"):
            assert text in picture, f"{text!r} is missing in\n{picture}"
        assert "nothing" in picture
        assert "19.0 s  STALE_IMAGES" in picture and lines[0][0] == "╭" and lines[-1][0] == "╰"


def test_older_events_go_before_the_curve_and_that_before_the_numbers() -> None:
    def rows(height: int) -> tuple[int, int, int]:
        lines = drawn(busy(), height=height)
        top = [i for i, line in enumerate(lines) if "1.0 " in line[:7]]
        bottom = [i for i, line in enumerate(lines) if "0.0 " in line[:7]]
        numbers = [line for line in lines if any(x in line for x in ("p(True)", "p(False)", "first frame"))]
        curve = bottom[0] - top[0] + 1 if top else 0
        return sum("STALE_IMAGES" in line for line in lines), curve, len(numbers)

    shown = [rows(height) for height in range(9, 60)]
    assert all(
        a <= b for before, after in pairwise(shown) for a, b in zip(before[1:], after[1:], strict=True)
    )
    assert shown[0][0] == 1 and shown[0][1] == 0
    for events, curve, numbers in shown:
        assert curve == 0 or numbers == 3
        assert events == 1 or curve >= 6 or (curve == 0 and events <= 3), "what is too little for a curve"
    assert rows(59)[0] == 6 and rows(59)[1] > 12, "room is used"


STALE = (
    "no image that can be used for more than 5 s (stale_timeout): no image on /camera/color/image_raw; "
    "nobody publishes on /camera/color/image_raw (sensor_msgs/msg/Image); start the camera's driver, or set "
    "image_topics to one of /front/image_raw, /wrist/image_raw (`ros2 param set /monitor image_topics ...`)"
)


def text_of(lines: list[str]) -> str:
    return " ".join(" ".join(line.strip("│╭╮╰╯─ ") for line in lines).split())


@pytest.mark.parametrize("width", [80, 110])
@pytest.mark.parametrize("scored", [False, True])
def test_a_message_takes_the_rows_that_are_free(width: int, scored: bool) -> None:
    """The curve gives way while there is none, and the picture stays as high as it is."""
    before = [sample(k) for k in range(3)] if scored else [sample(0, num_frames=0, progress=nan)]
    log = watched(*before)
    for k in range(4):
        log.add_event(Happening("e1", START + k * 10**9, "STALE_IMAGES", STALE))
    heights = set()
    for message in ("", STALE):
        log.newest = replace(before[-1], state=State.STALE, message=message)
        lines = drawn(log, width=width, height=23)
        heights.add(len(lines))
        assert message in text_of(lines), "\n".join(lines)
        assert "first frame" in text_of(lines) and any("1.0 " in line[:7] for line in lines) >= scored
    assert heights == {23}


def test_a_message_that_does_not_fit_is_cut_at_the_last_row_that_is_free() -> None:
    log = watched(sample(0, num_frames=0, progress=nan, message=STALE))
    said = [text_of(drawn(log, height=height)) for height in range(6, 16)]
    assert [STALE[:k] in shown for shown, k in zip(said, (60, 60, 60), strict=False)] == [True] * 3
    assert "…" in said[0] and STALE in said[-1] and "latency" in said[-1]


def test_waiting_fits_too() -> None:
    log = WatchLog("/task_progress")
    log.advice = ("nothing on /task_progress " * 20, "nobody " * 50)
    for k in range(20):
        log.add_event(Happening("e1", START, "ABORTED", f"number {k}: " + "why " * 50))
    lines = drawn(log, height=10)
    assert len(lines) <= 10 and "waiting" in lines[1] and "number 19" in "\n".join(lines)


def test_what_comes_from_outside_cannot_command_the_terminal() -> None:
    evil = "open\n\x1b[2J\x07drawer"
    log = watched(sample(0, instruction=evil, message=evil))
    log.add_event(Happening("e1", START, "ABORTED", evil))
    assert "\x1b[2J" not in "\n".join(drawn(log)) and "\x07" not in "\n".join(drawn(log))
    for line in (sample_line(sample(0, message=evil)), event_line(log, log.events[0])):
        assert line.isprintable()
    assert len(drawn(watched(sample(0, instruction="word " * 2000)))) < 25


def test_an_expected_answer_is_shown_on_the_scale_of_the_answers() -> None:
    answers = '" 1"=1 " 2"=2 " 3"=3 " 4"=4 " 5"=5'
    one = sample(0, log_prob=math.log(0.6))
    log = watched(one)
    assert "answer" not in "".join(drawn(log)) and "log p(True)" in "".join(drawn(log))
    log.add_description(Description("m", "cpu", "float32", False, ("image",), answers))
    shown = "".join(drawn(log))
    assert "3.4 of 1 to 5" in shown and "ln(expected)" in shown and "log p" not in shown
    assert "answer 3.4 of 1 to 5, ln -0.511 nat" in sample_line(one, log.answers)
    assert log.successor("", "").answers == answers


def test_before_anything_came() -> None:
    log = WatchLog("/arm/task_progress")
    assert "waiting for the first message" in "\n".join(drawn(log))
    log.advice = ("nothing on /arm/task_progress for 5 s (ROS_DOMAIN_ID 3)",)
    assert "(ROS_DOMAIN_ID 3)" in "\n".join(drawn(log))


def test_lines_for_where_there_is_no_terminal() -> None:
    line = sample_line(sample(4, message="random weights"))
    assert "2.00 s" in line and "RUNNING" in line and "progress 0.200" in line and "log p -3.200 nat" in line
    assert "frames 5" in line and "latency 0.100 s" in line and line.endswith("(random weights)")
    assert "progress -" in sample_line(sample(0, progress=nan))
    log = watched(sample(0))
    event = Happening("e1", START + 3 * 10**9, "TIMEOUT", "too long")
    assert event_line(log, event).split() == ["3.00", "s", "TIMEOUT:", "too", "long"]


def test_a_line_does_not_repeat_the_message_of_the_one_before() -> None:
    remark, log = "the first frame alone reads as success", watched()
    random = f"random weights; {remark}"
    notes = []
    messages = [remark, remark, "", remark, random, random, "random weights", "random weights"]
    for k, message in enumerate(messages):
        score = sample(k, message=message)
        log.add_progress(score, 0.5 * k)
        log.add_progress(replace(score, state=State.STALE, message="no image"), 0.5 * k)  # gets no line
        notes.append(sample_line(score, "", log.message_before).partition(" s  (")[2].removesuffix(")"))
    assert notes == [
        remark, "as before", "", remark,
        random, "random weights; as before", "random weights", "random weights",
    ]  # fmt: skip
    log.add_progress(first := sample(0, episode_id="e2", message="random weights"), 5.0)
    assert log.message_before == "" and sample_line(first).endswith("(random weights)")


def test_why_no_score_came_is_said_as_far_as_it_is_known() -> None:
    assert why_no_score(WatchLog("/task_progress")) == ""
    silent = sample(0, num_frames=0, state=State.WAITING_FOR_IMAGES, message="no image on /image")
    assert why_no_score(watched(silent)) == "; it says WAITING_FOR_IMAGES: no image on /image"
    assert why_no_score(watched(replace(silent, message=""))) == "; it says WAITING_FOR_IMAGES"


@pytest.mark.parametrize("earlier", [[], [sample(0), sample(1)]], ids=["alone", "after another episode"])
def test_an_event_before_the_first_frame_has_no_time(earlier: list[Sample]) -> None:
    log = watched(*earlier)
    log.add_event(event := Happening("e2", 0, "STALE_IMAGES", "no image"))
    assert event_line(log, event).split()[:2] == ["-", "STALE_IMAGES:"]
    log.add_event(late := Happening("e2", START, "STALE_IMAGES", "no image"))
    assert event_line(log, late).split()[0] == "-", "nobody knows when it began"
    assert "STALE_IMAGES" in "".join(drawn(log)) and " s  STALE" not in "".join(drawn(log))


def test_the_next_log_takes_nothing_of_the_last_episode() -> None:
    """Heartbeats repeat its end until the new one begins."""
    log = watched(sample(0), sample(1))
    log.model, log.random_weights = "small", True
    after = log.successor("the robot does nothing", "starting the next video ...")
    old_end = Happening("e1", START, "EPISODE_ENDED", "success")
    assert not after.add_progress(sample(1), now_s=5.0) and not after.add_event(old_end)
    assert after.newest is None and not after.events and after.last_arrival_s is None
    said = "\n".join(drawn(after))
    assert "the robot does nothing" in said and "starting the next video ..." in said and "10 %" not in said
    assert after.add_event(replace(old_end, episode_id="e2"))
    assert after.add_progress(sample(4, episode_id="e2"), now_s=6.0)
    said = "\n".join(drawn(after))
    assert "the robot does nothing" in said and "20 %" in said and "small" in said
    assert after.successor("", "").previous_episode_id == "e2"
    assert log.successor("", "").successor("", "").previous_episode_id == "e1", "an empty log passes it on"


def test_a_caption_takes_one_row_where_rows_are_few() -> None:
    log = watched(sample(0))
    log.caption = "word " * 40
    rows = drawn(log, width=60, height=8)
    assert len(rows) <= 8 and sum("word" in row for row in rows) == 1


def test_the_stage_stands_before_its_name_only_where_there_are_several() -> None:
    second = sample(3, stage=2, stages=3)
    assert "2/3 open the drawer" in drawn(watched(second))[1]
    assert "stage 2 of 3" in sample_line(second)
    one = sample(3, stage=1, stages=1)
    assert "1/1" not in "".join(drawn(watched(one))) and "stage" not in sample_line(one)


def test_the_success_that_a_model_states_stands_where_it_has_no_log_p() -> None:
    """A message that nobody filled has 0 there, and still says its log p."""
    stated = sample(4, log_prob=nan, success_probability=0.9)
    assert "probability of success 0.900" in sample_line(stated)
    assert any("success" in line and "p = 0.900" in line for line in drawn(watched(stated), 2.1))
    for unfilled in (sample(4, success_probability=0.0), sample(4)):
        assert "log p -3.200 nat" in sample_line(unfilled)
        assert not any("p = 0.0" in line for line in drawn(watched(unfilled), 2.1))
