"""The shipped files: where they lie, what the videos show, and the monitor's defaults (config/monitor.yaml).

This module needs neither rclpy nor torch, so that the node, the launch files and the command line read the
same file. Parameter files of users are read by ROS 2, not here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PACKAGE = "topreward_ros"


@dataclass(frozen=True, slots=True)
class DemoClip:
    """A shipped video, and the result that it has in a monitor that works."""

    name: str
    video: str  #: for `shared_file`
    caption: str  #: what it shows and what to look at
    succeeds: bool
    progress: tuple[float, float]  #: lowest and highest that is expected at the end


#: What the robot was told to do in all shipped videos.
DEMO_TASK = "open the drawer"
DEMO_CLIPS = (
    DemoClip(
        "success",
        "media/demo_success.mp4",
        "The robot opens the drawer: the bar rises, and SUCCESS comes within a second of it being open.",
        succeeds=True,
        progress=(0.8, 1.0),
    ),
    DemoClip(
        "failure",
        "media/demo_failure.mp4",
        "The robot stops half-way: the bar stays below a half, and no SUCCESS comes.",
        succeeds=False,
        progress=(0.0, 0.5),
    ),
    DemoClip(
        "idle",
        "media/demo_idle.mp4",
        "The robot does nothing: the bar stays at 0, and STALL comes after ten seconds.",
        succeeds=False,
        progress=(0.0, 0.1),
    ),
)
#: The video in which the robot does its task.
DEMO_VIDEO = DEMO_CLIPS[0].video

#: Where bags of episodes are written, below the working folder, unless another folder is named.
EPISODES_FOLDER = "episodes"

_PACKAGE_FOLDER = Path(__file__).absolute().parent


def shared_file(name: str) -> Path:
    """Find a shipped file such as ``config/monitor.yaml``: in the source tree, or where it was installed.

    A source tree has the file beside the package. An installed package has it in
    ``share/topreward_ros`` of the prefix that the package lies in, whatever is sourced or activated.
    Raises `FileNotFoundError` naming every place that was searched.
    """
    places = [parent / "share" / PACKAGE / name for parent in _PACKAGE_FOLDER.parents]
    beside = _PACKAGE_FOLDER.parent
    if (beside / "package.xml").is_file():  # else it is site-packages, where config/ may be another package's
        places.insert(0, beside / name)
    for place in places:
        if place.exists():
            return place
    searched = ", ".join(map(str, places))
    raise FileNotFoundError(f"{name} of {PACKAGE} was not found; searched {searched}; reinstall the package")


def config_file(name: str) -> Path:
    """Find the shipped configuration file ``name``, for example ``monitor.yaml``; errors as `shared_file`."""
    return shared_file(f"config/{name}")


def fast_dds_profile_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables in which the Fast DDS of the ROS 2 of ``environ`` looks for a profile, the one to set first.

    Version 2 (Jazzy) knows the old name alone. In Kilted, on version 3, rmw_fastrtps takes both, with a
    warning for the old one. The package of version 3 is called fastdds, that of version 2 fastrtps.
    """
    prefixes = [sys.prefix, *filter(None, environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    is_version_3 = any(Path(prefix, "share", "fastdds").is_dir() for prefix in prefixes)
    return ("FASTDDS_DEFAULT_PROFILES_FILE",) * is_version_3 + ("FASTRTPS_DEFAULT_PROFILES_FILE",)


def large_image_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to ``environ`` so that Fast DDS has room in shared memory for camera images.

    There are none where ``environ`` names a profile already, which is the user's. Errors as `shared_file`.
    """
    variables = fast_dds_profile_variables(environ)
    named = any(variable in environ for variable in variables)
    return {} if named else {variables[0]: str(config_file("fastdds_large_images.xml"))}


def monitor_defaults() -> dict[str, Any]:
    """Every parameter of the monitor with its default, from config/monitor.yaml (a fresh copy).

    Errors as `parameter_defaults`.
    """
    return parameter_defaults("monitor.yaml")


def parameter_defaults(name: str) -> dict[str, Any]:
    """Every parameter in the shipped file ``name`` with its default (a fresh copy).

    Raises `FileNotFoundError` when the file is missing and `ValueError` when it is not a parameter file.
    """
    return deepcopy(_parameters(config_file(name)))


@cache
def _parameters(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        parameters = content["/**"]["ros__parameters"]
    except (KeyError, TypeError):
        parameters = None
    if not isinstance(parameters, dict):
        raise ValueError(f"{path}: expected '/**' with 'ros__parameters' below it; restore the shipped file")
    return parameters
