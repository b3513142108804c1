"""The action ~/monitor_task of a running monitor, by an action client over DDS."""

from __future__ import annotations

import importlib.util
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration, Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.action import ActionClient
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from topreward_ros.action import MonitorTask
from topreward_ros.msg import TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.nodes import qos
from topreward_ros.offline.video import open_video

START = 1_700_000_000
RESULT = MonitorTask.Result
SUCCEEDED, ABORTED, CANCELED = (
    GoalStatus.STATUS_SUCCEEDED,
    GoalStatus.STATUS_ABORTED,
    GoalStatus.STATUS_CANCELED,
)

WATCHED = (TaskProgress.WAITING_FOR_IMAGES, TaskProgress.RUNNING)


class Client:
    """A behaviour tree's side of the action."""

    def __init__(self, robot: Any) -> None:
        self.robot = robot
        self.client = ActionClient(robot.node, MonitorTask, "monitor/monitor_task")
        robot.until(self.client.server_is_ready, "the action is there")
        robot.introduce("monitor")
        self.feedback: list[TaskProgress] = []

    def send(self, instruction: str = DEMO_TASK, **goal: Any) -> Any:
        """Send a goal; its handle, None where it was refused."""
        request = MonitorTask.Goal(instruction=instruction, **goal)
        sent = self.client.send_goal_async(
            request, feedback_callback=lambda message: self.feedback.append(message.feedback.progress)
        )
        self.robot.until(sent.done, "the goal is answered")
        handle = sent.result()
        if not handle.accepted:
            return None
        handle.answer = handle.get_result_async()
        return handle

    def result(self, handle: Any) -> tuple[int, MonitorTask.Result]:
        self.robot.until(handle.answer.done, "the goal has a result")
        answer = handle.answer.result()
        return answer.status, answer.result


@pytest.fixture
def client(shared_robot: Any) -> Iterator[Client]:
    if not shared_robot.processes:
        shared_robot.start_monitor(task=["open the drawer", "close it"], stale_timeout=1.0, success_dwell=1.0)
        assert shared_robot.states[-1].task == "open the drawer\nclose it"
    shared_robot.call(SetTask, "monitor/set_task", instruction="")
    shared_robot.settle()
    shared_robot.forget()
    client = Client(shared_robot)
    yield client
    client.client.destroy()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """What the demonstration's robot does, twice a second."""
    video = open_video(shared_file(DEMO_VIDEO), 0.0)
    step = round(video.info.rate / 2.0)
    return [read() for k, (_, read) in enumerate(video) if k % step == 0]


def message(picture: np.ndarray, half_seconds: int) -> Image:
    height, width, _ = picture.shape
    image = Image(width=width, height=height, step=3 * width, encoding="rgb8", data=picture.tobytes())
    image.header.stamp = Time(sec=START + half_seconds // 2, nanosec=half_seconds % 2 * 500_000_000)
    return image


def show(robot: Any, pictures: list[np.ndarray], begin: int = 0) -> int:
    """Show pictures, each as soon as the one before has a score, until the episode ends; when that was."""
    for k, picture in enumerate(pictures):
        before = len(robot.scored())
        robot.camera.publish(message(picture, begin + k))
        robot.until(
            lambda before=before: (
                len(robot.scored()) > before or TaskEvent.EPISODE_ENDED in robot.event_types()
            ),
            "the picture is scored",
        )
        if TaskEvent.EPISODE_ENDED in robot.event_types():
            return begin + k + 1
    return begin + len(pictures)


def the_task(robot: Any) -> str:
    """What the parameter says."""
    answer = robot.call(GetParameters, "monitor/get_parameters", names=["task"])
    return answer.values[0].string_value


def change_state(robot: Any, transition: int) -> None:
    answer = robot.call(ChangeState, "monitor/change_state", transition=Transition(id=transition))
    assert answer.success, transition


def test_a_goal_succeeds_by_the_threshold_that_it_brings(client: Client, pictures: list[np.ndarray]) -> None:
    robot = client.robot
    goal = client.send(f" {DEMO_TASK}\n", episode_id="pick", success_threshold=[-0.5])
    show(robot, pictures)
    status, result = client.result(goal)
    assert (status, result.error_code, result.error_msg) == (SUCCEEDED, RESULT.NONE, "")
    assert (result.episode_id, result.stage, result.stages) == ("pick", 1, 1)
    robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the episode ends")
    success = robot.events[1]
    assert (success.type, success.threshold) == (TaskEvent.SUCCESS, -0.5)
    newest = robot.scored()[-1]
    assert result.progress == newest.progress > 0.5 and result.elapsed == newest.elapsed
    scored = {seen.num_frames for seen in robot.scored()}
    assert {seen.num_frames for seen in client.feedback} == {0, *scored}, "feedback at each score"
    assert the_task(robot) == DEMO_TASK and robot.infos[-1].success_threshold == -0.5
    robot.call(Trigger, "monitor/reset")
    own = monitor_defaults()["success_threshold"]
    robot.until(lambda: robot.infos[-1].success_threshold == own, "the threshold is the monitor's again")


def test_a_goal_that_makes_no_sense_is_aborted_and_leaves_the_running_one_alone(client: Client) -> None:
    running = client.send(episode_id="runs")
    for wrong, said in (
        ({"instruction": " \n"}, "the goal's instruction is empty"),
        ({"instruction": "caf\ufffd"}, "not UTF-8"),
        ({"success_threshold": [0.5]}, "the goal's success_threshold = 0.5: must lie between -100 and 0"),
        ({"success_threshold": [math.nan]}, "must lie between"),
        ({"timeout": Duration(sec=-1)}, "the goal's timeout = -1.0: must lie between 0 and 86400"),
        ({"episode_id": "runs"}, "was given before"),
        ({"stage": 2}, "stage 2 of a task that has one stage"),
    ):
        status, result = client.result(client.send(**wrong))
        assert (status, result.error_code) == (ABORTED, RESULT.INVALID_GOAL) and said in result.error_msg
    assert not running.answer.done()
    cancel = running.cancel_goal_async()
    client.robot.until(cancel.done, "the cancellation is answered")
    status, result = client.result(running)
    assert (status, result.error_code, result.episode_id) == (CANCELED, RESULT.CANCELED, "runs")
    assert the_task(client.robot) == ""


def test_every_goal_of_a_burst_is_answered(client: Client) -> None:
    """More at once than ROS 2 keeps by default, sent while the monitor is held up."""
    robot, services = client.robot, ("goal_service", "result_service", "cancel_service")
    deep = {f"{service}_qos_profile": qos.requests() for service in services}
    sender = ActionClient(robot.node, MonitorTask, "monitor/monitor_task", **deep)
    robot.until(sender.server_is_ready, "the action is there for this one, too")
    robot.introduce("monitor")
    wish = MonitorTask.Goal(instruction=DEMO_TASK, timeout=Duration(sec=600))
    monitor = robot.processes[-1]

    def held_up(ask: Callable[[], Any]) -> list[Any]:
        """What is asked for 60 times is answered as often."""
        monitor.send_signal(signal.SIGSTOP)
        asked = [ask() for _ in range(60)]
        monitor.send_signal(signal.SIGCONT)
        robot.until(lambda: all(one.done() for one in asked), "all are answered")
        return [one.result() for one in asked]

    handles = held_up(lambda: sender.send_goal_async(wish))
    assert all(handle.accepted for handle in handles)
    preempted = iter(handles[:-1])
    results = held_up(lambda: next(preempted, handles[0]).get_result_async())
    assert {answer.result.error_code for answer in results} == {RESULT.PREEMPTED}
    held_up(handles[-1].cancel_goal_async)
    sender.destroy()


def test_whoever_sets_another_task_preempts_a_goal(client: Client) -> None:
    robot = client.robot
    takes_over = {
        "another goal": lambda: client.send("close the drawer"),
        "set_task": lambda: robot.call(SetTask, "monitor/set_task", instruction=DEMO_TASK),
        "the topic": lambda: robot.say("stack the cup"),
        "reset": lambda: robot.call(Trigger, "monitor/reset"),
    }
    for who, take_over in takes_over.items():
        goal = client.send()
        robot.say(DEMO_TASK)  # the same text again is no other task
        assert not goal.answer.done(), who
        take_over()
        status, result = client.result(goal)
        assert (status, result.error_code) == (ABORTED, RESULT.PREEMPTED), who
        assert result.error_msg and math.isnan(result.progress)
    goal = client.send()
    robot.call(SetBool, "monitor/enable", data=False)
    assert client.result(goal)[1].error_code == RESULT.NOT_WATCHING
    assert client.send() is None, "refused while disabled"
    robot.call(SetBool, "monitor/enable", data=True)


def test_the_time_of_a_goal_goes_on_where_its_episode_goes_on_as_another(
    client: Client, pictures: list[np.ndarray]
) -> None:
    robot = client.robot
    goal = client.send(episode_id="place", timeout=Duration(sec=4))
    show(robot, [pictures[0]] * 5)
    for k in range(4):  # stamps go back
        robot.camera.publish(message(pictures[0], k - 100))
        robot.settle()
    robot.until(lambda: robot.scored()[-1].num_frames == 2, "the third and the fourth are scored")
    robot.forget()
    show(robot, [pictures[0]] * 20, -96)
    status, result = client.result(goal)
    assert (status, result.error_code, result.episode_id) == (ABORTED, RESULT.TASK_TIMEOUT, "place.2")
    assert "the timeout of this task = 4 s, by the stamps" in result.error_msg
    assert 4.0 <= result.elapsed.sec + result.elapsed.nanosec / 1e9 <= 4.5, "up to the timeout"
    assert the_task(robot) == DEMO_TASK


def test_the_stages_of_a_goal_are_watched_one_after_the_other(
    client: Client, pictures: list[np.ndarray]
) -> None:
    robot = client.robot
    goal = client.send(f"{DEMO_TASK}\n{DEMO_TASK}\n{DEMO_TASK}", episode_id="tidy", stage=2)
    half_seconds = 0
    for _ in range(2):
        half_seconds = show(robot, pictures, half_seconds)
        robot.until(lambda: TaskEvent.EPISODE_ENDED in robot.event_types(), "the stage ends")
        seen, robot.events[:] = list(robot.events), []
    status, result = client.result(goal)
    assert (status, result.episode_id, result.stage, result.stages) == (SUCCEEDED, "tidy.2", 3, 3)
    assert [event.type for event in seen] == [
        TaskEvent.EPISODE_STARTED,
        TaskEvent.SUCCESS,
        TaskEvent.EPISODE_ENDED,
    ]
    newest = robot.scored()[-1]
    assert newest.progress == pytest.approx((2 + newest.stage_progress) / 3, abs=1e-6)
    assert (newest.instruction, the_task(robot)) == (DEMO_TASK, newest.task)


def test_the_parameter_takes_a_list_and_stays_the_truth(client: Client) -> None:
    robot = client.robot

    def set_task(**value: Any) -> str:
        typed = ParameterMessage(name="task", value=ParameterValue(**value))
        return robot.call(SetParameters, "monitor/set_parameters", parameters=[typed]).results[0].reason

    names = ["open the drawer", "close it"]
    assert not set_task(type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=names)
    robot.until(lambda: robot.states and robot.states[-1].stages == 2, "it is a task in stages")
    first = robot.states[-1].episode_id
    robot.say("open the drawer\nclose it\n")
    assert robot.states[-1].episode_id == first, "the same in lines is the same task"
    robot.say("close it")
    assert the_task(robot) == "close it"
    for wrong in ({"type": 0}, {"type": 2, "integer_value": 5}, {"type": 6, "bool_array_value": [True]}):
        assert "takes text or a list of texts" in set_task(**wrong)
    assert the_task(robot) == "close it"


def test_a_goal_without_a_time_limit_ends_when_no_image_comes(client: Client) -> None:
    status, result = client.result(client.send())
    assert (status, result.error_code, result.stage) == (ABORTED, RESULT.NO_IMAGES, 1)
    assert "no image that can be used for more than" in result.error_msg and the_task(client.robot) == ""


@pytest.fixture(scope="module")
def example() -> Any:
    pytest.importorskip("py_trees")
    path = Path(__file__).parents[2] / "examples" / "behaviour_tree.py"
    spec = importlib.util.spec_from_file_location("behaviour_tree", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_leaf_of_a_behaviour_tree_tries_again_where_it_failed_and_cancels_what_is_interrupted(
    client: Client, pictures: list[np.ndarray], example: Any
) -> None:
    import py_trees

    robot = client.robot
    leaf = example.MonitorTaskLeaf("watch", f"{DEMO_TASK}\n{DEMO_TASK}", 20.0)
    tree = py_trees.trees.BehaviourTree(py_trees.decorators.Retry("attempts", leaf, 2))
    tree.setup(node=robot.node)

    def tick() -> py_trees.common.Status:
        tree.tick()
        return tree.root.status

    def watches(stage: int) -> bool:
        tick()
        newest = robot.progress[-1] if robot.progress else TaskProgress()
        return newest.stage == stage and newest.state in WATCHED

    robot.until(lambda: watches(1), "the first stage is watched")
    half_seconds = show(robot, pictures)
    robot.until(lambda: watches(2), "the second stage is watched")
    robot.forget()
    half_seconds = show(robot, [pictures[0]] * 40, half_seconds)  # nothing is done
    robot.until(lambda: tick() is not None and leaf.result is not None, "the goal has a result")
    assert (leaf.result.error_code, leaf.result.stage) == (RESULT.TASK_TIMEOUT, 2)
    robot.forget()
    robot.until(lambda: watches(2), "the second stage is tried again")
    show(robot, pictures, half_seconds)
    robot.until(lambda: tick() is py_trees.common.Status.SUCCESS, "the tree has succeeded")
    assert leaf.result.error_code == RESULT.NONE and leaf.feedback_message == "done"

    robot.forget()
    robot.until(lambda: watches(1), "the whole is begun anew")
    tree.root.stop(py_trees.common.Status.INVALID)
    robot.until(lambda: the_task(robot) == "", "the goal is canceled")
    tree.shutdown()


def test_transitions_and_a_signal_end_a_goal_and_its_result_arrives(client: Client) -> None:
    robot = client.robot
    goal = client.send()
    change_state(robot, Transition.TRANSITION_DEACTIVATE)
    status, result = client.result(goal)
    assert (status, result.error_code) == (ABORTED, RESULT.NOT_WATCHING) and "deactivated" in result.error_msg
    assert client.send() is None, "refused while inactive"
    change_state(robot, Transition.TRANSITION_ACTIVATE)
    goal = client.send()
    change_state(robot, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert "shut down" in client.result(goal)[1].error_msg
    assert robot.stop(robot.processes[-1]) < 3.0

    robot.infos.clear()
    process = robot.start_monitor()
    robot.until(client.client.server_is_ready, "the action is there")
    goal = client.send()
    assert robot.stop(process, signal.SIGTERM) < 3.0 and process.returncode == 0
    status, result = client.result(goal)
    assert (status, result.error_code) == (ABORTED, RESULT.NOT_WATCHING) and "SIGTERM" in result.error_msg
    assert "Traceback" not in robot.said(process) + robot.said(robot.processes[0])
