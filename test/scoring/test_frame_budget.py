"""Which frames are scored once memory ran out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from topreward_ros.core.frames import EpisodeBuffer, Frame, Window
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.frame_budget import FrameBudget

INFO = ScorerInfo("model", "1", False, "cpu", "float32", "0" * 16, 4096)
SETTINGS = replace(ScorerSettings.from_parameters(monitor_defaults()), max_frames=16)


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        (Window.EPISODE, [0, 1, 4, 5, 8, 9, 12]),
        (Window.SLIDING, [6, 7, 8, 9, 10, 11, 12]),
    ],
)
def test_fewer_frames_are_chosen_by_the_rule_of_the_window(window: Window, kept: list[int]) -> None:
    buffer = EpisodeBuffer(16, window)
    for k in range(13):
        buffer.append(Frame(k, np.zeros((1, 1, 3), np.uint8)))
    request = ScoreRequest("x", buffer)
    budget = FrameBudget(INFO, SETTINGS)
    assert budget.within(request) is request
    budget.lower(16)
    thinned = budget.within(request)
    assert [frame.stamp_ns for frame in thinned.prefix] == kept
    assert thinned.buffer.window is window
    assert budget.within(thinned) is thinned


@pytest.mark.parametrize(
    ("changes", "frames", "said"),
    [
        ({"fixed_length": 32}, 9, "with 32 frames .* smaller max_pixels .* or fixed_length .now 32., or"),
        ({"front_padding": 8}, 4, "with 12 frames .* or max_frames .now 16. or front_padding .now 8., or"),
        ({}, 4, "with 4 frames .* smaller max_pixels .now [0-9]*. or max_frames .now 16., or another"),
    ],
)
def test_what_does_not_help_is_not_tried_and_what_would_is_named(
    changes: dict[str, int], frames: int, said: str
) -> None:
    budget = FrameBudget(INFO, replace(SETTINGS, **changes))  # type: ignore[arg-type]
    with pytest.raises(ScorerError, match=said):
        budget.lower(frames)
    assert not budget.is_lowered
