"""Calibrations as plain values and back; what somebody's editor did to them is refused by its key."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from test.core.calibrations import BASE, RATE, drawn, setup
from topreward_ros.core.calibration.fit import CalibrationError, fit_task
from topreward_ros.core.calibration.mapping import calibrations_digest, from_mapping, to_mapping
from topreward_ros.core.calibration.task import Calibrations


@pytest.fixture(scope="module")
def calibrations() -> Calibrations:
    """Of a task, and of another of which little is known."""
    fit = fit_task("open the drawer", drawn(20, 12), BASE, RATE, 0.02, picture=(640, 480)).calibration
    sketch = fit_task("close it", drawn(3, 3), BASE, RATE, 0.02).calibration
    return Calibrations(setup(), (fit, sketch), "c.yaml")


def test_back_and_forth(calibrations: Calibrations) -> None:
    content = to_mapping(calibrations)
    again = from_mapping(deepcopy(content), "c.yaml")
    fit = calibrations.tasks[0]
    assert to_mapping(again) == content
    assert again.setup == calibrations.setup and again.tasks[0].success == fit.success
    assert again.tasks[0].bands == fit.bands and again.tasks[0].probability == fit.probability
    assert again.tasks[1].weak and not again.tasks[0].weak
    assert again.tasks[0].comparison == fit.comparison is not None
    assert calibrations_digest(again) == calibrations_digest(calibrations)


def put(*path: str | int, value: Any) -> Callable[[Any], None]:
    """What sets one value."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[Any], None]:
    """What removes one key."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


TASK = ("tasks", 0)
NONSENSE = [
    (
        put(*TASK, "comparison", "kept", value="parameters"),
        "comparison.kept = parameters: must be fitted, as",
    ),
    (
        put(*TASK, "comparison", "finding", value="so"),
        "comparison.finding = so: must be one of better",
    ),
    (put("format", value="topreward_calibration/9"), "format = topreward_calibration/9: this version reads"),
    (drop("format"), "lacks the key format"),
    (drop("setup"), "lacks the key setup"),
    (put("setup", value=3), "it holds 3"),
    (put("setup", "sample_rate", value="2"), "setup.sample_rate = 2: must be a number from 0.01 to 60"),
    (put("setup", "sample_rate", value=True), "setup.sample_rate = True"),
    (put("setup", "max_frames", value=64.0), "setup.max_frames = 64.0: must be a whole number"),
    (put("setup", "chat_template", value="no"), "setup.chat_template = no: must be true or false"),
    (put("setup", "window", value="all"), "setup.window = all: must be one of episode, sliding"),
    (put("setup", "camera", value=[]), "setup.camera = .*did you mean cameras?"),
    (put("setup", "cameras", value="image"), "setup.cameras = image: must be a list of texts"),
    (put("tasks", value=[]), "tasks = .*at least one entry"),
    (put(*TASK, "task", value="two\nlines"), r"tasks\[0\].task = .*must be one line"),
    (put(*TASK, "task", value=5), r"tasks\[0\].task = 5: must be text"),
    (put("tasks", 1, "task", value="Open the  drawer."), r"tasks\[1\].task = .*must be one line"),
    (put("tasks", 1, "task", value="Open the drawer."), r"tasks\[1\].task = .*twice"),
    (put(*TASK, "success", "threshold", value=0.5), "threshold = 0.5: must be a number from -100 to 0"),
    (put(*TASK, "success", "threshold", value=float("nan")), "threshold = nan"),
    (put(*TASK, "success", "threshold", value="-1e-1"), "-1e-1: .*YAML takes this for text: write it"),
    (put(*TASK, "success", "dwell", value=-1), "dwell = -1: must be a number from 0 to 3600"),
    (put(*TASK, "success", "min_scores", value=0), "min_scores = 0: must be a whole number from 1 to 1000"),
    (put(*TASK, "success", "smoothing", value=None), "smoothing = null"),
    (
        put(*TASK, "success", "treshold", value=-1.0),
        "treshold = -1.0: there is no such key: did you mean thr",
    ),
    (drop(*TASK, "success", "hysteresis"), r"lacks the key tasks\[0\].success.hysteresis"),
    (put(*TASK, "probability", "kind", value="magic"), "kind = magic: must be one of anchors, platt"),
    (put(*TASK, "probability", "slope", value=-2.0), "slope = -2.0"),
    (put("tasks", 1, "probability", "probability", value=[1.0, 0.0]), "must not fall"),
    (put("tasks", 1, "probability", "log_odds", value=[1.0]), "must be as many as log_odds has"),
    (put("tasks", 1, "probability", "log_odds", value=[3.0, 3.0]), "log_odds = .*must rise"),
    (put(*TASK, "bands", "static_baseline", "lower", value=[]), "lower = 0 numbers: must be as many"),
    (put(*TASK, "bands", "static_baseline", "successes", value=5), "successes = 5: a band at alpha"),
    (put(*TASK, "bands", "other", value={}), r"bands.other = .*there is no such key"),
    (put(*TASK, "picture", value=[640]), r"picture = .*must be \[width, height\]"),
    (put(*TASK, "made_from", "successes", value=-3), "successes = -3"),
    (put(*TASK, "estimates", "recall", value=[1.0]), "recall = .*must be a list of 3 numbers"),
    (put(*TASK, "nominal_duration", value="long"), "nominal_duration = long: .* or null"),
    (put(*TASK, "nominal_duration", value=10**400), "nominal_duration = 10+[.]{3}: must be a number"),
    (put(*TASK, "nominal_duration", value=1 << 20000), "nominal_duration = a number of thousands of digits"),
    (put(*TASK, "estimates", "recall", value=[0.5, 0.1, 10**400]), r"recall\[2\] = 10+[.]{3}: must be"),
    (put(*TASK, "success", "min_scores", value=1 << 20000), "min_scores = a number of thousands of digits"),
    (put(*TASK, "success", "dwell", value=[1 << 20000]), "dwell = a number of thousands of digits"),
    (put("setup", "max_pixels", value=1 << 20000), "max_pixels = a number of thousands of digits: must be a"),
    (put("setup", 1 << 20000, value=1), "setup.a number of thousands of digits = 1: there is no such key"),
]


def test_a_file_of_before_parameters_were_compared_has_no_comparison(calibrations: Calibrations) -> None:
    content = to_mapping(calibrations)
    del content["tasks"][0]["comparison"]
    assert from_mapping(content, "c.yaml").tasks[0].comparison is None


def test_a_file_of_before_there_was_padding_has_none(calibrations: Calibrations) -> None:
    content = to_mapping(calibrations)
    for name in ("front_padding", "fixed_length"):
        del content["setup"][name]
    setup = from_mapping(content, "c.yaml").setup
    assert setup is not None and (setup.front_padding, setup.fixed_length) == (0, 0)


@pytest.mark.parametrize(("change", "said"), NONSENSE, ids=[said for _, said in NONSENSE])
def test_nonsense_is_refused_with_its_key(
    change: Callable[[Any], None], said: str, calibrations: Calibrations
) -> None:
    content = to_mapping(calibrations)
    change(content)
    with pytest.raises(CalibrationError, match=said) as error:
        from_mapping(content, "c.yaml")
    assert str(error.value).startswith("c.yaml")


@pytest.mark.parametrize("content", [None, 3, [], "text"])
def test_what_is_no_calibration_at_all(content: Any) -> None:
    with pytest.raises(CalibrationError, match=r"c.yaml is no calibration that `topreward calibrate` wrote"):
        from_mapping(content, "c.yaml")
