"""What a student is shown beside attempts as they were: some are given up, some cameras are turned."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from topreward_ros.offline.distill import stories
from topreward_ros.offline.distill.looks import change_looks
from topreward_ros.offline.distill.stories import Footage, Shape, Told

DONE_AT, COUNT = 30, 48


def footage(succeeded: bool) -> Footage:
    """Frames whose redness tells their place; at most 0.8 of progress is left where it fails."""
    frames = np.zeros((COUNT, 64, 64, 3), np.uint8)
    frames[..., 0] = 5 * np.arange(COUNT)[:, None, None]
    done = (np.arange(COUNT) >= DONE_AT) & succeeded
    progress = np.clip((np.arange(COUNT) - 8) / 24, 0, 1 if succeeded else 0.8)
    return Footage(frames, 4.0, progress, done, succeeded, True, True, known={"state": progress})


def told(succeeded: bool, seed: int, monkeypatch: pytest.MonkeyPatch, withdrawals: float) -> Told:
    monkeypatch.setattr(stories, "_STORIES", {"attempt": 1.0})
    monkeypatch.setattr(stories, "_interrupted", lambda pictures, shown, *_: (pictures, shown))
    shape = Shape(8, False, 64, 64, 4)
    return stories.tell(footage(succeeded), shape, np.random.default_rng(seed), withdrawals=withdrawals)


def places(story: Told) -> np.ndarray:
    return story.ends.frames[:, 0, 0, 0].astype(int) // 5


@pytest.mark.parametrize("succeeded", [True, False])
def test_an_attempt_that_is_given_up_is_never_done_and_loses_its_progress(
    succeeded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tops, lost, rested = [], 0, 0
    for seed in range(60):
        story = told(succeeded, seed, monkeypatch, withdrawals=1.0)
        shown, target = places(story), story.ends.target
        assert not story.ends.done.any() and (np.diff(story.seconds) > 0).all()
        if succeeded:
            assert shown.max() < DONE_AT and target.max() < 1
        assert target == pytest.approx(footage(succeeded).progress[shown]), "as what is seen had it"
        top = int(np.argmax(shown))
        assert (np.diff(shown[: top + 1]) >= 0).all() and (np.diff(shown[top:]) <= 0).all()
        tops.append(shown.max())
        lost += target[-1] < target.max() - 0.2
        rested += bool(shown[-1] == shown[-2])
    assert np.ptp(tops) > 10 and lost > 15 and 10 < rested < 60


def test_no_attempt_is_given_up_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(30):
        assert (np.diff(places(told(True, seed, monkeypatch, withdrawals=0.0))) >= 0).all()


def turned_by(picture: Any) -> float:
    """[degrees] by which the long side of what is bright differs from the horizontal."""
    rows, columns = np.nonzero(picture[..., 1] > 128)
    _, (width, height), angle = cv2.minAreaRect(np.column_stack([columns, rows]).astype(np.float32))
    return float((angle if width > height else angle + 90) + 90) % 180 - 90


def test_a_camera_is_turned_by_the_tilt_at_most_and_all_its_frames_alike() -> None:
    bar = np.zeros((2, 200, 200, 3), np.uint8)
    bar[:, 95:105, 40:160] = 255
    angles = []
    for seed in range(40):
        straight = change_looks(bar, 200, 200, np.random.default_rng(seed))
        assert abs(turned_by(straight[0])) < 0.6
        first, second = change_looks(bar, 200, 200, np.random.default_rng(seed), tilt=4.0)
        assert first.shape == (200, 200, 3) and abs(turned_by(first) - turned_by(second)) < 0.6
        angles.append(turned_by(first))
    assert max(map(abs, angles)) < 4.6 and min(angles) < -1.5 and max(angles) > 1.5
    assert 10 < sum(abs(angle) < 0.6 for angle in angles) < 32, "half of them are not"
