"""What the shipped model and defaults make of films that are disturbed: no SUCCESS where nothing was done.

A few of the runs of bench/false_success.py, which has all of them and their results: those here ended with
SUCCESS, or lost it, while any low score armed the detector and any picture was believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, ProgressReport
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

FOLDER = Path(__file__).parents[1] / "data" / "clips"
CLIPS: dict[str, dict[str, Any]] = {
    Path(clip["file"]).stem: clip for clip in json.loads((FOLDER / "clips.json").read_text(encoding="utf-8"))
}
RATE = 10  # [Hz] of the films

Pictures = list[np.ndarray]


@dataclass
class Seen:
    """What a monitor said of pictures that it was shown."""

    success_s: float | None
    messages: list[str]


@pytest.fixture(scope="module")
def scorer() -> Iterator[PrefixScorer]:
    parameters = {**monitor_defaults(), "device": "cpu", "scorer_threads": 1}
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(parameters))
    yield scorer
    scorer.close()


@pytest.fixture
def watch(scorer: PrefixScorer) -> Callable[..., Seen]:
    def watched(task: str, pictures: Pictures, gap_at: int = -1, gap_s: float = 0.0) -> Seen:
        monitor = TaskMonitor(MonitorSettings.from_parameters(monitor_defaults()), partial(str, "it"))
        monitor.set_task(CLIPS[f"{task}-success"]["instruction"])
        seen = Seen(None, [])
        for k, picture in enumerate(pictures):
            stamp_ns = round((k / RATE + gap_s * (k >= gap_at >= 0)) * NS_PER_S)
            due, outputs = monitor.observe(stamp_ns, stamp_ns)
            if due:
                request, more = monitor.add_frame(Frame(stamp_ns, picture))
                outputs += more
                if request is not None:
                    outputs += monitor.add_score(request, scorer.score(request))
            for output in outputs:
                if isinstance(output, Event) and output.type is EventType.SUCCESS:
                    seen.success_s = output.stamp.ns / NS_PER_S
                elif isinstance(output, ProgressReport) and output.message:
                    seen.messages.append(output.message)
        return seen

    return watched


def film(name: str) -> Pictures:
    return [read() for _, read in open_video(FOLDER / f"{name}.mp4")]


def finished(task: str) -> Pictures:
    """12 s of a scene in which all has been done."""
    pictures = film(f"{task}-success")[round((CLIPS[f"{task}-success"]["success_at"] + 2) * RATE) :]
    return (pictures + [pictures[-1]] * 120)[:120]


def noise(picture: np.ndarray, k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, picture.shape, np.uint8)


def white(picture: np.ndarray, k: int) -> np.ndarray:
    return np.full_like(picture, 255)


def overexposed(picture: np.ndarray, k: int) -> np.ndarray:
    """Less so with every picture, for a second."""
    return np.clip(picture * (8.0 - 0.7 * k), 0, 255).astype(np.uint8)


def half_covered(picture: np.ndarray, k: int) -> np.ndarray:
    hand = np.indices(picture.shape[:2]).sum(axis=0) % 40 * 3 + 90
    covered = np.indices(picture.shape[:2])[1] < 0.6 * picture.shape[1]
    return np.where(covered[..., None], hand[..., None] * (1.0, 0.7, 0.6), picture).astype(np.uint8)


@pytest.mark.parametrize(
    ("task", "bad"),
    [
        ("window-open", noise),
        ("handle-press", white),
        ("window-close", overexposed),
        ("button-press-topdown", half_covered),
    ],
)
def test_a_bad_start_before_a_finished_scene_is_no_success(
    task: str, bad: Callable[[np.ndarray, int], np.ndarray], watch: Callable[..., Seen]
) -> None:
    scene = finished(task)
    seen = watch(task, [bad(scene[0], k) for k in range(RATE)] + scene)
    assert seen.success_s is None
    if bad in (overexposed, half_covered):  # the others are not even used
        assert any("watching begins anew" in message for message in seen.messages)


@pytest.mark.parametrize("gap_s", [0.0, 60.0])
def test_a_cut_to_a_finished_scene_is_no_success(gap_s: float, watch: Callable[..., Seen]) -> None:
    failure = film("window-open-failure")[:60]
    seen = watch("window-open", failure + finished("window-open"), gap_at=60, gap_s=gap_s)
    assert seen.success_s is None
    assert any("jumped as a whole: watching begins anew" in message for message in seen.messages)


def test_a_success_with_a_noise_frame_and_without_light_for_two_seconds_is_one(
    watch: Callable[..., Seen],
) -> None:
    pictures = film("handle-press-success")
    undisturbed = watch("handle-press", pictures)
    for k in (*range(10, 30), 50):
        pictures[k] = noise(pictures[k], k) if k == 50 else np.zeros_like(pictures[k])
    disturbed = watch("handle-press", pictures)
    assert undisturbed.success_s is not None and disturbed.success_s is not None
    assert abs(disturbed.success_s - undisturbed.success_s) <= 0.5
