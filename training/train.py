"""Learn from the clips: `python -m training.train data run`.

A fixed number of steps with seeded data, so that the same data give the same weights on the same machine;
the last line that is printed is their hash. In `run` are then the weights with the helping heads, the
tokenizer, the loss of every step as a table and as a picture, and what the run was made from.

    pip install -r training/requirements.txt
    python -m training.train data run
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import platform
from pathlib import Path

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
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from training.clips import Clip, Listed, Manifest
from training.generate import TRAIN
from training.network import Batch, Stream, Trainee, make_tokenizer
from training.samples import Shape, make_sample

STEPS = 1500
#: How much each term of the loss counts. The heads count less and less: they help at the start.
_WEIGHTS = {"answer": 1.0, "odds": 1.0}
_HEADS = {"hand": 0.2, "task": 0.3, "moved": 2.0, "progress": 2.0, "success": 0.3}
_RATE, _WARM_UP, _DECAY = 1.5e-3, 100, 0.05
_PATCHES = 144  # per step, shared by its videos


class Steps(Dataset):
    """The batch of every step, drawn by the step's number; successes as often as all failures together."""

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
        torch.set_num_threads(1)  # also in a worker
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
    """Warm-up, then a cosine to nothing; as a share of the highest rate."""
    if step < _WARM_UP:
        return (step + 1) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - _WARM_UP) / max(1, steps - _WARM_UP)))


def total_loss(losses: dict[str, torch.Tensor], done: float) -> torch.Tensor:
    """Weighted sum; ``done`` is the share of all steps that were taken."""
    answer = sum(losses[name] * weight for name, weight in _WEIGHTS.items())
    return answer + (1 - 0.8 * done) * sum(losses[name] * weight for name, weight in _HEADS.items())


def train(data: Path, run: Path, steps: int, seed: int, workers: int) -> str:
    """Train and write everything to ``run``; returns the SHA-256 of the weights file."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # sums in another order give other weights
    torch.use_deterministic_algorithms(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    listed, data_hash = Manifest.read(data)
    tokenizer = make_tokenizer()
    clips = [clip for clip in listed if clip.path.parts[0] == TRAIN]
    batches = Steps(data, clips, Stream(tokenizer), steps, seed)
    trainee = Trainee(tokenizer, seed).to(device)
    optimizer = torch.optim.AdamW(_groups(trainee), lr=_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    run.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(run / "tokenizer.json"), pretty=False)
    rows: list[dict[str, float]] = []
    with (
        (run / "log.csv").open("w", newline="") as log,
        Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ) as progress,
    ):
        table = csv.DictWriter(log, ["step", "rate", "patches", "loss", *_WEIGHTS, *_HEADS])
        table.writeheader()
        bar = progress.add_task("", total=steps, loss=math.nan)
        loader = DataLoader(
            batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        for step, batch in enumerate(loader):
            losses = trainee.losses(batch.to(device))
            loss = total_loss(losses, step / steps)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
            optimizer.step()
            row = {
                "step": step,
                "rate": schedule.get_last_lr()[0],
                "patches": batch.ends.shape[1],
                "loss": loss.item(),
            }
            row |= {name: value.item() for name, value in losses.items()}
            schedule.step()
            table.writerow({name: f"{value:.6g}" for name, value in row.items()})
            log.flush()
            rows.append(row)
            progress.update(bar, advance=1, loss=float(np.mean([row["loss"] for row in rows[-50:]])))
    draw(rows, run / "loss.png")
    weights = {name: weight.cpu().contiguous() for name, weight in trainee.state_dict().items()}
    save_file(weights, run / "trainee.safetensors")
    digest = hashlib.sha256((run / "trainee.safetensors").read_bytes()).hexdigest()
    made_from = {
        "data_sha256": data_hash,
        "clips": len(clips),
        "steps": steps,
        "seed": seed,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
        "weights_sha256": digest,
    }
    (run / "made_from.json").write_text(json.dumps(made_from, indent=2) + "\n")
    return digest


def _groups(trainee: Trainee) -> list[dict[str, object]]:
    """Matrices decay, all else does not."""
    named = list(trainee.named_parameters())
    decays = [weight for name, weight in named if weight.dim() > 1 and "embed" not in name]
    rest = [weight for name, weight in named if weight.dim() <= 1 or "embed" in name]
    return [{"params": decays, "weight_decay": _DECAY}, {"params": rest, "weight_decay": 0.0}]


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Every term of the loss over the steps, smoothed, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ["loss", *_WEIGHTS, *_HEADS]
    figure, panels = pyplot.subplots(2, 4, figsize=(14, 6), sharex=True, layout="constrained")
    for name, panel in zip(names, panels.flat, strict=True):
        values = np.array([row[name] for row in rows])
        width = max(1, len(values) // 50)
        panel.plot(values, color="0.85", linewidth=0.5)
        panel.plot(np.arange(width - 1, len(values)), np.convolve(values, np.ones(width) / width, "valid"))
        panel.set_title(name)
        panel.set_ylim(0, float(np.quantile(values, 0.98)) * 1.05)
        panel.set_xlabel("step")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("run", type=Path, help="folder for the results")
    parser.add_argument("--steps", type=int, default=STEPS, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches (%(default)s)")
    arguments = parser.parse_args()
    print(train(arguments.data, arguments.run, arguments.steps, arguments.seed, arguments.workers))


if __name__ == "__main__":
    main()
