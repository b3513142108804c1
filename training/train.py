"""Train the model on the clips: `python -m training.train data run`.

The number of steps is fixed and samples are drawn with a seed, so that on a CPU the same data give the same
weights on the same machine; the last line printed is their hash. On a GPU the same recipe runs, in float32 or
bfloat16, and gives weights that are as good, not the same. The folder `run` then holds the weights with the
auxiliary heads, the tokenizer, the loss of every step as a table and as a picture, and what the run was made
from. A run that was interrupted goes on from its last checkpoint and ends with the same weights.

    pip install -r training/requirements.txt
    python -m training.train data run
    python -m training.train data run --precision bfloat16 --workers 12     # on a GPU
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors.torch import save
from torch.utils.data import DataLoader, Dataset, Subset

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import write_file
from topreward_ros.offline.distill.stories import Shape
from topreward_ros.offline.distill.training_run import (
    BETAS,
    DECAY,
    From,
    OnStep,
    Row,
    Run,
    learning_rate,
    weight_groups,
)
from topreward_ros.views.picture import write_picture
from training.clips import Clip, Listed, Manifest
from training.generate import TRAIN
from training.network import Batch, Look, Stream, Trainee, make_tokenizer
from training.samples import drawn_size, make_glances, make_sample

STEPS = 4500
AGAIN = 4000  # steps of the second round
THREADS = 1  # another number sums in another order, which gives other weights
LOOKS = 1500  # steps before those, in which only the vision model learns, from single pairs of frames
#: Weights of the terms of the loss. Those of the auxiliary heads decrease: they help at the start.
_WEIGHTS = {"answer": 1.0, "odds": 1.0}
_HEADS = {
    **{"task": 0.3, "hand": 0.2, "moved": 2.0, "progress": 2.0, "success": 0.3},
    **{"answer_asked": 0.3, "answer_task": 0.3, "answer_hand": 0.2, "answer_moved": 2.0},
    **{"answer_progress": 2.0},
    **{"seen_task_flat": 0.2, "seen_hand_flat": 0.3, "seen_moved_flat": 1.0},
    **{"seen_task_mean": 0.2, "seen_hand_mean": 0.3, "seen_moved_mean": 1.0},
}
_RATE = 8e-4
_PATCHES = 144  # per step, shared by its videos
_LOOK_RATE, _LOOK_CLIPS, _LOOKS_PER_CLIP = 1e-3, 14, 6
#: Tasks drawn twice as often as others: what moves there is some ten pixels long and is learnt last.
_SMALL = ("handle-press", "handle-pull", "button-press-topdown", "coffee-button")


@dataclass(frozen=True)
class Round:
    """One pass of the learning rate from its height to 0."""

    rate: float  #: the highest
    frozen: float  #: share of the steps during which the vision model is frozen
    often: tuple[str, ...]  #: tasks drawn twice as often as others
    gaps: float  #: share of the attempts in which the camera is away for seconds
    seed: int  #: beside the recipe's: 0 for none


FIRST = Round(_RATE, frozen=0.22, often=_SMALL, gaps=0.0, seed=0)
#: Once more, with what the first round learns last drawn more often, and with gaps.
SECOND = Round(0.75 * _RATE, 0.0, (*_SMALL, "faucet-open", "faucet-close", "faucet-close"), gaps=0.2, seed=2)


class Looks(Dataset[Look]):
    """Pairs of frames that train the vision model alone; the number of the step seeds the draw."""

    def __init__(self, folder: Path, clips: list[Listed], stream: Stream, steps: int, seed: int) -> None:
        self._folder, self._clips, self._stream, self._steps, self._seed = folder, clips, stream, steps, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Look:
        rng = np.random.default_rng([self._seed, step, 1])
        size = drawn_size(rng)
        glances = []
        for number in rng.integers(len(self._clips), size=_LOOK_CLIPS):
            clip = Clip.load(self._folder / self._clips[number].path)
            glances += make_glances(clip, _LOOKS_PER_CLIP, *size, rng)
        return self._stream.look(glances)


class Steps(Dataset[Batch]):
    """The batch of every step, seeded by its number; half of the clips are successes."""

    def __init__(
        self, folder: Path, clips: list[Listed], stream: Stream, steps: int, seed: int, round_: Round
    ) -> None:
        self._folder, self._stream, self._steps = folder, stream, steps
        self._seed, self._round = seed, round_
        self._by_outcome = [
            [clip for clip in clips if clip.succeeded is outcome] for outcome in (True, False)
        ]
        for outcome, found in zip(("successful", "failed"), self._by_outcome, strict=True):
            if not found:
                raise SystemExit(f"{folder} has no {outcome} clip to learn from: generate more")
        self._successes: dict[str, list[Listed]] = defaultdict(list)
        for clip in self._by_outcome[0]:
            self._successes[clip.task].append(clip)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step, *([self._round.seed] if self._round.seed else [])])
        shape = Shape.drawn(rng, drawn_size)
        number = int(np.clip(_PATCHES // shape.patches, 4, 24))
        samples = []
        for _ in range(number):
            clip = self._drawn(self._by_outcome[int(rng.integers(2))], rng)
            another = partial(self._another, clip.task, rng)
            samples.append(make_sample(clip, shape, rng, another, self._round.gaps))
        return self._stream.batch(samples)

    def _drawn(self, clips: list[Listed], rng: np.random.Generator) -> Clip:
        return Clip.load(self._folder / clips[int(rng.integers(len(clips)))].path)

    def _another(self, task: str, rng: np.random.Generator, same_task: bool) -> Clip:
        tasks = list(self._successes)
        chosen = task if same_task and task in tasks else tasks[int(rng.integers(len(tasks)))]
        return self._drawn(self._successes[chosen], rng)


def total_loss(losses: dict[str, torch.Tensor], done: float) -> torch.Tensor:
    """Weighted sum of the terms; ``done`` is the share of all steps that were taken."""

    def weighted(weights: dict[str, float]) -> torch.Tensor:
        terms = (losses[name] * weight for name, weight in weights.items())
        return sum(terms, start=torch.zeros(()))

    return weighted(_WEIGHTS) + (1 - 0.8 * done) * weighted(_HEADS)


@dataclass(frozen=True)
class Recipe:
    """All that the weights depend on beside the data, the machine, and the versions of libraries."""

    looks: int = LOOKS
    steps: int = STEPS
    again: int = AGAIN  #: steps of the second round; 0: none
    seed: int = 0
    threads: int = THREADS
    precision: str = "float32"  #: or bfloat16
    device: str = "cpu"  #: or cuda


@contextmanager
def _progress(title: str) -> Iterator[OnStep]:
    said = TextColumn("{task.fields[said]}")
    times = TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(TextColumn(title), BarColumn(), MofNCompleteColumn(), said, *times) as progress:
        bar = progress.add_task("", total=None, said="")

        def on_step(done: int, steps: int, rows: list[Row]) -> None:
            said = f"loss {np.mean([row['loss'] for row in rows[-50:]]):.3f}" if rows else ""
            progress.update(bar, completed=done, total=steps, said=said)

        yield on_step


def learn_to_look(run: Run, trainee: Trainee, looks: From, steps: int) -> None:
    """Train the vision model to tell the scene, the place of the hand, and how far the object was moved."""
    weights = [*trainee.model.model.visual.parameters()]
    weights += [weight for name, weight in trainee.heads.named_parameters() if name.startswith("seen")]
    optimizer = torch.optim.AdamW(weights, lr=_LOOK_RATE, betas=BETAS, weight_decay=DECAY)

    def take(step: int, look: Look) -> Row:
        losses = trainee.look_losses(look)
        optimizer.param_groups[0]["lr"] = _LOOK_RATE * max(0.1, learning_rate(step, steps))
        loss = torch.stack([loss * _HEADS[name] for name, loss in losses.items()]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return {"loss": loss.item(), **{name: loss.item() for name, loss in losses.items()}}

    with _progress("looks") as on_step:
        run.learn("looks", trainee, optimizer, steps, looks, take, on_step)


def learn_to_answer(
    name: str, run: Run, trainee: Trainee, batches: From, steps: int, round_: Round
) -> list[Row]:
    """Train the whole model for a round; returns the terms of the loss of every step, as in NAME.csv."""
    optimizer = torch.optim.AdamW(weight_groups(trainee), lr=round_.rate, betas=BETAS)

    def take(step: int, batch: Batch) -> Row:
        trainee.model.model.visual.requires_grad_(step >= round_.frozen * steps)
        rate = round_.rate * learning_rate(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = trainee.losses(batch)
        loss = total_loss(losses, step / steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        terms = {name: value.item() for name, value in losses.items()}
        return {"rate": rate, "patches": batch.ends.shape[1], "loss": loss.item(), **terms}

    with _progress(name) as on_step:
        return run.learn(name, trainee, optimizer, steps, batches, take, on_step)


def train(data: Path, folder: Path, recipe: Recipe, workers: int) -> str:
    """Train and write everything to ``folder``; returns the SHA-256 of the weights file.

    ``workers`` processes prepare batches; their number changes nothing else.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    device = torch.device(recipe.device)
    torch.use_deterministic_algorithms(device.type == "cpu")
    listed, data_hash = Manifest.read(data)
    clips = [clip for clip in listed if clip.path.parts[0] == TRAIN]
    tokenizer = make_tokenizer()
    stream = Stream(tokenizer)
    trainee = Trainee(tokenizer, recipe.seed, recipe.precision == "bfloat16")
    made_from = {
        "data_sha256": data_hash,
        "clips": len(clips),
        **asdict(recipe),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "a CPU",
    }
    run = Run(folder, made_from)
    run.resume(trainee)
    trainee.to(device)

    def loaded(drawn: Looks | Steps, first: int) -> Iterator[Any]:
        left: Subset[Any] = Subset(drawn, range(first, len(drawn)))
        ahead = 4 if workers else None
        for batch in DataLoader(left, batch_size=None, num_workers=workers, prefetch_factor=ahead):
            yield batch.to(device)

    write_file(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    looks = Looks(data, _drawn_from(clips, FIRST), stream, recipe.looks, recipe.seed)
    learn_to_look(run, trainee, partial(loaded, looks), recipe.looks)
    rows: list[Row] = []
    for name, number, round_ in (("log", recipe.steps, FIRST), ("again", recipe.again, SECOND)):
        steps = Steps(data, _drawn_from(clips, round_), stream, number, recipe.seed, round_)
        rows += learn_to_answer(name, run, trainee, partial(loaded, steps), number, round_)
    draw(rows, folder / "loss.png")
    weights = {name: weight.cpu().contiguous() for name, weight in trainee.state_dict().items()}
    stored = save(weights)
    write_file(folder / "trainee.safetensors", stored)
    digest = hashlib.sha256(stored).hexdigest()
    write_file(
        folder / "made_from.json", json.dumps({**made_from, "weights_sha256": digest}, indent=2) + "\n"
    )
    return digest


def _drawn_from(clips: list[Listed], round_: Round) -> list[Listed]:
    """All clips, and once more for each time that their task is to be drawn more often."""
    return [*clips, *(clip for clip in clips for _ in range(round_.often.count(clip.task)))]


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Plot every term of the loss over the steps, smoothed, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ["loss", *_WEIGHTS, *_HEADS]
    figure, panels = pyplot.subplots(5, 4, figsize=(14, 12), sharex=True, layout="constrained", dpi=110)
    for name, panel in zip(names, panels.flat, strict=False):
        values = np.array([row[name] for row in rows])
        width = max(1, len(values) // 50)
        panel.plot(values, color="0.85", linewidth=0.5)
        panel.plot(np.arange(width - 1, len(values)), np.convolve(values, np.ones(width) / width, "valid"))
        panel.set_title(name)
        panel.set_ylim(0, float(np.quantile(values, 0.98)) * 1.05)
        panel.set_xlabel("step")
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    write_picture(figure, path)
    pyplot.close(figure)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("run", type=Path, help="folder for the results")
    parser.add_argument("--steps", type=int, default=STEPS, help="(%(default)s)")
    parser.add_argument("--again", type=int, default=AGAIN, help="of the second round (%(default)s)")
    parser.add_argument("--looks", type=int, default=LOOKS, help="of the vision model before (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=THREADS, help="of a CPU; changes sums (%(default)s)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of matrix products (%(default)s)",
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu or cuda (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches (%(default)s)")
    arguments = parser.parse_args()
    chosen = {field.name: getattr(arguments, field.name) for field in fields(Recipe)}
    try:
        print(train(arguments.data, arguments.run, Recipe(**chosen), arguments.workers))
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
