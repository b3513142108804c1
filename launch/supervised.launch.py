"""Monitor, supervisor and recorder of one or several robots.

``ros2 launch topreward_ros supervised.launch.py robots:="arm1 arm2" image_topic:=camera/image_raw`` starts
them in the namespace of each robot. No default stands here: what is not given is left to monitor.launch.py,
record.launch.py and config/supervisor.yaml. The supervisor makes a dry run until it is told otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List  # noqa: UP035 (launch knows its list types by identity)

import yaml
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from topreward_ros.core.launch_words import LOG_LEVELS, TRUTHS, meant
from topreward_ros.defaults import EPISODES_FOLDER

NOT_GIVEN = ""

_NAMESPACE = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*/?")

#: Of monitor.launch.py and record.launch.py, which are given them as they are; the rest of theirs is not.
OF_THE_MONITOR = (
    "image_topic",
    "image_transport",
    "model",
    "device",
    "params_file",
    "use_sim_time",
    "log_level",
)
OF_THE_RECORDER = ("topics", "exclude", "options", "use_sim_time")

ARGUMENTS = (
    ("robots", 'namespaces, one per robot, as in "arm1 arm2"; not given: one robot without a namespace'),
    ("tasks", 'one task, or a list in YAML, as in ["open the drawer", "close the drawer"]'),
    ("dry_run", "true: the supervisor says what it would do; false: it does it"),
    ("image_topic", "topic of the camera; without a leading slash it is that of each robot's namespace"),
    ("image_transport", "which images are read where the camera has both: raw or compressed"),
    ("model", "'embedded', a Hugging Face hub id, or the folder of a checkpoint"),
    ("device", "torch device of the models: auto, cpu, cuda, cuda:1 ..."),
    (
        "params_file",
        "YAML file with parameters of monitors and supervisors, as in /**/supervisor or /arm1/supervisor",
    ),
    ("record", "false: no bag is written; true: one per episode"),
    ("output", "folder of the bags; with robots it has a folder for each of them"),
    ("topics", "further topics to record, separated by spaces"),
    ("exclude", "outcomes of episodes that are not kept, separated by spaces"),
    ("options", "further options of `topreward record`, as in a shell"),
    ("use_sim_time", "take the time from /clock: true or false"),
    ("log_level", "least severity that monitor and supervisor log: debug, info, warn, error or fatal"),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and for each robot a monitor, a supervisor and a recorder."""
    arguments = [
        DeclareLaunchArgument(name, default_value=NOT_GIVEN, description=description)
        for name, description in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_robots)])


def _robots(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {name: context.launch_configurations[name] for name, _ in ARGUMENTS}
    if task := context.launch_configurations.get("task"):
        raise ValueError(f"task:={task}: here the supervisor sets the task; give it as tasks:={task}")
    namespaces = _namespaces(given["robots"])
    supervisors = _supervisor_parameters(given)
    records = meant("record", given["record"], TRUTHS) if given["record"] else True
    started: list[LaunchDescriptionEntity] = []
    for namespace in namespaces:
        started.append(_include("monitor", OF_THE_MONITOR, given, namespace=namespace))
        started.append(_supervisor(supervisors, given, namespace))
        if records:
            output = given["output"]
            if namespace:
                output = str(Path(output or EPISODES_FOLDER) / namespace)
            started.append(_include("record", OF_THE_RECORDER, given, namespace=namespace, output=output))
    return started


def _namespaces(text: str) -> list[str]:
    """The namespaces in ``text``, without slashes at their ends; one of no name where there are none."""
    names = text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise ValueError(f"robots:={text}: {name} is no namespace; it takes letters, digits, _ and /")
    namespaces = [name.strip("/") for name in names]
    for name in namespaces:
        if namespaces.count(name) > 1:
            raise ValueError(f"robots:={text} names {name} twice; each robot needs a namespace of its own")
    return namespaces or [NOT_GIVEN]


def _supervisor_parameters(given: dict[str, str]) -> list[Any]:
    """The parameters of every supervisor: the file, and over it what was given by itself."""
    parameters: dict[str, ParameterValue] = {}
    if tasks := _tasks(given["tasks"]):
        parameters["tasks"] = ParameterValue(tasks, value_type=List[str])  # noqa: UP006
    for name in ("dry_run", "use_sim_time"):
        if given[name]:
            parameters[name] = ParameterValue(meant(name, given[name], TRUTHS), value_type=bool)
    file = [str(Path(given["params_file"]).expanduser())] if given["params_file"] else []
    return [*file, *([parameters] if parameters else [])]


def _tasks(text: str) -> list[str]:
    if not text.strip().startswith("["):
        return [text] if text.strip() else []
    try:
        tasks = yaml.safe_load(text)
    except yaml.YAMLError:
        tasks = None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, str) for task in tasks):
        raise ValueError(f'tasks:={text} is no list of texts; write ["open the drawer", "close the drawer"]')
    return tasks


def _supervisor(parameters: list[Any], given: dict[str, str], namespace: str) -> Node:
    log_level = []
    if given["log_level"]:
        log_level = ["--ros-args", "--log-level", meant("log_level", given["log_level"], LOG_LEVELS)]
    return Node(
        package="topreward_ros",
        executable="supervisor",
        namespace=namespace or None,
        parameters=parameters,
        arguments=log_level,
        output="screen",
        emulate_tty=True,
    )


def _include(file: str, names: tuple[str, ...], given: dict[str, str], **more: str) -> GroupAction:
    """Another launch file, with the arguments ``names`` as they are given here, and ``more``."""
    source = PythonLaunchDescriptionSource(str(Path(__file__).with_name(f"{file}.launch.py")))
    arguments = {name: given[name] for name in names} | more
    # In a group, as what is given to one would otherwise be given to what comes after it, too.
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())])
