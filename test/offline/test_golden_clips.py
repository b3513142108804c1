"""What the shipped model and the shipped defaults make of films in which it is plain what happens.

The films of test/data/clips show simulated scenes that no training has seen; training/golden_clips.py makes
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import DEMO_CLIPS, DEMO_TASK, DemoClip, monitor_defaults, shared_file
from topreward_ros.offline.score_video import Curve, score_video
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.checkpoint.vocabulary import is_known
from topreward_ros.scoring.registry import load_scorer

FOLDER = Path(__file__).parents[1] / "data" / "clips"
CLIPS: list[dict[str, Any]] = json.loads((FOLDER / "clips.json").read_text(encoding="utf-8"))
SUCCESSES = [clip for clip in CLIPS if clip["succeeds"]]
#: Films in which nothing was done, or was undone.
TRIALS: list[dict[str, Any]] = json.loads((FOLDER / "trials.json").read_text(encoding="utf-8"))

#: Progress at the end, at least and at most, by what happens; of a film that runs backwards nothing is said.
ENDS = {"success": (0.8, 1.0), "stop": (0, 0.5), "retreat": (0, 0.5), "miss": (0, 0.5), "idle": (0, 0.1)}


def with_misses(clips: list[dict[str, Any]], *kinds: str) -> pytest.MarkDecorator:
    """One test for each clip; those that misses.json names are expected to fail."""
    listed = json.loads((FOLDER / "misses.json").read_text(encoding="utf-8"))
    misses = {file: why for kind in kinds for file, why in listed[kind].items()}
    marks = {file: [pytest.mark.xfail(reason=why, strict=True)] for file, why in misses.items()}
    cases = [pytest.param(clip, id=clip["file"], marks=marks.pop(clip["file"], ())) for clip in clips]
    assert not marks, f"there is no clip {sorted(marks)}"
    return pytest.mark.parametrize("clip", cases)


@dataclass(frozen=True)
class Outcome:
    """What the monitor said of a film that it watched to its end."""

    curve: Curve

    @property
    def success_s(self) -> float | None:
        return next((event.time_s for event in self.curve.events if event.type == "SUCCESS"), None)

    @property
    def progress(self) -> float:
        return self.curve.points[-1].progress

    @property
    def score(self) -> float:
        return self.curve.points[-1].score.log_prob


@pytest.fixture(scope="module")
def scorer() -> Iterator[PrefixScorer]:
    parameters = {**monitor_defaults(), "device": "cpu", "scorer_threads": 1}
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(parameters))
    yield scorer
    scorer.close()


@pytest.fixture(scope="module")
def watch(scorer: PrefixScorer) -> Callable[[Path, str], Outcome]:
    """Watches a film for a task; each once."""
    settings = replace(MonitorSettings.from_parameters(monitor_defaults()), end_episode_on_success=False)
    known: dict[tuple[Path, str], Outcome] = {}

    def outcome(film: Path, task: str) -> Outcome:
        if (film, task) not in known:
            known[film, task] = Outcome(score_video(film, task, scorer, settings))
        return known[film, task]

    return outcome


def test_all_there_is_to_judge_is_there() -> None:
    tasks = {clip["task"] for clip in CLIPS}
    assert len(tasks) >= 10
    for task in tasks:
        kinds = [clip["kind"] for clip in CLIPS if clip["task"] == task]
        assert "success" in kinds and {"stop", "retreat", "miss"} & set(kinds), task
    assert {"idle", "reversed"} <= {clip["kind"] for clip in CLIPS}
    assert len(TRIALS) == 20 and len({clip["kind"] for clip in TRIALS}) >= 10
    listed = [clip["file"] for clip in [*CLIPS, *TRIALS]]
    assert sorted(path.name for path in FOLDER.glob("*.mp4")) == sorted(listed)
    assert all((FOLDER / file).stat().st_size < 200_000 for file in listed)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip["file"])
def test_a_film_is_long_enough_to_judge(clip: dict[str, Any]) -> None:
    """A success lasts, so that it can be noticed; 4:3, as the model was trained to see."""
    film = open_video(FOLDER / clip["file"])
    assert (film.info.width, film.info.height) == (256, 192)
    seconds = sum(1 for _ in film) / film.info.rate
    assert 12 <= seconds <= 18
    assert not clip["succeeds"] or clip["success_at"] + 6 <= seconds


def test_the_model_knows_what_it_is_asked(scorer: PrefixScorer) -> None:
    asked = {clip["instruction"] for clip in CLIPS} | {clip["wrong_instruction"] for clip in SUCCESSES}
    assert scorer.info.instructions, "a model without a list understands anything, or nothing"
    assert not [text for text in asked if not is_known(text, scorer.info)]


@with_misses(CLIPS, "success", "early")
def test_success_fires_where_it_should_and_only_there(clip: dict[str, Any], watch) -> None:
    outcome = watch(FOLDER / clip["file"], clip["instruction"])
    if clip["succeeds"]:
        assert outcome.success_s is not None, f"progress at the end {outcome.progress:.2f}"
        assert outcome.success_s >= clip["success_at"], "too early"
    else:
        assert outcome.success_s is None
    if clip["kind"] in ENDS:
        lowest, highest = ENDS[clip["kind"]]
        assert lowest <= outcome.progress <= highest


@with_misses(TRIALS, "trials")
def test_success_does_not_fire_where_nothing_was_done(clip: dict[str, Any], watch) -> None:
    film = FOLDER / clip["file"]
    success_s = watch(film, clip["instruction"]).success_s
    if clip["kind"] == "undone" and success_s is not None:
        # It is done for a second in the middle (training/controls.py); on the way back it is no more.
        middle_s = (sum(1 for _ in open_video(film)) / open_video(film).info.rate - 3) / 2
        assert middle_s - 0.5 <= success_s <= middle_s + 1.0
    else:
        assert success_s is None


@with_misses(SUCCESSES, "wrong instruction")
def test_a_wrong_instruction_stays_below_the_right_one(clip: dict[str, Any], watch) -> None:
    film = FOLDER / clip["file"]
    wrong = watch(film, clip["wrong_instruction"])
    assert wrong.score < watch(film, clip["instruction"]).score
    assert wrong.success_s is None


@pytest.mark.parametrize("clip", DEMO_CLIPS, ids=lambda clip: clip.name)
def test_the_demonstration_shows_what_it_says(clip: DemoClip, watch) -> None:
    outcome = watch(shared_file(clip.video), DEMO_TASK)
    assert (outcome.success_s is not None) == clip.succeeds
    lowest, highest = clip.progress
    assert lowest <= outcome.progress <= highest
