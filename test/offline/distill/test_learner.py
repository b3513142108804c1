"""How long a student learns, and which of its weights are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from topreward_ros.offline.distill import learner, steps
from topreward_ros.offline.distill.learner import LearnError, Recipe, learn, steps_for
from topreward_ros.offline.distill.network import Size, Stream, draw_weights, make_config
from topreward_ros.offline.distill.pupil import Pupil
from topreward_ros.offline.distill.steps import Lesson, Steps, held_out_batches, instructions_for
from topreward_ros.offline.distill.stories import Footage, Shape
from topreward_ros.offline.distill.training_run import Run
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER

SIZE = (64, 96)
RECIPE = Recipe(steps=6, seed=0, threads=1, precision="float32", device="cpu", rate=8e-4, averaged=0.5)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PATCHES", 2)
    monkeypatch.setattr(learner, "CHECK_EVERY", 1)
    monkeypatch.setattr(
        Shape, "drawn", lambda rng, size: Shape(int(rng.integers(1, 3)), False, *size(rng), 4)
    )


def lesson(task: int, succeeded: bool, seed: int) -> Lesson:
    pictures = np.random.default_rng(seed).integers(0, 256, (12, *SIZE, 3), np.uint8)
    progress = np.linspace(0, 0.9 if succeeded else 0.2, 12)
    done = np.arange(12) >= (9 if succeeded else 12)
    made = Footage(
        pictures, 4.0, progress, done, succeeded, succeeded, lasting=True, known={"state": progress}
    )
    return Lesson(made, task, SIZE)


@pytest.fixture
def school(tokenizer: Tokenizer, small: None) -> tuple[Pupil, Steps, list[Any]]:
    instructions = instructions_for(["lift the cube", "drop the cube"])
    pupil = Pupil(tokenizer, make_config(tokenizer, Size(96, 1, 32, 1)), 2, [SIZE])
    draw_weights(pupil, 0)
    stream = Stream(tokenizer)
    lessons = [lesson(k % 2, k < 3, k) for k in range(6)]
    return (
        pupil,
        Steps(lessons[2:], instructions, stream, 6, 0),
        held_out_batches(lessons[:2], instructions, stream),
    )


def losses_of(*values: float) -> Any:
    left: Iterator[float] = iter(values)
    return lambda *_: next(left)


def test_the_best_weights_are_kept_and_it_ends_where_nothing_gets_better(
    school: tuple[Pupil, Steps, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil, drawn, held = school
    monkeypatch.setattr(learner, "PATIENCE", 3)
    monkeypatch.setattr(learner, "held_out_loss", losses_of(5.0, 2.0, 3.0, 2.5, 2.5, 9.9))
    seen: list[dict[str, torch.Tensor]] = []
    weights = learner._weights
    monkeypatch.setattr(learner, "_weights", lambda it: (seen.append(weights(it)), weights(it))[1])
    learned = learn(pupil, drawn, held, RECIPE, Run(tmp_path, {}), 60.0, 0, lambda *_: None)
    assert (learned.steps, learned.best_step, learned.loss, learned.first_loss) == (5, 1, 2.0, 5.0)
    assert learned.why.startswith("4 steps made it no better"), "of six"
    assert len(seen) == 2
    assert all(torch.equal(value, seen[-1][name]) for name, value in pupil.state_dict().items())


def test_time_ends_it_and_a_loss_that_is_no_number_is_told(
    school: tuple[Pupil, Steps, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil, drawn, held = school
    ticks = count(0.0, 10.0)
    learned = learn(
        pupil, drawn, held, RECIPE, Run(tmp_path / "a", {}), 1.0, 0, lambda *_: None, lambda: next(ticks)
    )
    assert learned.steps == 3 and learned.why == "1 minutes had passed"
    monkeypatch.setattr(learner, "held_out_loss", losses_of(1.0, float("nan")))
    with pytest.raises(LearnError, match="no number after 1 steps"):
        learn(pupil, drawn, held, RECIPE, Run(tmp_path / "b", {}), 60.0, 0, lambda *_: None)


def test_the_rate_falls_with_the_time_where_steps_take_longer_than_planned(
    school: tuple[Pupil, Steps, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil, drawn, held = school
    monkeypatch.setattr(learner, "_WARM_UP", 1)
    rates = {}
    for name, clock in (("quick", repeat(0.0)), ("slow", count(0.0, 5.0))):
        run = Run(tmp_path / name, {})
        learned = learn(
            pupil, drawn, held, RECIPE, run, 1.0, 0, lambda *_: None, lambda clock=clock: next(clock)
        )
        assert learned.by_clock is (name == "slow")
        rates[name] = [row["rate"] for row in run._state["phases"]["steps"]["rows"]]
    assert rates["slow"][:2] == rates["quick"][:2]
    assert rates["slow"][-1] < rates["quick"][-1]


def test_threads_that_prepare_batches_change_nothing(
    school: tuple[Pupil, Steps, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil, drawn, held = school
    start = {name: value.clone() for name, value in pupil.state_dict().items()}
    found = []
    for workers in (0, 2):
        pupil.load_state_dict(start)
        learn(pupil, drawn, held, RECIPE, Run(tmp_path / str(workers), {}), 60.0, workers, lambda *_: None)
        found.append({name: value.clone() for name, value in pupil.state_dict().items()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())

    def broken(self: Steps, step: int) -> Any:
        raise MemoryError("no room for a batch")

    monkeypatch.setattr(Steps, "__getitem__", broken)
    with pytest.raises(MemoryError, match="no room for a batch"):
        learn(pupil, drawn, held, RECIPE, Run(tmp_path / "broken", {}), 60.0, 2, lambda *_: None)
    assert not [it for it in threading.enumerate() if it.name.startswith("batches")]


def test_what_is_cut_off_goes_on_to_the_same_weights(
    school: tuple[Pupil, Steps, list[Any]],
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pupil, drawn, held = school
    monkeypatch.setattr("topreward_ros.offline.distill.training_run.CHECKPOINT_EVERY", 2)
    start = {name: value.clone() for name, value in pupil.state_dict().items()}

    def stop(done: int, *_: Any) -> None:
        if done == 5:
            raise KeyboardInterrupt

    learn(pupil, drawn, held, RECIPE, Run(tmp_path / "whole", {}), 60.0, 0, lambda *_: None)
    whole = {name: value.clone() for name, value in pupil.state_dict().items()}
    pupil.load_state_dict(start)
    with pytest.raises(KeyboardInterrupt):
        learn(pupil, drawn, held, RECIPE, Run(tmp_path / "cut", {}), 60.0, 0, stop)
    pupil.load_state_dict(start)
    learn(pupil, drawn, held, RECIPE, Run(tmp_path / "cut", {}), 60.0, 0, lambda *_: None)
    assert all(torch.equal(value, whole[name]) for name, value in pupil.state_dict().items())


def test_the_weights_that_are_kept_are_averages(
    school: tuple[Pupil, Steps, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil, drawn, held = school
    name = "model.lm_head.weight"
    taken: list[torch.Tensor] = []

    def note(*_: Any) -> None:
        taken.append(pupil.state_dict()[name].clone())

    monkeypatch.setattr(learner, "held_out_loss", losses_of(*range(9, 0, -1)))  # each better than before
    learn(pupil, drawn, held, RECIPE, Run(tmp_path, {}), 60.0, 0, note)
    average = taken[0]
    for step, weight in enumerate(taken[1:]):
        kept = min(RECIPE.averaged, (step + 1) / (step + 10))
        average = kept * average + (1 - kept) * weight
    torch.testing.assert_close(pupil.state_dict()[name], average)
    assert not torch.equal(average, taken[-1])


def test_it_learns_what_it_is_told(school: tuple[Pupil, Steps, list[Any]]) -> None:
    pupil, _, held = school
    before = learner.held_out_loss(pupil, held)
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        torch.stack([pupil.losses(batch)["odds"] for batch in held]).mean().backward()
        optimizer.step()
    assert learner.held_out_loss(pupil, held) < before / 2


def test_steps_are_as_many_as_there_is_time_for(school: tuple[Pupil, Steps, list[Any]]) -> None:
    pupil, drawn, _ = school
    clock = iter([10.0, 20.0])  # for all of the steps that are tried but the first
    found = steps_for(pupil, drawn, RECIPE, 10.0, 0, lambda: next(clock))
    assert found == int(0.8 * 600 / (10 / 5))
    assert all(weight.grad is None for weight in pupil.parameters())


def test_strange_instructions_share_no_word_with_those_of_the_films() -> None:
    found = instructions_for(["Open the drawer.", "wipe the cup"])
    assert not any(set(text.split()) & {"open", "drawer", "wipe", "cup"} for text in found.strange)
    assert len(found.strange) > 3
    rng = np.random.default_rng(0)
    assert {found.other(0, rng) for _ in range(60)} >= {1, 2, 3} and all(
        found.other(1, rng) != 1 for _ in range(60)
    )
    alone = instructions_for(["fold it"])
    assert all(alone.other(0, rng) > 0 for _ in range(20))
