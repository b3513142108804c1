"""GVL: frames are shown in an order of their own, and what is written of them comes back as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from test.offline.test_evaluation import settings
from test.offline.test_labelled_episodes import reading, write_labels, write_video
from test.scoring.any_vlm.test_scorer import make_checkpoint
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import Control, Mode
from topreward_ros.core.metrics import value_order_correlation
from topreward_ros.offline.evaluation_gvl import GvlScorer, gvl_run
from topreward_ros.offline.evaluation_report import make_evaluation, to_json
from topreward_ros.offline.evaluation_runs import Evaluated, EvaluatedEpisode, Film, Method
from topreward_ros.offline.labelled_episodes import Labelled, labelled_data
from topreward_ros.scoring.base import ScorerError
from topreward_ros.views.evaluation_page import page


@pytest.fixture
def data(tmp_path: Path) -> Labelled:
    folder = write_labels(tmp_path / "runs", "up.mp4,make it bright,1", "dark.mp4,make it bright,0")
    write_video(folder / "up.mp4", 20, 12)
    write_video(folder / "dark.mp4", 10, 3)
    return labelled_data(folder, reading())


def film_of(data: Labelled, place: int = 0, control: Control = Control.PLAIN) -> Film:
    episode = data.episodes[place]
    return Film(episode, control, episode.task, f"{place + 1:08x}")


def looks(parts: Sequence[str | np.ndarray], _: int) -> str:
    """A writer that sees how bright a picture is."""
    texts = [part for part in parts if isinstance(part, str)]
    pictures = [part for part in parts if isinstance(part, np.ndarray)]
    assert len(texts) == len(pictures) + 1 and "make it bright" in texts[0]
    return "\n".join(
        f"Frame {k}: light, {picture.mean() / 2.55:.0f}%" for k, picture in enumerate(pictures[1:], 1)
    )


def test_the_curve_is_in_the_order_of_time_whatever_was_shown_first(data: Labelled) -> None:
    seen: list[list[float]] = []

    def write(parts: Sequence[str | np.ndarray], most: int) -> str:
        seen.append([float(part.mean()) for part in parts if isinstance(part, np.ndarray)])
        return looks(parts, most)

    run = gvl_run(film_of(data), 4.0, 2000, write)
    assert run.times_s == tuple(k / 4 for k in range(12))
    assert value_order_correlation(run.values(Mode.LIVE, -0.22)) == pytest.approx(1.0, abs=0.01)
    start, *shown = seen[0]
    assert start == min(shown) and shown != sorted(shown)
    assert gvl_run(film_of(data), 4.0, 2000, write) == run and seen[1] == seen[0]
    back = gvl_run(film_of(data, control=Control.REVERSED), 4.0, 2000, write)
    assert value_order_correlation(back.values(Mode.LIVE, -0.22)) == pytest.approx(-1.0, abs=0.01)


def test_the_results_have_a_value_per_frame_and_no_event(data: Labelled) -> None:
    chosen = replace(settings(()), method=Method.GVL)
    episodes = []
    for place, it in enumerate(data.episodes):
        run = gvl_run(film_of(data, place), 4.0, 2000, looks)
        episodes.append(
            EvaluatedEpisode(it.name, it.identity, it.task, it.succeeded, it.done_s, {Control.PLAIN: run})
        )
    model = {"model_id": "m", "revision": "1", "device": "cpu", "dtype": "float32", "prompt_hash": "0"}
    evaluation = make_evaluation("runs", data, Evaluated(tuple(episodes), model, (), 0), chosen)
    assert {it.mode for it in evaluation.measures} == {"live"} and evaluation.mode is Mode.LIVE
    auc = evaluation.measure("", "live", "auc")
    assert auc is not None and auc.value == 1.0
    assert '"method": "gvl"' in to_json(evaluation) and "gvl" in page(evaluation)


def test_models_that_write_nothing_useful_are_refused(data: Labelled, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match="writes no text"):
        GvlScorer(replace(settings(()), method=Method.GVL))
    folder = make_checkpoint(tmp_path / "gemma3", "gemma3")
    scorer = GvlScorer(replace(settings((), device="cpu"), model=str(folder), method=Method.GVL))
    ((_, outcome),) = scorer.scored([film_of(data, 1)], lambda _: None)
    scorer.close()
    assert isinstance(outcome, UserError)
    assert "dark.mp4: the model" in str(outcome)
