"""The file `calibration.yaml`: written, read, and compared with the setup that it is to be used in.

What its keys mean and which values they may have stands in core/calibration/mapping.py. YAML is read without
aliases, which a small file could make gigabytes of.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from topreward_ros.core.calibration.fit import CalibrationError
from topreward_ros.core.calibration.mapping import from_mapping, to_mapping
from topreward_ros.core.calibration.task import NO_CALIBRATIONS, Calibrations, Setup
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import ProgressMode
from topreward_ros.core.text_files import read_text
from topreward_ros.scoring.base import ScorerInfo, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.plugins import is_plugin
from topreward_ros.scoring.served_models import is_served

PRIMARY = "primary"  #: the layout of a video or a dataset's camera, which is one camera

_HEAD = """\
# How a task monitor decides, learnt from labelled episodes by `topreward calibrate`: see docs/calibration.md.
# They hold for this setup alone. To change one, record more episodes and calibrate anew.
"""
_MOST = 20 << 20  # bytes of a file; a task has some 50 kB at most


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Plain YAML: no alias, no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*) have no place here", problem_mark=self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        if isinstance(index, yaml.ScalarNode):
            node.key = index.value  # for a human
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            # What PyYAML raises for a text that is not of the type that its tag (!!bool x) or looks say.
            shown = f"{node.key}: {node.value}" if hasattr(node, "key") else str(node.value)
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f"{printable(shown, 100)} is no {printable(kind, 40)}", problem_mark=node.start_mark
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {printable(key_node.value, 60)} stands there twice",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def calibration_text(calibrations: Calibrations) -> str:
    """The text of a file."""
    body: str = yaml.safe_dump(
        to_mapping(calibrations), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )
    return _HEAD + body


def write_calibrations(path: Path, calibrations: Calibrations) -> None:
    """Write a file. Raises `OutputFileError`."""
    write_file(path, calibration_text(calibrations))


def read_calibrations(path: str) -> Calibrations:
    """The calibrations in the file ``path``; an empty path: none.

    Raises `CalibrationError`, `TextFileError`.
    """
    if not path:
        return NO_CALIBRATIONS
    file = Path(os.path.expanduser(path))
    if file.is_dir():
        raise CalibrationError(f"{printable(path, 300)} is a folder: name the calibration file in it")
    if file.is_file() and file.stat().st_size > _MOST:
        raise CalibrationError(
            f"{printable(path, 300)} has more than {_MOST >> 20} MiB: it is no calibration"
        )
    try:
        content = yaml.load(read_text(file), _Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise CalibrationError(
            f"{printable(path, 300)} is no YAML that can be read ({printable(_why(error), 200)}): restore "
            "it, or make it anew by `topreward calibrate`"
        ) from error
    return from_mapping(content, path)


def calibrations_for(parameters: Mapping[str, Any]) -> Calibrations:
    """Those that the parameters of a monitor name. Raises as `read_calibrations`, and for a progress that
    needs a file where none is named."""
    path = parameters["calibration"]
    if not path and parameters["progress_mode"] == ProgressMode.CALIBRATED.value:
        raise CalibrationError(
            "progress_mode = 'calibrated' needs the parameter calibration: name a file that `topreward "
            "calibrate` wrote"
        )
    return replace(read_calibrations(path), accepted=parameters["accept_calibration"])


def _why(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return f"{type(error).__name__}: {error}"


def setup_of(
    info: ScorerInfo,
    monitor: MonitorSettings,
    scorer: ScorerSettings,
    camera_layout: str,
    cameras: Sequence[str] = (),
) -> Setup:
    """The setup of a model that is loaded, with the settings of the monitor that uses it.

    ``cameras``: the topics that are scored, without the robot's namespace; none where they have no names.
    """
    return Setup(
        model=info.model_id,
        revision=info.revision,
        prompt_hash=info.prompt_hash,
        dtype=info.dtype,
        max_pixels=info.max_pixels,
        front_padding=info.front_padding,
        fixed_length=info.fixed_length,
        **_set_up(monitor, scorer, camera_layout, cameras),
    )


def _set_up(
    monitor: MonitorSettings, scorer: ScorerSettings, camera_layout: str, cameras: Sequence[str]
) -> dict[str, Any]:
    """Those fields of a setup that no model has a say in."""
    return {
        "layout": scorer.layout,
        "chat_template": scorer.chat_template,
        "contrastive": scorer.contrastive,
        "sample_rate": monitor.sample_rate,
        "max_frames": monitor.max_frames,
        "window": monitor.window.value,
        "camera_layout": camera_layout,
        "cameras": tuple(cameras),
    }


def camera_name(topic: str, namespace: str = "") -> str:
    """The name of a camera in a setup: its topic without the robot's namespace, raw or compressed.

    >>> camera_name("/arm/cam/image_raw/compressed", "/arm"), camera_name("/image")
    ('cam/image_raw', 'image')
    """
    name = topic.removesuffix("/compressed")
    space = namespace.rstrip("/") + "/"
    return name.removeprefix(space).removeprefix("/")


def check_before_loading(
    calibrations: Calibrations,
    model: str,
    monitor: MonitorSettings,
    scorer: ScorerSettings,
    camera_layout: str,
    cameras: Sequence[str] = (),
) -> None:
    """`check_setup` by what is known of a setup before minutes are spent on loading its model.

    ``model``: as `load_scorer` takes it; of one that is served and of a plug-in nothing is known. The others
    as for `setup_of`. Raises `CalibrationError`, unless the user has accepted the differences, and
    `ScorerError` where there is no such model.
    """
    if calibrations.setup is None or calibrations.accepted:
        return
    known = _set_up(monitor, scorer, camera_layout, cameras)
    if not (is_served(model) or is_plugin(model)):
        checkpoint = open_checkpoint(model, scorer.adapter)
        known |= {
            "model": checkpoint.model_id,
            "revision": checkpoint.revision,
            "front_padding": scorer.front_padding,
            "fixed_length": scorer.fixed_length,
        }
    check_setup(calibrations, replace(calibrations.setup, **known))


def check_setup(calibrations: Calibrations, here: Setup) -> str:
    """What to say of a setup that a calibration is used in: empty where it is the one that it was made for.

    Where the user has accepted the differences, they are told. Else raises `CalibrationError`, which names
    the fields with both values.
    """
    if calibrations.setup is None:
        return ""
    differences = calibrations.setup.differences(here)
    if not differences:
        return ""
    listed = "; ".join(
        f"{name} was {_value(made)} and is {_value(there)} here" for name, made, there in differences
    )
    shown = printable(calibrations.source, 300)
    if calibrations.accepted:
        return f"{shown} was made for another setup, and is used all the same (accept_calibration): {listed}"
    raise CalibrationError(
        f"{shown} was made for another setup: {listed}. Calibrate this one with `topreward calibrate`, give "
        "the values of the file, or set accept_calibration to true to use it all the same"
    )


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return printable(" ".join(map(str, value)), 200) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f"'{printable(str(value), 100)}'"
