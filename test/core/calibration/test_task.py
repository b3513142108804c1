"""A monitor with calibrations: whose thresholds hold, and what it says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from test.core.calibrations import calibration, setup
from test.core.monitors import SETTINGS
from topreward_ros.core.calibration.comparison import Comparison, Finding, Side
from topreward_ros.core.calibration.mapping import from_mapping, to_mapping
from topreward_ros.core.calibration.probability import Kind, ProbabilityMap
from topreward_ros.core.calibration.task import Calibrations, TaskCalibration
from topreward_ros.core.detectors.failure import ConformalBand
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings, Overrides
from topreward_ros.core.outputs import Event, Output, ProgressReport
from topreward_ros.core.progress import PrefixScore, ProgressMode

TASK = "open the drawer"
IMAGE = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (1, 48, 3))  # 48 x 64 pixels


def with_calibrations(*tasks: TaskCalibration, **settings: object) -> MonitorSettings:
    return replace(SETTINGS, calibrations=Calibrations(setup(), tasks, "c.yaml"), **settings)  # type: ignore


def watched(monitor: TaskMonitor, log_probs: list[float], first: int = 0) -> list[Output]:
    """What a monitor says of scores that come twice a second."""
    said: list[Output] = []
    for k, log_prob in enumerate(log_probs, start=first):
        stamp_ns = k * NS_PER_S // 2
        due, outputs = monitor.observe(stamp_ns)
        said += outputs
        if due:
            request, outputs = monitor.add_frame(Frame(stamp_ns, IMAGE))
            said += outputs
            if request is not None:
                said += monitor.add_score(request, PrefixScore(log_prob, -1.0, -4.0, num_frames=1))
    return said


def success_at(said: list[Output]) -> tuple[float, bool, float]:
    """Time [s], `calibrated` and threshold of SUCCESS."""
    (event,) = [it for it in said if isinstance(it, Event) and it.type is EventType.SUCCESS]
    return event.stamp.ns / NS_PER_S, event.calibrated, event.threshold


LOW_THEN_HIGH = [-3.0, -3.0, -3.0, -0.9, -0.9, -0.9, -0.1, -0.1, -0.1, -0.1]


def test_a_task_that_is_known_has_its_own_detector() -> None:
    monitor = TaskMonitor(with_calibrations(calibration(TASK, -1.0)), lambda: "e")
    monitor.set_task("Open the  drawer.")
    said = watched(monitor, LOW_THEN_HIGH)
    assert success_at(said) == (2.0, True, -1.0)
    reports = [it for it in said if isinstance(it, ProgressReport)]
    assert all(it.calibrated for it in reports) and not any(it.message for it in reports)


def test_another_task_is_watched_without_and_says_so() -> None:
    monitor = TaskMonitor(with_calibrations(calibration("close it", -1.0)), lambda: "e")
    monitor.set_task(TASK)
    said = watched(monitor, LOW_THEN_HIGH)
    time_s, calibrated, threshold = success_at(said)
    assert time_s > 3.0 and not calibrated and threshold == -0.22
    reports = [it for it in said if isinstance(it, ProgressReport) and it.num_frames]
    assert all("c.yaml has no calibration of this task" in it.message for it in reports)
    assert "'close it'" in reports[0].message


def test_without_a_file_nothing_is_said() -> None:
    monitor = TaskMonitor(SETTINGS, lambda: "e")
    monitor.set_task(TASK)
    reports = [it for it in watched(monitor, LOW_THEN_HIGH) if isinstance(it, ProgressReport)]
    assert not any(it.calibrated or it.message for it in reports)


def test_each_stage_has_its_own() -> None:
    tasks = calibration("open it", -1.0), calibration("close it", -0.05)
    monitor = TaskMonitor(with_calibrations(*tasks), lambda: "e")
    monitor.set_task("open it\nclose it")
    said = watched(monitor, LOW_THEN_HIGH[:5])
    assert [it.type.name for it in said if isinstance(it, Event)][1] == "SUBTASK_SUCCESS"
    assert monitor.settings_in_force.success.threshold == -0.05
    said = watched(monitor, LOW_THEN_HIGH, first=5)
    assert not any(isinstance(it, Event) and it.type is EventType.SUCCESS for it in said)


def test_a_threshold_of_the_goal_is_not_calibrated() -> None:
    monitor = TaskMonitor(with_calibrations(calibration(TASK, -1.0)), lambda: "e")
    monitor.set_task(TASK, overrides=Overrides(success_threshold=-0.5))
    assert success_at(watched(monitor, LOW_THEN_HIGH))[1:] == (False, -0.5)


def test_a_weak_one_decides_and_does_not_count_as_calibrated() -> None:
    sketch = ProbabilityMap(Kind.ANCHORS, (-2.0, 2.0), (0.0, 1.0))
    weak = calibration(TASK, -1.0, probability=sketch, successes=3, failures=2)
    monitor = TaskMonitor(with_calibrations(weak), lambda: "e")
    monitor.set_task(TASK)
    said = watched(monitor, LOW_THEN_HIGH)
    assert success_at(said) == (2.0, False, -1.0)
    reports = [it for it in said if isinstance(it, ProgressReport) and it.num_frames]
    standing = f"{weak.weakness}; SUCCESS is judged by its threshold all the same"
    assert all(it.standing == standing and it.message.endswith(it.standing) for it in reports)
    assert monitor.settings.calibrations.text == (
        f"loaded the calibration c.yaml: '{TASK}' (weak: SUCCESS is judged by its threshold all the same)"
    )
    assert not any(it.warning for it in reports)  # what stands is no news of a score


def test_one_that_cannot_tell_leaves_the_detector_to_the_monitor() -> None:
    """The monitor's own as it is now, not the one that `topreward calibrate` had."""
    sketch = ProbabilityMap(Kind.ANCHORS, (-2.0, 2.0), (0.0, 1.0))
    learnt, had = (Side(calibration(TASK, at).success, 2, 0, 0) for at in (-1.0, -0.7))
    few = Comparison(learnt, had, Finding.TOO_FEW)
    weak = calibration(
        TASK, -0.7, probability=sketch, successes=2, failures=2, comparison=few, nominal_duration=4.0
    )
    monitor = TaskMonitor(with_calibrations(weak), lambda: "e")
    monitor.set_task(TASK)
    said = watched(monitor, LOW_THEN_HIGH)
    assert success_at(said)[1:] == (False, SETTINGS.success.threshold)
    assert monitor.settings_in_force.progress.stall.nominal_duration == 4.0
    stands = {it.standing for it in said if isinstance(it, ProgressReport) and it.num_frames}
    who = "SUCCESS is judged by the parameters success_* of the monitor"
    assert stands == {f"{weak.weakness}; {who}"} and f"(weak: {who})" in monitor.settings.calibrations.text


@pytest.mark.parametrize(("picture", "holds"), [((48, 64), True), ((64, 48), False), (None, True)])
def test_frames_of_another_size(picture: tuple[int, int] | None, holds: bool) -> None:
    monitor = TaskMonitor(with_calibrations(calibration(TASK, -1.0, picture=picture)), lambda: "e")
    monitor.set_task(TASK)
    said = watched(monitor, LOW_THEN_HIGH)
    assert success_at(said)[1] is holds
    message = next(it.message for it in said if isinstance(it, ProgressReport) and it.num_frames)
    assert ("48x64" in message and "64x48" in message) is not holds, message


def test_calibrated_progress_is_a_probability() -> None:
    settings = with_calibrations(calibration(TASK, -1.0), progress_mode=ProgressMode.CALIBRATED)
    monitor = TaskMonitor(settings, lambda: "e")
    monitor.set_task(TASK)
    said = watched(monitor, [-3.0, -0.3132617])
    assert [it.progress for it in said if isinstance(it, ProgressReport)][-1] == pytest.approx(0.5)
    monitor.set_task("close it")  # which has none: progress is that of the static baseline
    said = watched(monitor, [-1.0], first=2)
    assert [it.progress for it in said if isinstance(it, ProgressReport)][-1] == pytest.approx(0.75)


def test_parameters_act_on_other_tasks_alone() -> None:
    settings = with_calibrations(calibration(TASK, -1.0))
    monitor = TaskMonitor(settings, lambda: "e")
    monitor.set_task(TASK)
    watched(monitor, LOW_THEN_HIGH[:3])
    monitor.settings = replace(settings, success=replace(settings.success, threshold=-0.01))
    assert monitor.settings_in_force.success.threshold == -1.0
    assert success_at(watched(monitor, LOW_THEN_HIGH[3:], first=3))[0] == 2.0


def test_differences_of_setups() -> None:
    here = setup(model="/folder", sample_rate=4.0, cameras=("wrist",))
    assert setup().differences(here) == [("sample_rate", 2.0, 4.0)]  # one revision; videos name no camera
    assert setup(cameras=("front",)).differences(here)[-1] == ("cameras", ("front",), ("wrist",))
    assert [name for name, _, _ in setup(model="a", revision="b").differences(setup())] == [
        "model",
        "revision",
    ]


def test_spellings_of_one_instruction_are_one_task() -> None:
    """A file with two of them is refused by its own reader."""
    other = calibration("close it", -0.3)
    there = Calibrations(setup(), (calibration("Open it", -2.0), other), "c.yaml")
    made = there.with_tasks([calibration("open it.", -1.0), calibration("OPEN  it", -0.5)])
    assert [(it.task, it.success.threshold) for it in made.tasks] == [("close it", -0.3), ("OPEN  it", -0.5)]
    clean = there.with_tasks([calibration("open it.", -1.0), calibration("OPEN it", -0.5)])
    assert from_mapping(to_mapping(clean), "c.yaml").of("open it") == clean.tasks[1]


def test_a_stop_is_a_failure_by_the_band_of_the_present_mode() -> None:
    seconds = tuple(k / 2 for k in range(20))
    low = ConformalBand(seconds, tuple(0.0 if s < 3.0 else 0.5 for s in seconds), successes=19)
    task = calibration(TASK, -1.0, bands={"static_baseline": low}, nominal_duration=6.0)
    for mode, fails in ((ProgressMode.STATIC_BASELINE, True), (ProgressMode.RAW_PROBABILITY, False)):
        monitor = TaskMonitor(with_calibrations(task, progress_mode=mode), lambda: "e")
        monitor.set_task(TASK)
        said = watched(monitor, [-3.5] * 12)
        kinds = [it.type for it in said if isinstance(it, Event)]
        assert (EventType.FAILURE in kinds) is fails
    assert monitor.settings_in_force.progress.stall.nominal_duration == 6.0


def test_stamps_that_were_wrong_do_not_bring_a_calibration_back() -> None:
    monitor = TaskMonitor(with_calibrations(calibration(TASK, -1.0, picture=(9, 9))), lambda: "e")
    monitor.set_task(TASK)
    watched(monitor, [-3.0])
    said = watched(monitor, LOW_THEN_HIGH, first=10**6)  # the first stamp was wrong
    reports = [it for it in said if isinstance(it, ProgressReport) and it.num_frames]
    assert reports and not any(it.calibrated for it in reports)
    assert all("does not hold here" in it.message for it in reports)


def test_a_file_that_makes_few_episodes_certain_is_not_believed() -> None:
    steep = ProbabilityMap(Kind.ANCHORS, (-3.18, -3.08), (0.0, 1.0))
    sketch = calibration(TASK, -1.0, probability=steep, successes=2, failures=3)
    (read,) = from_mapping(to_mapping(Calibrations(setup(), (sketch,))), "c.yaml").tasks
    assert [read.probability.of(it) for it in (-9.0, 0.0)] == pytest.approx([1 / 8, 5 / 6])
