"""Instructions, services, parameters and lifecycle of a running monitor."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterDescriptor, ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from topreward_ros.msg import TaskEvent, TaskProgress, TaskReward
from topreward_ros.srv import GetProgress, SetTask

from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes import qos

START = 1_700_000_000


def show(robot, second: int, expect_score: bool = True) -> None:
    message = Image(width=64, height=48, step=192, encoding="rgb8", data=bytes(64 * 48 * 3))
    message.header.stamp = Time(sec=START + second)
    robot.show(message, expect_score)


def begun(robot) -> dict[str, int]:
    """The second in which each episode began."""
    events = [event for event in robot.events if event.type == TaskEvent.EPISODE_STARTED]
    return {event.episode_id: event.header.stamp.sec for event in events}


def change_state(robot, transition: int) -> bool:
    request = Transition(id=transition)
    return robot.call(ChangeState, "monitor/change_state", transition=request).success


def state_of(robot) -> str:
    return robot.call(GetState, "monitor/get_state").current_state.label


@pytest.fixture(scope="module")
def running(shared_robot):
    shared_robot.start_monitor(sample_rate=2.0, stale_timeout=60.0, heartbeat_rate=5.0)
    return shared_robot


@pytest.fixture
def idle(running):
    """The shared monitor without an instruction, with an empty record."""
    running.call(SetBool, "monitor/enable", data=True)
    running.call(SetTask, "monitor/set_task", instruction="")
    running.settle()
    running.forget()
    return running


def test_idle_is_a_heartbeat_without_numbers(idle) -> None:
    show(idle, 0, expect_score=False)
    idle.until(lambda: len(idle.progress) >= 3, "heartbeats")
    newest = idle.progress[-1]
    assert newest.state == TaskProgress.IDLE and newest.episode_id == "" and newest.num_frames == 0
    assert math.isnan(newest.progress) and math.isnan(newest.log_prob)
    assert idle.events == [] and idle.rewards == []


def test_set_task_names_the_episode(idle) -> None:
    response = idle.call(SetTask, "monitor/set_task", instruction="fold the towel", episode_id="take-7")
    assert response.success and response.episode_id == "take-7"
    idle.until(lambda: idle.states[-1].state == TaskProgress.WAITING_FOR_IMAGES, "it waits")
    show(idle, 0)
    assert idle.scored()[0].episode_id == "take-7" and idle.scored()[0].instruction == "fold the towel"
    again = idle.call(SetTask, "monitor/set_task", instruction="fold the towel")
    assert again.episode_id not in ("", "take-7")
    idle.until(lambda: TaskEvent.EPISODE_ENDED in idle.event_types(), "the same task again is a new episode")
    idle.until(lambda: idle.rewards[-1].truncated, "its last reward says so")


def test_what_cannot_be_seen_in_an_instruction_does_not_count(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    idle.say("\ufeffstack\u00a0the cup\u200b\r\n")  # the same task again
    show(idle, 1)
    assert [m.instruction for m in idle.scored()] == ["stack the cup"] * 2
    response = idle.call(SetTask, "monitor/set_task", instruction="\ufefffold  the\ttowel\n")
    assert response.success
    show(idle, 2)
    assert idle.scored()[-1].instruction == "fold the towel"


def test_an_instruction_that_was_no_utf8_is_refused_and_the_task_stays(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    response = idle.call(SetTask, "monitor/set_task", instruction="plier le caf\ufffd")
    assert not response.success and "is not UTF-8" in response.message
    idle.say("plier le caf\ufffd")
    idle.until(lambda: "task_instruction is not UTF-8" in idle.said(idle.processes[0]), "the log says it")
    show(idle, 1)
    assert [m.instruction for m in idle.scored()] == ["stack the cup"] * 2


def test_instruction_topic_starts_once_however_often_it_is_said(idle) -> None:
    for _ in range(3):
        idle.say("stack the cup")
    show(idle, 0)
    idle.say("stack the cup")
    show(idle, 1)
    assert idle.event_types() == [TaskEvent.EPISODE_STARTED]
    idle.say("fold the towel")
    show(idle, 2)
    assert [m.instruction for m in idle.scored()] == ["stack the cup", "stack the cup", "fold the towel"]
    idle.say("")
    idle.until(lambda: idle.states[-1].state == TaskProgress.IDLE, "empty means idle")


def test_the_parameter_says_the_task_whoever_set_it(idle) -> None:
    """So that `ros2 param load` of what `ros2 param dump` wrote ends no episode."""

    def parameter() -> str:
        return idle.call(GetParameters, "monitor/get_parameters", names=["task"]).values[0].string_value

    idle.say("stack the  cup")
    show(idle, 0)
    assert parameter() == "stack the cup"
    assert idle.set_parameter("task", parameter())[0] and idle.set_parameter("task", " stack the\tcup")[0]
    show(idle, 1)
    assert idle.event_types() == [TaskEvent.EPISODE_STARTED], "the same task from three sides"
    idle.call(SetTask, "monitor/set_task", instruction="fold the towel", episode_id="take-9")
    show(idle, 2)
    assert parameter() == "fold the towel"
    assert idle.set_parameter("task", parameter())[0]
    idle.say("fold the towel")
    show(idle, 3)
    assert [m.episode_id for m in idle.scored()[2:]] == ["take-9", "take-9"]
    assert idle.set_parameter("task", "stack the cup")[0]
    show(idle, 4)
    assert idle.scored()[-1].instruction == "stack the cup"


def test_a_text_that_is_too_long_is_refused_whichever_way_it_comes(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    text = "stack the cup " * 10_000
    said = "139,999 characters: at most 2,000 are taken"
    successful, reason = idle.set_parameter("task", text)
    assert not successful and said in reason and len(reason) < 500
    response = idle.call(SetTask, "monitor/set_task", instruction=text)
    assert not response.success and said in response.message
    idle.say(text)
    idle.until(
        lambda: f"the text on task_instruction has {said}" in idle.said(idle.processes[0]), "it is said"
    )
    show(idle, 1)
    assert idle.event_types() == [TaskEvent.EPISODE_STARTED] and len(idle.scored()) == 2


def test_a_score_that_is_late_never_reaches_the_next_episode(idle) -> None:
    """The task changes while the last frame of the old one is still being scored."""
    publisher = idle.publisher(String, "task_instruction", qos.instruction_volatile())
    for k in range(30):
        publisher.publish(String(data=f"task {k}"))
        idle.until(lambda k=k: idle.progress and idle.progress[-1].instruction == f"task {k}", "it is taken")
        message = Image(width=64, height=48, step=192, encoding="rgb8", data=bytes(64 * 48 * 3))
        message.header.stamp = Time(sec=START + k)
        idle.camera.publish(message)
        idle.until(lambda k=k: START + k in begun(idle).values(), "the episode has begun")
    idle.settle()
    assert len(begun(idle)) == 30
    for message in idle.scored():
        assert begun(idle).get(message.episode_id) == message.header.stamp.sec, "a score in a foreign episode"
    idle.node.destroy_publisher(publisher)


def test_reset_begins_anew(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    show(idle, 1)
    assert idle.call(Trigger, "monitor/reset").success
    show(idle, 2)
    assert [m.num_frames for m in idle.scored()] == [1, 2, 1]
    assert idle.event_types()[1:3] == [TaskEvent.ABORTED, TaskEvent.EPISODE_ENDED]
    assert [r.step for r in idle.rewards] == [0, 1, 2, 0]


def test_reset_without_a_task_says_that_no_episode_began(idle) -> None:
    answer = idle.call(Trigger, "monitor/reset")
    assert not answer.success, "whoever waits for the episode would wait for ever"
    assert "no instruction yet, so no episode" in answer.message and "/monitor/set_task" in answer.message


def test_disable_stops_scoring_and_enable_goes_on(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    assert idle.call(SetBool, "monitor/enable", data=False).success
    show(idle, 1, expect_score=False)
    assert idle.call(SetBool, "monitor/enable", data=True).success
    show(idle, 2)
    assert idle.scored()[-1].instruction == "stack the cup"


def test_a_task_for_a_disabled_monitor_is_refused_with_the_mend(idle) -> None:
    idle.call(SetBool, "monitor/enable", data=False)
    for response in (
        idle.call(SetTask, "monitor/set_task", instruction="fold the towel", episode_id="take-8"),
        idle.call(Trigger, "monitor/reset"),
    ):
        assert not response.success and "/monitor/enable" in response.message


def test_the_latched_state_follows_the_task(idle) -> None:
    for task in ("stack the cup", "fold the towel"):
        idle.call(SetTask, "monitor/set_task", instruction=task)
    late: list[TaskProgress] = []
    subscription = idle.node.create_subscription(TaskProgress, "task_state", late.append, qos.latched())
    idle.until(lambda: bool(late), "a late subscriber is told the state")
    assert late[0].instruction == "fold the towel" and late[0].state == TaskProgress.WAITING_FOR_IMAGES
    idle.node.destroy_subscription(subscription)


def test_shutting_down_while_active_ends_the_episode(robot) -> None:
    process = robot.start_monitor(task="stack the cup")
    show(robot, 0)
    assert change_state(robot, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    robot.until(lambda: len(robot.events) == 3, "the episode ends")
    assert robot.event_types()[1:] == [TaskEvent.ABORTED, TaskEvent.EPISODE_ENDED]
    robot.until(lambda: robot.rewards[-1].truncated, "its last reward says so")
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)


def test_commands_to_the_terminal_do_not_reach_the_log(idle) -> None:
    idle.say("stack \x1b[2J the cup")
    show(idle, 0)
    assert idle.scored()[0].instruction == "stack [2J the cup"
    idle.until(lambda: "stack [2J the cup" in idle.said(idle.processes[0]), "the log says it")
    assert "\x1b[2J" not in idle.said(idle.processes[0])


def test_get_progress_gives_the_newest(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    answer = idle.call(GetProgress, "monitor/get_progress").progress
    newest = idle.scored()[-1]
    assert (answer.log_prob, answer.episode_id, answer.num_frames) == (newest.log_prob, newest.episode_id, 1)


def test_the_heartbeat_repeats_the_score_with_growing_latency(idle) -> None:
    idle.say("stack the cup")
    show(idle, 0)
    count = len(idle.progress)
    idle.until(lambda: len(idle.progress) >= count + 3, "heartbeats")
    latencies = [m.latency.sec + m.latency.nanosec / 1e9 for m in idle.progress[-3:]]
    assert latencies == sorted(set(latencies))
    assert {(m.log_prob, m.header.stamp.sec) for m in idle.progress[-3:]} == {
        (idle.scored()[0].log_prob, START)
    }
    assert len(idle.rewards) == 1  # a heartbeat is not a reward


def test_a_clock_that_is_absent_or_stands_gives_no_latency_and_stamps_of_1970_are_named(robot) -> None:
    process = robot.start(
        "monitor",
        task="stack the cup",
        use_sim_time=True,
        heartbeat_rate=5.0,
        diagnostics_rate=10.0,
        stale_timeout=60.0,
    )
    robot.until(lambda: bool(robot.infos), "it is active")
    robot.until(lambda: robot.camera.get_subscription_count() > 0, "it subscribes")
    robot.introduce("monitor")
    statuses: list[DiagnosticStatus] = []
    robot.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: statuses.extend(m.status), 10)

    def warned(text: str) -> bool:
        return any(s.level == DiagnosticStatus.WARN and text in s.message for s in statuses)

    def latency() -> float:
        newest = robot.progress[-1].latency
        return newest.sec + newest.nanosec / 1e9

    show(robot, 0)
    assert latency() == -1.0, "no time yet"
    clock = robot.publisher(Clock, "/clock", 10)
    clock.publish(Clock(clock=Time(sec=START + 3)))
    robot.until(lambda: latency() == 3.0, "the clock runs")
    robot.until(lambda: latency() == -1.0, "the clock stands")
    robot.until(lambda: "the time on /clock stands still" in robot.said(process), "the log says it")
    clock.publish(Clock(clock=Time(sec=START + 7200)))
    robot.until(lambda: latency() == 7200.0, "the clock runs again")
    robot.until(lambda: "at 2023-11-14 22:13:20 UTC" in robot.said(process), "the log names the stamps")
    robot.until(lambda: warned("s in the past, at 2023-11-14 22:13:20 UTC"), "and so do the diagnostics")
    clock.publish(Clock(clock=Time(sec=START - 7200)))
    robot.until(lambda: "lie 7200.0 s in the future" in robot.said(process), "and those of tomorrow")
    robot.until(lambda: warned("lie 7200.0 s in the future"), "and so do the diagnostics")
    assert robot.said(process).count("s in the past, at") == 1


def test_task_parameter_and_live_parameters(idle) -> None:
    assert idle.set_parameter("task", "open the drawer") == (True, "")
    show(idle, 0)
    assert idle.scored()[0].instruction == "open the drawer"
    infos = len(idle.infos)
    assert idle.set_parameter("success_threshold", -3.5)[0]
    idle.until(lambda: len(idle.infos) > infos, "~/info says the new threshold")
    assert idle.infos[-1].success_threshold == -3.5
    process = idle.processes[0]
    was = monitor_defaults()["success_threshold"]
    idle.until(
        lambda: f"parameter success_threshold is -3.5 now, and was {was}" in idle.said(process), "the log"
    )
    assert idle.set_parameter("reward_type", "log_prob")[0]
    idle.call(Trigger, "monitor/reset")
    show(idle, 1)
    assert idle.rewards[-1].type == TaskReward.LOG_PROB
    assert idle.rewards[-1].reward == idle.scored()[-1].log_prob
    assert idle.set_parameter("reward_type", "progress_delta")[0]
    assert idle.set_parameter("success_threshold", monitor_defaults()["success_threshold"])[0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("success_threshold", 0.5, "success_threshold"),
        ("reward_type", "cookies", "one of log_prob, progress, progress_delta, advantage_weight"),
        ("success_threshold", "high", "Wrong parameter type"),
        ("model", "elsewhere", "read-only"),
        ("sample_rate", 5.0, "read-only"),
    ],
)
def test_a_refused_parameter_says_why(idle, name: str, value, said: str) -> None:
    successful, reason = idle.set_parameter(name, value)
    assert not successful and said in reason


def test_every_parameter_is_described(idle) -> None:
    names = list(monitor_defaults())
    descriptors: list[ParameterDescriptor] = idle.call(
        DescribeParameters, "monitor/describe_parameters", names=names
    ).descriptors
    assert [d.name for d in descriptors] == names
    assert all(d.description for d in descriptors)
    numeric = (ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_INTEGER)
    assert all(d.floating_point_range or d.integer_range for d in descriptors if d.type in numeric)


def test_latched_instruction_from_before_the_start(robot) -> None:
    latched = robot.node.create_publisher(String, "task_instruction", qos.latched())
    latched.publish(String(data="stack the cup"))
    robot.start_monitor()
    robot.until(lambda: robot.progress and robot.progress[-1].instruction == "stack the cup", "it was heard")
    latched.publish(String(data="fold the towel"))
    robot.until(lambda: robot.progress[-1].instruction == "fold the towel", "and so is the next")
    robot.spin(0.5)
    episodes = {m.episode_id for m in robot.progress + robot.states if m.instruction == "fold the towel"}
    assert len(episodes) == 1, "heard twice, taken twice"


@pytest.mark.installed
def test_the_full_lifecycle_twice(robot) -> None:
    process = robot.start("monitor", autostart=False, task="stack the cup")
    assert state_of(robot) == "unconfigured"
    assert robot.camera.get_subscription_count() == 0
    sequences: list[int] = []
    for _ in range(2):
        assert change_state(robot, Transition.TRANSITION_CONFIGURE), robot.said(process)
        assert state_of(robot) == "inactive"
        robot.until(lambda: robot.camera.get_subscription_count() == 0, "an inactive one has no camera")
        robot.forget()
        show(robot, 0, expect_score=False)
        assert not robot.call(SetTask, "monitor/set_task", instruction="x").success
        assert change_state(robot, Transition.TRANSITION_ACTIVATE)
        robot.until(lambda: robot.camera.get_subscription_count() == 1, "an active one has")
        show(robot, 1)
        assert change_state(robot, Transition.TRANSITION_DEACTIVATE)
        robot.settle()
        robot.until(lambda: len(robot.events) >= 3, "the episode ends")
        assert robot.event_types() == [TaskEvent.EPISODE_STARTED, TaskEvent.ABORTED, TaskEvent.EPISODE_ENDED]
        sequences += [event.sequence for event in robot.events]
        inactive = robot.call(GetProgress, "monitor/get_progress").progress
        assert inactive.state == TaskProgress.UNKNOWN
        robot.until(lambda: robot.states[-1].state == TaskProgress.UNKNOWN, "task_state says the same")
        show(robot, 2, expect_score=False)
        assert change_state(robot, Transition.TRANSITION_ACTIVATE)
        robot.until(lambda: robot.camera.get_subscription_count() == 1, "an active one has")
        robot.forget()
        show(robot, 3)
        assert np.isfinite(robot.scored()[-1].log_prob)
        assert change_state(robot, Transition.TRANSITION_DEACTIVATE)
        robot.until(lambda: len(robot.events) >= 3, "the episode ends")
        sequences += [event.sequence for event in robot.events]
        assert change_state(robot, Transition.TRANSITION_CLEANUP)
        robot.until(lambda: robot.camera.get_subscription_count() == 0, "cleanup lets the camera go")
    assert sequences == list(range(1, len(sequences) + 1)), "events are counted through everything"
    assert change_state(robot, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)


def test_configure_fails_on_a_bad_model_or_topic_and_nothing_is_half_started(robot) -> None:
    for parameters, said in (
        ({"model": str(robot.folder)}, "config.json"),
        ({"image_topics": ["image", "bad topic!"], "camera_layout": "tile"}, "bad topic!"),
        ({"model": str(_model_of_nan(robot.folder))}, "not finite"),
    ):
        process = robot.start("monitor", autostart=False, **parameters)
        assert not change_state(robot, Transition.TRANSITION_CONFIGURE)
        assert state_of(robot) == "unconfigured"
        assert "cannot configure" in robot.said(process) and said in robot.said(process)
        assert robot.camera.get_subscription_count() == 0
        show(robot, 0, expect_score=False)
        assert robot.stop(process) < 3.0 and process.returncode == 0, robot.said(process)


def _model_of_nan(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint

    made = make_random_checkpoint(folder / "nan")
    weights = load_file(made / "model.safetensors")
    weights["model.language_model.norm.weight"].fill_(math.nan)
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    return made


def test_a_picture_that_no_model_takes_is_an_error_per_tick_and_never_progress(robot) -> None:
    robot.start_monitor(task="open the drawer", sample_rate=2.0, heartbeat_rate=5.0)
    for second in (0, 1, 3):
        message = Image(width=1000, height=1, step=3000, encoding="rgb8", data=bytes(3000))
        message.header.stamp = Time(sec=START + second)
        before = robot.event_types().count(TaskEvent.SCORER_ERROR)
        robot.camera.publish(message)
        robot.until(
            lambda before=before: robot.event_types().count(TaskEvent.SCORER_ERROR) > before,
            "the error is told",
        )
        error = robot.events[-1]
        assert error.header.stamp.sec == START + second
        assert f"({second:.1f} s into the episode, " in error.message
        assert "1000 x 1 pixels" in error.message and "crop it" in error.message
        assert math.isnan(error.log_prob) and math.isnan(error.progress)
    robot.spin(0.5)
    assert robot.progress, "the heartbeat goes on"
    assert not robot.scored() and not robot.rewards
    assert all(math.isnan(message.progress) and math.isnan(message.log_prob) for message in robot.progress)
    assert all(math.isnan(message.data) for message in robot.progress_values)
    assert robot.call(GetProgress, "monitor/get_progress").progress.state == TaskProgress.RUNNING


def test_a_live_parameter_that_is_set_before_configure_acts(robot) -> None:
    robot.start("monitor", autostart=False, sample_rate=10.0)
    robot.introduce("monitor")
    assert robot.set_parameter("success_threshold", -3.5)[0]
    assert robot.set_parameter("stale_timeout", 77.0)[0]
    assert change_state(robot, Transition.TRANSITION_CONFIGURE)
    assert change_state(robot, Transition.TRANSITION_ACTIVATE)
    robot.until(lambda: bool(robot.infos), "the monitor says what it goes by")
    assert (robot.infos[-1].success_threshold, robot.infos[-1].stale_timeout) == (-3.5, 77.0)


def test_a_parameter_file_for_another_node_is_named(robot) -> None:
    file = robot.folder / "mine.yaml"
    file.write_text("monitor: {ros__parameters: {task: stack the cup}}")
    process = robot.run(
        *("-m", "topreward_ros.nodes.monitor", "--ros-args", "-r", "__ns:=/arm", "-p", "model:=/nowhere"),
        *("--params-file", str(file)),
    )
    assert process.wait(timeout=60) == 1
    said = (
        f"{file} has no parameters for /arm/monitor: it has some for /monitor; name the section /arm/monitor"
    )
    assert robot.said(process).count(said) == 1, robot.said(process)


def test_a_misspelt_parameter_is_named_once_with_the_one_that_was_meant(robot) -> None:
    process = robot.start_monitor(
        sucess_threshold=-1.0,
        **{
            "qos_overrides./image.subscription.reliability": "reliable",
            "qos_overrides./imgae.subscription.reliability": "reliable",
            "exposure_of_the_lens": 3,
        },
    )
    robot.until(lambda: "qos_overrides./imgae" in robot.said(process), "it has looked")
    said = robot.said(process)
    assert (
        "parameter sucess_threshold is none of /monitor and changes nothing: did you mean success_threshold?"
        in said
    )
    assert "did you mean qos_overrides./image.subscription.reliability?" in said
    assert (
        "parameter exposure_of_the_lens is none of /monitor and changes nothing: is it another node's?"
        in said
    )
    assert said.count("changes nothing") == 3
