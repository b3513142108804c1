"""Record one bag per episode of a monitor: ``ros2 launch topreward_ros record.launch.py output:=episodes``.

No default stands here: an argument that is not given is left to `topreward record`. With recorder:=rosbag2 it
is `ros2 bag record` that records, one bag from start to end: it knows no episodes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.logging import get_logger
from launch_ros.actions import Node

from topreward_ros.core.launch_words import TRANSPORTS, TRUTHS, meant, not_taken, path_of, shell_words
from topreward_ros.defaults import large_image_environment

NOT_GIVEN = ""

OURS, ROSBAG2 = "topreward", "rosbag2"
#: What the monitor publishes and is told, relative to the namespace.
TOPICS = ("task_event", "task_progress", "task_reward", "task_state", "task_instruction", "monitor/info")

ARGUMENTS = (
    ("output", "folder of the bags; for rosbag2 the bag itself"),
    ("image_topic", "topic of the monitor's camera: recorded from the start, before the monitor names it"),
    ("image_transport", "which images are recorded where the camera has both: raw or compressed"),
    ("topics", "further topics, separated by spaces; rosbag2 needs those of further cameras as well"),
    ("exclude", "outcomes of episodes that are not kept, separated by spaces"),
    ("options", "further options of `topreward record` or of `ros2 bag record`, as in a shell"),
    ("recorder", "topreward (one bag per episode) or rosbag2 (one bag, by `ros2 bag record`)"),
    ("namespace", "ROS namespace of the monitor and of its relative topics"),
    ("use_sim_time", "take the time of messages from /clock: true or false"),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and the recorder, which is started with those that were given."""
    arguments = [
        DeclareLaunchArgument(name, default_value=NOT_GIVEN, description=description)
        for name, description in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_recorder)])


def _recorder(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {name: context.launch_configurations[name] for name, _ in ARGUMENTS}
    for text in not_taken(Path(__file__).name, sys.argv, context.launch_configurations, given):
        get_logger("launch").warning(text)
    given["output"] = path_of("output", given["output"])
    if given["image_transport"]:
        given["image_transport"] = meant("image_transport", given["image_transport"], TRANSPORTS)
    simulated: bool | None = None
    if given["use_sim_time"]:
        simulated = meant("use_sim_time", given["use_sim_time"], TRUTHS)
    environment = large_image_environment(context.environment)
    if given["recorder"] == ROSBAG2:
        if given["exclude"]:
            raise ValueError(f"exclude:={given['exclude']}: rosbag2 knows no episodes; leave it out")
        return [_rosbag2(given, bool(simulated), environment)]
    if given["recorder"] not in (NOT_GIVEN, OURS):
        raise ValueError(f"recorder:={given['recorder']} is none of {OURS}, {ROSBAG2}")
    return [
        Node(
            package="topreward_ros",
            executable="topreward",
            namespace=given["namespace"] or None,
            arguments=["record", *_options(given)],
            parameters=[] if simulated is None else [{"use_sim_time": simulated}],
            additional_env=environment,
            output="screen",
            emulate_tty=True,
        )
    ]


def _options(given: dict[str, str]) -> list[str]:
    options = []
    if given["output"]:
        options.append(f"--output={given['output']}")
    for name in ("image_topic", "image_transport"):
        if given[name]:
            options.append(f"--{name.replace('_', '-')}={given[name]}")
    for name in ("topics", "exclude"):
        if given[name]:
            options += [f"--{name}", *given[name].split()]
    return [*options, *shell_words("options", given["options"])]


def _rosbag2(given: dict[str, str], simulated: bool, environment: dict[str, str]) -> ExecuteProcess:
    namespace = f"/{given['namespace'].strip('/')}".rstrip("/")
    camera = given["image_topic"]
    if camera and given["image_transport"] == "compressed" and not camera.endswith("/compressed"):
        camera = f"{camera}/compressed"
    further = [*([camera] if camera else []), *given["topics"].split()]
    topics = [f"{namespace}/{topic}" for topic in TOPICS]
    topics += [topic if topic.startswith("/") else f"{namespace}/{topic}" for topic in further]
    command = ["ros2", "bag", "record", "--storage", "mcap"]
    command += ["--output", given["output"]] if given["output"] else []
    command += ["--use-sim-time"] if simulated else []
    return ExecuteProcess(
        cmd=[*command, *shell_words("options", given["options"]), "--topics", *topics],
        additional_env=environment,
        output="screen",
        emulate_tty=True,
    )
