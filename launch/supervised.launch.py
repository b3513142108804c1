"""Monitor, supervisor and recorder of one or several robots.

``ros2 launch topreward_ros supervised.launch.py robots:="arm1 arm2" image_topic:=camera/image_raw`` starts
them in the namespace of each robot. No default stands here: what is not given is left to monitor.launch.py,
record.launch.py and config/supervisor.yaml. The supervisor makes a dry run until it is told otherwise.
"""

from __future__ import annotations

import re
import sys
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
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from topreward_ros.core.launch_words import LOG_LEVELS, TRUTHS, meant, not_taken, path_of
from topreward_ros.defaults import EPISODES_FOLDER

NOT_GIVEN = ""

_NAMESPACE = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*/?")

#: Of monitor.launch.py and record.launch.py, which are given them as they are; the rest of theirs is not.
OF_THE_MONITOR = (
    "image_topic",
    "image_transport",
    "model",
    "device",
    "calibration",
    "params_file",
    "use_sim_time",
    "log_level",
)
OF_THE_RECORDER = ("image_topic", "image_transport", "topics", "exclude", "options", "use_sim_time")

#: What to give instead of arguments of these files that are not passed on.
INSTEAD = {
    "task": "the supervisor sets the task; give it as tasks:={value}",
    "namespace": "give it as robots:={value}",
    "namespaces": "give them as robots:={value}; each robot has a process of its own here",
    "autostart": "each node has one; set it in params_file, below /**/monitor or /**/supervisor",
    "recorder": "give record:=false, and start record.launch.py beside it with recorder:={value}",
}

ARGUMENTS = (
    ("robots", 'namespaces, one per robot, as in "arm1 arm2"; not given: one robot without a namespace'),
    ("tasks", 'one task, or a list in YAML, as in ["open the drawer", "close the drawer"]'),
    ("dry_run", "true: the supervisor says what it would do; false: it does it"),
    ("image_topic", "topic of the camera; without a leading slash it is that of each robot's namespace"),
    ("image_transport", "which images are read where the camera has both: raw or compressed"),
    ("model", "'embedded', a Hugging Face hub id, the folder of a checkpoint, or the URL of a server"),
    ("device", "torch device of the models: auto, cpu, cuda, cuda:1 ..."),
    ("calibration", "file that `topreward calibrate` wrote, for all robots: see docs/calibration.md"),
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
    sources = {name: _source(name) for name in ("monitor", "record")}
    of_others = {name for source in sources.values() for name in _arguments_of(source, context)}
    instead = {
        name: INSTEAD.get(name, "start that launch file by itself for it") for name in of_others - {*given}
    }
    for text in not_taken(Path(__file__).name, sys.argv, context.launch_configurations, given, instead):
        get_logger("launch").warning(text)
    given["output"] = path_of("output", given["output"])
    given["params_file"] = path_of("params_file", given["params_file"])
    namespaces = _namespaces(given["robots"])
    supervisors = _supervisor_parameters(given)
    records = meant("record", given["record"], TRUTHS) if given["record"] else True
    started: list[LaunchDescriptionEntity] = []
    for namespace in namespaces:
        arguments = {name: given[name] for name in OF_THE_MONITOR} | {"namespace": namespace}
        started.append(_include(sources["monitor"], context, arguments))
        started.append(_supervisor(supervisors, given, namespace))
        if records:
            output = given["output"]
            if namespace:
                output = str(Path(output or EPISODES_FOLDER) / namespace)
            arguments = {name: given[name] for name in OF_THE_RECORDER}
            arguments |= {"namespace": namespace, "output": output}
            started.append(_include(sources["record"], context, arguments))
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
    file = [given["params_file"]] if given["params_file"] else []
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


def _source(file: str) -> PythonLaunchDescriptionSource:
    return PythonLaunchDescriptionSource(str(Path(__file__).with_name(f"{file}.launch.py")))


def _arguments_of(source: PythonLaunchDescriptionSource, context: LaunchContext) -> list[str]:
    return [argument.name for argument in source.get_launch_description(context).get_launch_arguments()]


def _include(
    source: PythonLaunchDescriptionSource, context: LaunchContext, arguments: dict[str, str]
) -> GroupAction:
    """Another launch file with ``arguments``, and none that the command line or another file has set."""
    every = dict.fromkeys(_arguments_of(source, context), NOT_GIVEN) | arguments
    # In a group, as what is given to one would otherwise be given to what comes after it, too.
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=every.items())])
