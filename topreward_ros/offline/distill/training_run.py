"""A training that can be interrupted: steps, checkpoints, the rate of learning.

What is learnt from, and what a step does, is the caller's.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import write_file
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import in_a_line

BETAS = (0.9, 0.98)  #: of AdamW
WARM_UP, DECAY = 60, 0.05
CHECKPOINT_EVERY = 100  # steps

#: Draws what the steps from the given one on need.
From = Callable[[int], Iterator[Any]]
Row = dict[str, float]
#: Is told of every step that is done, and of those done before: how many, of how many, and what they say.
OnStep = Callable[[int, int, list[Row]], None]


class RunError(UserError):
    """A folder holds another training, or cannot be written to."""


def learning_rate(step: int, steps: int, warm_up: int = WARM_UP) -> float:
    """Share of the highest learning rate: a linear warm-up, then a cosine to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def weight_groups(module: nn.Module) -> list[dict[str, object]]:
    """Groups of weights for the optimizer: only matrices decay."""
    named = list(module.named_parameters())
    decays = [weight for name, weight in named if weight.dim() > 1 and "embed" not in name]
    rest = [weight for name, weight in named if weight.dim() <= 1 or "embed" in name]
    return [{"params": decays, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]


class Run:
    """A folder with the results of a training, and with checkpoints to go on from."""

    _CHECKPOINT = "checkpoint.pt"

    def __init__(self, folder: Path, made_from: dict[str, object]) -> None:
        """Open ``folder``; what an earlier training has left there counts if it was made from the same.

        Raises `RunError`.
        """
        self.folder, self._made_from = folder, made_from
        folder.mkdir(parents=True, exist_ok=True)
        self._state: dict[str, Any] = {"phases": {}}
        path = folder / self._CHECKPOINT
        if path.is_file():
            state = _read(path)
            if differing := _differing(state["made_from"], made_from):
                raise RunError(
                    f"{printable(str(folder))} holds a training that was made from something else (other: "
                    f"{differing}): take another folder, or remove {printable(str(path))}"
                )
            self._state = state

    @property
    def notes(self) -> dict[str, Any]:
        """What the caller keeps in the checkpoint: numbers, texts, tensors."""
        notes: dict[str, Any] = self._state.setdefault("notes", {})
        return notes

    def taken(self, name: str) -> int:
        """How many steps of a phase the checkpoint holds."""
        return len(self._state["phases"].get(name, {"rows": ()})["rows"])

    def resume(self, module: nn.Module) -> None:
        """Give ``module`` the weights of the checkpoint, if there is one."""
        if "trainee" in self._state:
            module.load_state_dict(self._state["trainee"])

    def learn(
        self,
        name: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps: int,
        drawn: From,
        step_with: Callable[[int, Any], Row],
        on_step: OnStep,
        is_enough: Callable[[int], bool] = lambda _: False,
    ) -> list[Row]:
        """Take the steps of a phase that are left; returns what NAME.csv says of each step.

        ``is_enough`` is asked after each step, with how many are done, whether to leave out the others.
        """
        phase = self._state["phases"].setdefault(name, {"rows": [], "optimizer": None})
        rows: list[Row] = phase["rows"]
        if phase["optimizer"] is not None:
            optimizer.load_state_dict(phase["optimizer"])
        with self._table(name, rows) as write:
            on_step(len(rows), steps, rows)
            left = range(len(rows), 0 if phase.get("enough") else steps)
            for step, batch in zip(left, drawn(left.start) if left else (), strict=True):
                optimizer.zero_grad()
                rows.append({"step": step, **step_with(step, batch)})
                write(rows[-1])
                phase["enough"] = is_enough(len(rows))
                on_step(len(rows), steps, rows)
                if len(rows) % CHECKPOINT_EVERY == 0 or len(rows) == steps or phase["enough"]:
                    phase["optimizer"] = optimizer.state_dict()
                    self._save(module)
                if phase["enough"]:
                    break
        return rows

    @contextmanager
    def _table(self, name: str, rows: Sequence[Row]) -> Iterator[Callable[[Row], None]]:
        """NAME.csv with ``rows``; gives what writes another. Raises `RunError`."""
        path = self.folder / f"{name}.csv"
        try:
            file = path.open("w", newline="")
        except OSError as error:
            raise _file_error(path, error) from error

        def write(row: Row) -> None:
            try:
                if row["step"] == 0:  # the names first
                    table.writerow(row)
                table.writerow(f"{value:.6g}" for value in row.values())
                file.flush()
            except OSError as error:
                raise _file_error(path, error) from error

        try:
            table = csv.writer(file)
            for row in rows:
                write(row)
            yield write
        finally:
            with suppress(OSError):  # what was not written was told already
                file.close()

    def _save(self, module: nn.Module) -> None:
        stored = BytesIO()
        torch.save({**self._state, "made_from": self._made_from, "trainee": module.state_dict()}, stored)
        write_file(self.folder / self._CHECKPOINT, stored.getvalue())


def _differing(kept: Any, made_from: Mapping[str, object]) -> str:
    """Names of what two trainings were not both made from; empty: they are one."""
    if not isinstance(kept, dict):
        return "all"
    names = sorted({str(it) for it in kept} | set(made_from))
    return printable(", ".join(it for it in names if kept.get(it) != made_from.get(it)), 300)


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint. Raises `RunError`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if {"made_from", "phases", "trainee"} <= state.keys() and isinstance(state["phases"], dict):
            return dict(state)
        what = "parts of it are missing"
    except Exception as error:  # PyTorch meets damaged files with errors of many kinds
        what = in_a_line(error)
    raise RunError(
        f"{printable(str(path))} is no checkpoint of a training ({what}): remove it, and the training begins "
        "anew"
    )


def _file_error(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{printable(str(path))} cannot be written ({error.strerror or error}): make room, or take a "
        "folder on another disk"
    )
