"""A student while it learns: auxiliary heads tell from every patch what it is asked of a few prefixes alone.

How far a film is said to be is known after each of its patches. One head has to tell it from what the
language model knows by then, others from what the vision model sees in that patch, beside which task's scene
it is: so objects that the model has never seen are learnt from some thousand patches a minute, and not from a
few answers a step. The heads stay behind when the model is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3VLConfig

from topreward_ros.offline.distill import network
from topreward_ros.offline.distill.network import MERGE, PATCH, Student

#: Weights of the terms of the loss; those of the heads decrease, as they help at the start.
_ANSWERS = {"answer": 1.0, "odds": 1.0}
_HEADS = {"patch": 2.0, "scene_flat": 0.2, "scene_mean": 0.2, "state_flat": 1.5, "state_mean": 1.5}


@dataclass
class Batch(network.Batch):
    """A batch with what is known after every patch."""

    task: torch.Tensor  #: (B,) place of the film's own instruction
    target: torch.Tensor  #: (B, P) progress, 0 to 1, that is to be told after each patch
    state: torch.Tensor  #: (B, P) progress, 0 to 1, of the state that the patch shows, however it came about
    seen: torch.Tensor  #: (B, P) 1 where the patch shows the scene of the task, else 0


class Pupil(Student):
    """A student with its heads.

    ``tasks``: how many instructions there are; ``sizes``: heights and widths [px] of the frames that it sees.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: Qwen3VLConfig,
        tasks: int,
        sizes: Iterable[tuple[int, int]],
        bfloat16: bool = False,
    ) -> None:
        super().__init__(tokenizer, config, bfloat16)
        hidden = self.hidden
        tokens = sorted({height * width // (PATCH * MERGE) ** 2 for height, width in sizes})
        self.heads = nn.ModuleDict({"patch": nn.Linear(hidden, tasks)})
        for name, width in (("mean", 1), *((str(number), number) for number in tokens)):
            self.heads[f"scene_{name}"] = nn.Linear(width * hidden, tasks)
            self.heads[f"state_{name}"] = nn.Linear(width * hidden, tasks)

    def losses(self, batch: network.Batch) -> dict[str, torch.Tensor]:
        """The terms of the loss, each a mean over the batch."""
        assert isinstance(batch, Batch)
        log_probs, _, states, seen = self(batch)
        task = batch.task[:, None].expand_as(batch.target)
        told = (_of_task(self.heads["patch"](states), task) - batch.target).square()
        return {
            **self.answer_losses(log_probs, batch.progress),
            "patch": told.mean(),
            **self._seen_losses(seen, batch, task),
        }

    def _seen_losses(self, seen: torch.Tensor, batch: Batch, task: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of what the vision model sees, (B, P, tokens * hidden): all tokens side by side, and their mean."""
        tokens = seen.unflatten(-1, (-1, self.hidden))
        counts = batch.seen
        losses = {}
        for pool, name, pooled in (
            ("flat", str(tokens.shape[-2]), seen),
            ("mean", "mean", tokens.mean(-2)),
        ):
            scene = nn.functional.cross_entropy(
                self.heads[f"scene_{name}"](pooled).flatten(0, -2), task.flatten(), reduction="none"
            ).view(task.shape)
            state = (_of_task(self.heads[f"state_{name}"](pooled), task) - batch.state).square()
            losses[f"scene_{pool}"] = (scene * counts).sum() / (counts.sum() + 1e-6)
            losses[f"state_{pool}"] = (state * counts).sum() / (counts.sum() + 1e-6)
        return losses


def total_loss(losses: dict[str, torch.Tensor], done: float) -> torch.Tensor:
    """Weighted sum of the terms; ``done`` is the share of all steps that were taken."""
    weights = {**_ANSWERS, **{name: weight * (1 - 0.8 * done) for name, weight in _HEADS.items()}}
    return torch.stack([losses[name] * weight for name, weight in weights.items()]).sum()


def _of_task(said: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
    """Select the output of the true task (...) among those of all tasks (..., tasks)."""
    return said.gather(-1, task[..., None])[..., 0]


def with_known(
    batch: network.Batch,
    task: Sequence[int],
    target: torch.Tensor,
    state: torch.Tensor,
    seen: torch.Tensor,
) -> Batch:
    """``batch`` with what is known of it, see `Batch`."""
    return Batch(
        **batch.__dict__,
        task=torch.tensor(task),
        target=target.float(),
        state=state.float(),
        seen=seen.float(),
    )
