"""The option `--set` of commands that score: parameters of the monitor, checked as the node checks them."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.output import CommandError, say
from topreward_ros.core.nearest import nearest

if TYPE_CHECKING:
    from topreward_ros.core.monitor_settings import MonitorSettings
    from topreward_ros.scoring.base import ScorerSettings

#: Parameters that decide how a model scores; the others are of the monitor.
SCORING = frozenset(
    (
        *("device", "dtype", "quantization", "cuda_graphs", "compile", "scorer_threads", "max_pixels"),
        *("prompts", "layout", "chat_template", "contrastive", "sample_rate", "max_frames"),
        *("front_padding", "fixed_length", "progress_mode", "adapter"),
    )
)


def add_set_option(
    parser: argparse.ArgumentParser, examples: str = "device=cuda, sample_rate=4, success_threshold=-1"
) -> None:
    """Add ``--set``, with ``examples`` in its help."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="overrides",
        help="a parameter of the monitor that is to differ from config/monitor.yaml, for example "
        f"{examples}; may be repeated",
    )


def with_overrides(
    parameters: dict[str, Any], overrides: Sequence[str], command: str, not_for: Collection[str]
) -> dict[str, Any]:
    """Replace parameters by ``NAME=VALUE`` texts. Raises `CommandError` for one that cannot be.

    ``command``: who asks; ``not_for``: the parameters that it takes in another way or has no use for.
    """
    usable = sorted(parameters.keys() - not_for)
    given: dict[str, str] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise CommandError(f"--set {override}: write it as NAME=VALUE, for example sample_rate=4")
        if name not in usable:
            close = nearest(name, usable)
            fix = f"did you mean {close}?" if close else f"there are {', '.join(usable)}"
            raise CommandError(f"--set {override}: {command} takes no parameter {name!r}; {fix}")
        if name in given:
            raise CommandError(f"--set {override}: {name} is set twice, first to {given[name]}; set it once")
        given[name] = text
        parameters[name] = _parse(name, text, parameters[name])
    return parameters


def _parse(name: str, text: str, default: Any) -> Any:
    """``text`` as a value of the type that ``default`` has."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise CommandError(f"--set {name}={text}: must be true or false")
        return text == "true"
    try:
        return type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise CommandError(f"--set {name}={text}: must be {kind}, for example {default}") from None


def settings_of(parameters: dict[str, Any]) -> tuple[MonitorSettings, ScorerSettings]:
    """Settings of the state machine, with its calibrations, and of the scorer; their ranges are checked as
    the node checks them. Raises `CommandError`, `CalibrationError`."""
    from topreward_ros.core.monitor_settings import MonitorSettings
    from topreward_ros.nodes.parameters import MONITOR_PARAMETERS
    from topreward_ros.offline.calibration_file import calibrations_for
    from topreward_ros.scoring.base import ScorerSettings

    for parameter in MONITOR_PARAMETERS:
        if problem := parameter.problem_with(parameters[parameter.name]):
            raise CommandError(f"--set {problem}")
    monitor = MonitorSettings.from_parameters(parameters)
    calibrated = replace(monitor, calibrations=calibrations_for(parameters))
    return calibrated, ScorerSettings.from_parameters(parameters)


def check_chosen(model: str, settings: ScorerSettings) -> None:
    """Check what can be known of a model before the work, or processes, begin, and say what its user should
    know. Errors as `registry.check_wish`."""
    from topreward_ros.scoring.registry import check_wish

    if advice := check_wish(model, settings):
        say(f"model '{model}': {advice}")
