"""Train the model on the clips: `python -m training.train data run`.

The number of steps is fixed and samples are drawn with a seed, so that the same data give the same weights on
the same machine; the last line printed is their hash. The folder `run` then holds the weights with the
auxiliary heads, the tokenizer, the loss of every step as a table and as a picture, and what the run was made
from.

    pip install -r training/requirements.txt
    python -m training.train data run
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
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
from torch.utils.data import DataLoader, Dataset

from topreward_ros.core.output_files import write_file
from topreward_ros.views.picture import write_picture
from training.clips import Clip, Listed, Manifest
from training.generate import TRAIN
from training.network import Batch, Look, Stream, Trainee, make_tokenizer
from training.samples import Shape, make_glances, make_sample

STEPS = 2600
THREADS = 1  # another number sums in another order, which gives other weights
LOOKS = 1000  # steps before those, in which only the vision model learns, from single pairs of frames
#: Weights of the terms of the loss. Those of the auxiliary heads decrease: they help at the start.
_WEIGHTS = {"answer": 1.0, "odds": 1.0}
_HEADS = {
    **{"task": 0.3, "hand": 0.2, "moved": 2.0, "progress": 2.0, "success": 0.3},
    **{"answer_asked": 0.3, "answer_task": 0.3, "answer_hand": 0.2, "answer_moved": 2.0},
    **{"answer_progress": 2.0},
    **{"seen_task_flat": 0.2, "seen_hand_flat": 0.3, "seen_moved_flat": 1.0},
    **{"seen_task_mean": 0.2, "seen_hand_mean": 0.3, "seen_moved_mean": 1.0},
}
_RATE, _WARM_UP, _DECAY = 8e-4, 60, 0.05
_PATCHES = 144  # per step, shared by its videos
_LOOK_RATE, _LOOK_CLIPS, _LOOKS_PER_CLIP = 1e-3, 14, 6
_VISION_FROZEN = 0.22  # share of the steps during which the vision model is frozen
#: Tasks drawn twice as often as others: what moves there is some ten pixels long and is learnt last.
_SMALL = ("handle-press", "handle-pull", "button-press-topdown", "coffee-button")


class Looks(Dataset[Look]):
    """Pairs of frames that train the vision model alone; the number of the step seeds the draw."""

    def __init__(self, folder: Path, clips: list[Listed], stream: Stream, steps: int, seed: int) -> None:
        self._folder, self._clips, self._stream, self._steps, self._seed = folder, clips, stream, steps, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Look:
        rng = np.random.default_rng([self._seed, step, 1])
        height = 96 if rng.random() < 0.7 else 128
        glances = []
        for number in rng.integers(len(self._clips), size=_LOOK_CLIPS):
            clip = Clip.load(self._folder / self._clips[number].path)
            glances += make_glances(clip, _LOOKS_PER_CLIP, height, 128, rng)
        return self._stream.look(glances)


class Steps(Dataset[Batch]):
    """The batch of every step, seeded by its number; half of the clips are successes."""

    def __init__(self, folder: Path, clips: list[Listed], stream: Stream, steps: int, seed: int) -> None:
        self._folder, self._stream, self._steps, self._seed = folder, stream, steps, seed
        self._by_outcome = [
            [clip for clip in clips if clip.succeeded is outcome] for outcome in (True, False)
        ]
        for outcome, found in zip(("successful", "failed"), self._by_outcome, strict=True):
            if not found:
                raise SystemExit(f"{folder} has no {outcome} clip to learn from: generate more")

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        shape = Shape.drawn(rng)
        number = int(np.clip(_PATCHES // shape.patches, 4, 24))
        samples = []
        for _ in range(number):
            clips = self._by_outcome[int(rng.integers(2))]
            clip = Clip.load(self._folder / clips[int(rng.integers(len(clips)))].path)
            samples.append(make_sample(clip, shape, rng))
        return self._stream.batch(samples)


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: a linear warm-up, then a cosine to 0."""
    if step < _WARM_UP:
        return (step + 1) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - _WARM_UP) / max(1, steps - _WARM_UP)))


def total_loss(losses: dict[str, torch.Tensor], done: float) -> torch.Tensor:
    """Weighted sum of the terms; ``done`` is the share of all steps that were taken."""

    def weighted(weights: dict[str, float]) -> torch.Tensor:
        terms = (losses[name] * weight for name, weight in weights.items())
        return sum(terms, start=torch.zeros(()))

    return weighted(_WEIGHTS) + (1 - 0.8 * done) * weighted(_HEADS)


def learn_to_look(trainee: Trainee, looks: Iterable[Look], steps: int, log: Path) -> None:
    """Train the vision model to tell the scene, the place of the hand, and how far the object was moved.

    Writes a row per step to ``log``.
    """
    weights = [*trainee.model.model.visual.parameters()]
    weights += [weight for name, weight in trainee.heads.named_parameters() if name.startswith("seen")]
    optimizer = torch.optim.AdamW(weights, lr=_LOOK_RATE, betas=(0.9, 0.98), weight_decay=_DECAY)
    with log.open("w", newline="") as file, _progress("learning to look") as progress:
        table = csv.DictWriter(file, ["step", *(name for name in _HEADS if name.startswith("seen"))])
        table.writeheader()
        bar = progress.add_task("", total=steps, said="")
        for step, look in enumerate(looks):
            losses = trainee.look_losses(look)
            optimizer.param_groups[0]["lr"] = _LOOK_RATE * max(0.1, learning_rate(step, steps))
            optimizer.zero_grad()
            torch.stack([loss * _HEADS[name] for name, loss in losses.items()]).sum().backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            row = {name: f"{loss.item():.3f}" for name, loss in losses.items()}
            table.writerow({"step": step, **row})
            file.flush()
            progress.update(bar, advance=1, said=", ".join(f"{name} {value}" for name, value in row.items()))


def learn_to_answer(
    trainee: Trainee, batches: Iterable[Batch], steps: int, log: Path
) -> list[dict[str, float]]:
    """Train the whole model; returns what is written to ``log``, a row per step."""
    optimizer = torch.optim.AdamW(_groups(trainee), lr=_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    rows: list[dict[str, float]] = []
    with log.open("w", newline="") as file, _progress("learning to answer") as progress:
        table = csv.DictWriter(file, ["step", "rate", "patches", "loss", *_WEIGHTS, *_HEADS])
        table.writeheader()
        bar = progress.add_task("", total=steps, said="")
        for step, batch in enumerate(batches):
            trainee.model.model.visual.requires_grad_(step >= _VISION_FROZEN * steps)
            losses = trainee.losses(batch)
            loss = total_loss(losses, step / steps)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
            optimizer.step()
            row: dict[str, float] = {
                "step": step,
                "rate": float(schedule.get_last_lr()[0]),
                "patches": batch.ends.shape[1],
                "loss": loss.item(),
                **{name: value.item() for name, value in losses.items()},
            }
            schedule.step()
            table.writerow({name: f"{value:.6g}" for name, value in row.items()})
            file.flush()
            rows.append(row)
            progress.update(bar, advance=1, said=f"loss {np.mean([row['loss'] for row in rows[-50:]]):.3f}")
    return rows


def _progress(title: str) -> Progress:
    said = TextColumn("{task.fields[said]}")
    times = TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(TextColumn(title), BarColumn(), MofNCompleteColumn(), said, *times)


def train(
    data: Path, run: Path, steps: int, seed: int, workers: int, looks: int = LOOKS, threads: int = THREADS
) -> str:
    """Train and write everything to ``run``; returns the SHA-256 of the weights file."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    listed, data_hash = Manifest.read(data)
    clips = [clip for clip in listed if clip.path.parts[0] == TRAIN]
    drawn_from = [*clips, *(clip for clip in clips if clip.task in _SMALL)]
    tokenizer = make_tokenizer()
    stream = Stream(tokenizer)
    trainee = Trainee(tokenizer, seed).to(device)

    def loaded(drawn: Dataset[Any]) -> Iterator[Any]:
        ahead = 4 if workers else None
        for batch in DataLoader(drawn, batch_size=None, num_workers=workers, prefetch_factor=ahead):
            yield batch.to(device)

    run.mkdir(parents=True, exist_ok=True)
    write_file(run / "tokenizer.json", tokenizer.to_str(pretty=False))
    learn_to_look(trainee, loaded(Looks(data, drawn_from, stream, looks, seed)), looks, run / "looks.csv")
    batches = loaded(Steps(data, drawn_from, stream, steps, seed))
    rows = learn_to_answer(trainee, batches, steps, run / "log.csv")
    draw(rows, run / "loss.png")
    weights = {name: weight.cpu().contiguous() for name, weight in trainee.state_dict().items()}
    stored = save(weights)
    write_file(run / "trainee.safetensors", stored)
    digest = hashlib.sha256(stored).hexdigest()
    made_from = {
        "data_sha256": data_hash,
        "clips": len(clips),
        "looks": looks,
        "steps": steps,
        "seed": seed,
        "threads": threads,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "a CPU",
        "weights_sha256": digest,
    }
    write_file(run / "made_from.json", json.dumps(made_from, indent=2) + "\n")
    return digest


def _groups(trainee: Trainee) -> list[dict[str, object]]:
    """Groups of weights for the optimizer: only matrices decay."""
    named = list(trainee.named_parameters())
    decays = [weight for name, weight in named if weight.dim() > 1 and "embed" not in name]
    rest = [weight for name, weight in named if weight.dim() <= 1 or "embed" in name]
    return [{"params": decays, "weight_decay": _DECAY}, {"params": rest, "weight_decay": 0.0}]


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
    parser.add_argument("--looks", type=int, default=LOOKS, help="of the vision model before (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches (%(default)s)")
    arguments = parser.parse_args()
    print(
        train(
            arguments.data,
            arguments.run,
            steps=arguments.steps,
            seed=arguments.seed,
            workers=arguments.workers,
            looks=arguments.looks,
        )
    )


if __name__ == "__main__":
    main()
