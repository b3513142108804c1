"""Play robot videos on a camera topic and let the monitor watch them.

``ros2 launch topreward_ros demo.launch.py``, and from another terminal ``ros2 topic echo /task_progress``
or ``topreward watch``. A robot that does its task, one that fails and one that does nothing, or a video of
your own. The launch ends by itself: a few seconds after the last video, so that the last scores arrive, or
as soon as the monitor ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from topreward_ros.core.launch_words import not_taken
from topreward_ros.defaults import DEMO_CLIPS, DEMO_TASK, DEMO_VIDEO, shared_file

NOT_GIVEN = ""

WAIT_FOR_MONITOR = 120.0  # [s] the monitor loads its model before it subscribes
AFTER_THE_VIDEO = 3.0  # [s] until the last scores have come

ARGUMENTS = (
    ("video", "video file or folder of images, together with task; not given: the three shipped ones"),
    ("task", "what the robot was told to do; given alone, it is asked of the first shipped video"),
    ("model", "'embedded', a Hugging Face hub id, the folder of a checkpoint, or the URL of a server"),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they start: the monitor, the player, and what ends them."""
    arguments = [
        DeclareLaunchArgument(name, default_value=NOT_GIVEN, description=description)
        for name, description in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_demonstration)])


def _demonstration(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    video, task, model = (context.launch_configurations[name] for name, _ in ARGUMENTS)
    source = PythonLaunchDescriptionSource(str(Path(__file__).with_name("monitor.launch.py")))
    of_monitor = [argument.name for argument in source.get_launch_description(context).get_launch_arguments()]
    ours = [name for name, _ in ARGUMENTS]
    mend = (
        "the demonstration is the same for all; start monitor.launch.py for it, and a camera or video_player"
    )
    instead = {name: mend for name in of_monitor if name not in ours}
    for text in not_taken(Path(__file__).name, sys.argv, context.launch_configurations, ours, instead):
        get_logger("launch").warning(text)
    if video and not task:
        raise ValueError(f"video:={video} without task:=...; say what the robot in it was told to do")
    if video or task:
        films = [(video or str(shared_file(DEMO_VIDEO)), f"playing {video or DEMO_VIDEO}")]
    else:
        films = [(str(shared_file(clip.video)), clip.caption) for clip in DEMO_CLIPS]
    monitor = IncludeLaunchDescription(
        source,
        launch_arguments={
            **dict.fromkeys(of_monitor, NOT_GIVEN),  # none that another launch file has set
            "task": task or DEMO_TASK,
            "model": model,
        }.items(),
    )
    return [
        RegisterEventHandler(OnProcessExit(target_action=_is("monitor"), on_exit=_after_monitor)),
        monitor,
        *_play(films),
    ]


def _play(films: list[tuple[str, str]]) -> list[LaunchDescriptionEntity]:
    """Start a player for the first of ``films`` (video, caption), and when it has ended one for the next."""
    (video, caption), *rest = films
    player = Node(
        package="topreward_ros",
        executable="video_player",
        parameters=[
            {
                "video": ParameterValue(video, value_type=str),
                "wait_for_subscriber": WAIT_FOR_MONITOR,
                "reset_service": "monitor/reset",
            }
        ],
        output="screen",
        emulate_tty=True,
    )

    def after(event: ProcessExited, _: LaunchContext) -> list[LaunchDescriptionEntity]:
        if event.returncode:
            return [Shutdown(reason=f"the video player ended with status {event.returncode}")]
        if rest:
            return _play(rest)
        return [TimerAction(period=AFTER_THE_VIDEO, actions=[Shutdown(reason="the last video has ended")])]

    return [
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=after)),
        LogInfo(msg=caption),
        player,
    ]


def _is(executable: str) -> Callable[[Action], bool]:
    return lambda action: isinstance(action, Node) and action.node_executable == executable


def _after_monitor(event: ProcessExited, context: LaunchContext) -> list[Action]:
    return [Shutdown(reason=f"the monitor ended with status {event.returncode}")]
