"""Start the monitor: ``ros2 launch topreward_ros monitor.launch.py image_topic:=/camera/image_raw``.

``namespaces:="arm1 arm2"`` starts several in one process.

No default stands here. An argument that is not given leaves the parameter to ``params_file`` or, without
one, to config/monitor.yaml, which the node reads by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, List  # noqa: UP035 (launch knows its list types by identity)

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from topreward_ros.core.launch_words import LOG_LEVELS, TRANSPORTS, TRUTHS, meant, not_taken, path_of
from topreward_ros.defaults import large_image_environment

NOT_GIVEN = ""

# Name, description, and the words that may be given, in any case, with what they mean; none listed: any text.
ARGUMENTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    (
        "image_topic",
        "topic of the camera, raw or compressed; for several cameras set image_topics in params_file",
        {},
    ),
    (
        "image_transport",
        "which images are read where the camera has both: sensor_msgs/Image or CompressedImage",
        TRANSPORTS,
    ),
    ("task", "the task, in natural language, a stage per line; the monitor idles until it has one", {}),
    ("model", "'embedded', a Hugging Face hub id, the folder of a checkpoint, or the URL of a server", {}),
    ("device", "torch device of the model: auto, cpu, cuda, cuda:1 ...", {}),
    ("namespace", "ROS namespace of the monitor and of its relative topics", {}),
    (
        "namespaces",
        'several, as in "arm1 arm2": a monitor in each, all in one process, on one copy of the model',
        {},
    ),
    (
        "calibration",
        "file that `topreward calibrate` wrote: its tasks are judged by what it says",
        {},
    ),
    (
        "params_file",
        "YAML file with parameters; the rest is as in config/monitor.yaml",
        {},
    ),
    ("use_sim_time", "take the time from /clock: true or false", TRUTHS),
    ("autostart", "false waits for a lifecycle manager to configure and activate", TRUTHS),
    ("log_level", "least severity that is logged: debug, info, warn, error or fatal", LOG_LEVELS),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and the monitor, which is started with those that were given."""
    return LaunchDescription([*map(_declare, ARGUMENTS), OpaqueFunction(function=_monitor)])


def _declare(argument: tuple[str, str, Mapping[str, Any]]) -> DeclareLaunchArgument:
    name, description, _ = argument
    return DeclareLaunchArgument(name, default_value=NOT_GIVEN, description=description)


def _monitor(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    for text in not_taken(
        Path(__file__).name, sys.argv, context.launch_configurations, [name for name, _, _ in ARGUMENTS]
    ):
        get_logger("launch").warning(text)
    given: dict[str, Any] = {}
    for name, _, words in ARGUMENTS:
        if (value := context.launch_configurations[name]) != NOT_GIVEN:
            given[name] = meant(name, value, words) if words else value
    log_level = ["--ros-args", "--log-level", given["log_level"]] if "log_level" in given else []
    return [
        Node(
            package="topreward_ros",
            executable="monitors" if "namespaces" in given else "monitor",
            namespace=given.get("namespace"),
            parameters=[*_params_file(given), *_parameters(given)],
            arguments=log_level,
            additional_env=large_image_environment(context.environment),
            output="screen",
            emulate_tty=True,
        )
    ]


def _params_file(given: dict[str, Any]) -> list[str]:
    if "params_file" not in given:
        return []
    return [_file("params_file", given["params_file"])]


def _file(name: str, value: str) -> str:
    """The path of the file that an argument names. Raises `FileNotFoundError` where there is none."""
    path = path_of(name, value)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}:={value} is no file; give the path of one")
    return path


def _parameters(given: dict[str, Any]) -> list[dict[str, ParameterValue]]:
    """The node's parameters from the arguments. Text stays text, even where it is YAML (``yes``, ``{}``)."""
    parameters: dict[str, ParameterValue] = {}
    for name in ("image_transport", "task", "model", "device", "namespaces"):
        if name in given:
            parameters[name] = ParameterValue(given[name], value_type=str)
    for name in ("use_sim_time", "autostart"):
        if name in given:
            parameters[name] = ParameterValue(given[name], value_type=bool)
    if "calibration" in given:
        path = _file("calibration", given["calibration"])
        parameters["calibration"] = ParameterValue(path, value_type=str)
    if "image_topic" in given:
        parameters["image_topics"] = ParameterValue([given["image_topic"]], value_type=List[str])  # noqa: UP006
    return [parameters] if parameters else []
