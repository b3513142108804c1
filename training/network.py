"""The embedded model in training: the network of `topreward_ros.offline.distill`, with auxiliary heads.

The heads tell what the simulator knows (hand, object, task) from the hidden states; they help at the start,
and the export drops them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3VLConfig

from topreward_ros.offline.distill import network
from topreward_ros.offline.distill.network import EMBEDDED, MERGE, PATCH, Student, draw_weights
from training.instructions import TASKS
from training.samples import SIZES, Glance, Sample

HIDDEN = EMBEDDED.text_hidden


def make_tokenizer() -> Tokenizer:
    """A tokenizer for which every word of the prompt and of the trained wordings is one token."""
    return network.make_tokenizer([wording for task in TASKS for wording in task.trained])


def make_config(tokenizer: Tokenizer) -> Qwen3VLConfig:
    """Configuration of a model of 3.2 M parameters, half of them in the vision model."""
    return network.make_config(tokenizer, EMBEDDED)


@dataclass
class Batch(network.Batch):
    """A batch with what the simulator knows."""

    asked: torch.Tensor  #: (B, Q) the task that is asked for
    newest: torch.Tensor  #: (B, Q) the last patch that the question is about
    hand: torch.Tensor  #: (B, P, 3)
    moved: torch.Tensor  #: (B, P)
    known_progress: torch.Tensor  #: (B, P)
    success: torch.Tensor  #: (B, P)
    seen: torch.Tensor  #: (B, P) 1 where the patch shows the scene of the task, else 0
    task: torch.Tensor  #: (B,)
    forward: torch.Tensor  #: (B,) bool, see `samples.Known`


@dataclass
class Look:
    """B pairs of frames, as tensors."""

    pixels: torch.Tensor  #: (B * rows * columns, 3 * 2 * PATCH * PATCH)
    grid: torch.Tensor  #: (B, 3) time, rows, columns
    hand: torch.Tensor  #: (B, 3)
    moved: torch.Tensor  #: (B,)
    task: torch.Tensor  #: (B,)

    def to(self, device: torch.device) -> Look:
        return Look(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


class Stream:
    """Turns samples into a `Batch`, and glances into a `Look`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._stream = network.Stream(tokenizer)

    def batch(self, samples: list[Sample]) -> Batch:
        """A batch of samples with the same number of patches, questions and pixels."""
        known = [sample.known for sample in samples]
        return Batch(
            **self._stream.batch(samples).__dict__,
            asked=torch.tensor([[question.task for question in sample.questions] for sample in samples]),
            newest=torch.tensor(
                [[question.patches - 1 for question in sample.questions] for sample in samples]
            ),
            hand=torch.stack([torch.from_numpy(one.hand) for one in known]).float(),
            moved=torch.stack([torch.from_numpy(one.moved) for one in known]).float(),
            known_progress=torch.stack([torch.from_numpy(one.progress) for one in known]).float(),
            success=torch.stack([torch.from_numpy(one.success) for one in known]).float(),
            seen=torch.stack([torch.from_numpy(one.seen) for one in known]).float(),
            task=torch.tensor([one.task for one in known]),
            forward=torch.tensor([one.forward for one in known]),
        )

    def look(self, glances: list[Glance]) -> Look:
        """A look made of glances of the same size."""
        height, width = glances[0].frames.shape[1:3]
        return Look(
            pixels=torch.cat([self._stream.pixels(glance.frames) for glance in glances]),
            grid=torch.tensor([[1, height // PATCH, width // PATCH]] * len(glances)),
            hand=torch.from_numpy(np.stack([glance.hand for glance in glances])).float(),
            moved=torch.tensor([glance.moved for glance in glances]),
            task=torch.tensor([glance.task for glance in glances]),
        )


#: Tokens of one patch, by the size of frames.
_TOKENS = sorted({(height // PATCH // MERGE) * (width // PATCH // MERGE) for height, width in SIZES})
_AT_ANSWER = ("asked", "task", "hand", "moved", "progress")
_SEEN = ("task", "hand", "moved")


class Trainee(Student):
    """The model that will be shipped, and auxiliary heads that help training."""

    def __init__(self, tokenizer: Tokenizer, seed: int, bfloat16: bool = False) -> None:
        super().__init__(tokenizer, make_config(tokenizer), bfloat16)
        tasks = len(TASKS)
        known = {"hand": 3, "moved": tasks, "progress": tasks, "success": tasks, "task": tasks}
        self.heads = nn.ModuleDict(
            {
                # After every patch: what the language model knows of the video so far.
                **{name: nn.Linear(HIDDEN, outputs) for name, outputs in known.items()},
                # Where the answer is given: the task asked for, the scene, and its state in the newest patch.
                # Without these heads the answers ignored the video for the first five hundred steps.
                **{f"answer_{name}": nn.Linear(HIDDEN, known.get(name, tasks)) for name in _AT_ANSWER},
                # What the vision model sees in one patch: all its tokens side by side, which is learnt
                # quickly, and their mean, which attention can compute.
                # Without these heads the scenes were not told apart after five thousand videos.
                **{
                    f"seen_{name}_{pool}": nn.Linear(width * HIDDEN, known[name])
                    for pool, width in (*((str(tokens), tokens) for tokens in _TOKENS), ("mean", 1))
                    for name in _SEEN
                },
            }
        )
        draw_weights(self, seed)

    def losses(self, batch: network.Batch) -> dict[str, torch.Tensor]:
        """The terms of the loss, each a mean over the batch."""
        assert isinstance(batch, Batch)
        log_probs, answers, states, seen = self(batch)
        said = {name: self.heads[name](states) for name in ("hand", "moved", "progress", "success", "task")}
        task = batch.task[:, None].expand(states.shape[:2])
        forward = batch.forward[:, None].float() * batch.seen
        success = nn.functional.binary_cross_entropy_with_logits(
            _of_task(said["success"], task), batch.success, reduction="none"
        )
        progress = (_of_task(said["progress"], task) - batch.known_progress).square()
        return {
            **self.answer_losses(log_probs, batch.progress),
            **_state_losses(said, batch.hand, batch.moved, task, batch.seen),
            "progress": (progress * forward).sum() / (forward.sum() + 1e-6),
            "success": (success * forward).sum() / (forward.sum() + 1e-6),
            **self._answer_losses(answers, batch),
            **self._seen_losses(seen, batch.hand, batch.moved, task, batch.seen),
        }

    def _answer_losses(self, answers: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of the heads on the hidden states (B, Q, hidden) where answers are given."""
        rows = torch.arange(len(answers), device=answers.device)[:, None]
        said = {name: self.heads[f"answer_{name}"](answers) for name in _AT_ANSWER}
        task = batch.task[:, None].expand_as(batch.asked)
        is_seen = batch.seen[rows, batch.newest]
        forward = batch.forward[:, None].float() * is_seen
        progress = (_of_task(said["progress"], task) - batch.known_progress[rows, batch.newest]).square()
        hand, moved = batch.hand[rows, batch.newest], batch.moved[rows, batch.newest]
        state = _state_losses(said, hand, moved, task, is_seen)
        return {
            "answer_asked": nn.functional.cross_entropy(said["asked"].flatten(0, 1), batch.asked.flatten()),
            **{f"answer_{name}": loss for name, loss in state.items()},
            "answer_progress": (progress * forward).sum() / (forward.sum() + 1e-6),
        }

    def look_losses(self, look: Look) -> dict[str, torch.Tensor]:
        """The terms of the loss while only the vision model learns."""
        core: Any = self.model.model
        with self.precision(look.pixels.device):
            seen = core.visual(look.pixels, grid_thw=look.grid).pooler_output
        seen = seen.float().view(len(look.task), -1)
        return self._seen_losses(seen, look.hand, look.moved, look.task, torch.ones_like(look.moved))

    def _seen_losses(
        self,
        seen: torch.Tensor,
        hand: torch.Tensor,
        moved: torch.Tensor,
        task: torch.Tensor,
        counts: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Losses of the heads on vision features (..., tokens * hidden); targets are (...) or (..., 3)."""
        tokens = seen.unflatten(-1, (-1, HIDDEN))
        losses = {}
        for pool, pooled in (("flat", seen), ("mean", tokens.mean(-2))):
            kind = "mean" if pool == "mean" else str(tokens.shape[-2])
            said = {name: self.heads[f"seen_{name}_{kind}"](pooled) for name in _SEEN}
            for name, loss in _state_losses(said, hand, moved, task, counts).items():
                losses[f"seen_{name}_{pool}"] = loss
        return losses


def _state_losses(
    said: dict[str, torch.Tensor],
    hand: torch.Tensor,
    moved: torch.Tensor,
    task: torch.Tensor,
    counts: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Losses for the scene, the place of the hand and how far the object moved; for any leading shape.

    Means over what ``counts`` (...), 1 or 0.
    """
    scene = nn.functional.cross_entropy(said["task"].flatten(0, -2), task.flatten(), reduction="none")
    losses = {
        "task": scene.view(task.shape),
        "hand": (said["hand"] - hand * 5).square().mean(-1),
        "moved": (_of_task(said["moved"], task) - moved).square(),
    }
    return {name: (loss * counts).sum() / (counts.sum() + 1e-6) for name, loss in losses.items()}


def _of_task(said: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
    """Select the output of the true task (...) among those of all tasks (..., tasks)."""
    return said.gather(-1, task[..., None])[..., 0]
