"""The heads of a Robometer: from what the backbone makes of a frame to progress and success.

Each is a linear layer to half the width, a layer norm, GELU and a linear layer. Progress is a distribution
over evenly spaced values from 0 to 1, of which the mean is taken, or one logit; success is one logit. They
are small, and computed in float32 whatever the backbone's dtype is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import nn

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint
from topreward_ros.scoring.checkpoint.load import ValueCheck
from topreward_ros.scoring.checkpoint.weight_files import loaded_files, read_head


class Stated(NamedTuple):
    """What the heads say of a frame."""

    progress: float  #: [0, 1]
    success_probability: float  #: [0, 1]


class RewardHeads(nn.Module):
    """The progress and the success head, as their weights are named in the files."""

    def __init__(self, width: int, bins: int) -> None:
        """``width``: of the backbone; ``bins``: see `RewardFormat.bins`."""
        super().__init__()
        self.bins = bins
        self.progress_head = _head(width, bins or 1)
        self.success_head = _head(width, 1)

    @torch.inference_mode()
    def read(self, hidden: torch.Tensor) -> Stated:
        """What is said of a frame, by the backbone's last hidden state (width,) at its token."""
        hidden = hidden.float()
        progress = self.progress_head(hidden)
        if self.bins:
            values = torch.linspace(0.0, 1.0, self.bins, device=hidden.device)
            progress = progress.softmax(-1) @ values
        else:
            progress = progress[0].sigmoid()
        return Stated(float(progress), float(self.success_head(hidden)[0].sigmoid()))


def _head(width: int, outputs: int) -> nn.Sequential:
    # In training a dropout stands before the last layer, which is therefore number 4.
    return nn.Sequential(
        nn.Linear(width, width // 2),
        nn.LayerNorm(width // 2),
        nn.GELU(),
        nn.Identity(),
        nn.Linear(width // 2, outputs),
    )


def load_heads(checkpoint: Checkpoint, width: int, device: torch.device) -> RewardHeads:
    """The heads of a Robometer whose backbone has ``width``, on ``device``. Raises `ScorerError`."""
    assert checkpoint.reward is not None, checkpoint.folder
    with torch.device("meta"):
        heads = RewardHeads(width, checkpoint.reward.bins)
    wanted = {name: tuple(weight.shape) for name, weight in heads.named_parameters()}
    place = {
        tensor.name: (path, tensor) for path in loaded_files(checkpoint.folder) for tensor in read_head(path)
    }
    if lacking := [name for name in wanted if name not in place]:
        more = f" and {len(lacking) - 1} more of its heads" if len(lacking) > 1 else ""
        raise ScorerError(
            f"{checkpoint.folder} is a Robometer and has no weight {lacking[0]!r}{more}, without which it "
            "says nothing of progress: copy the checkpoint again"
        )
    weights = {}
    for name, shape in wanted.items():
        path, tensor = place[name]
        if tensor.shape != shape:
            raise ScorerError(
                f"{checkpoint.folder}: the weight {name!r} has the shape {tensor.shape}, and config.json "
                f"asks for {shape}: they are of different models; take both from the same checkpoint"
            )
        if tensor.dtype not in ("F32", "F16", "BF16", "F64"):
            raise ScorerError(
                f"{checkpoint.folder}: the weight {name!r} is of type {printable(tensor.dtype, 20)}, which "
                "is not supported: take the unquantized checkpoint"
            )
        with safe_open(path, "pt") as file:
            weights[name] = file.get_tensor(name).float()
    heads.load_state_dict(weights, assign=True)
    values = ValueCheck(checkpoint.folder, heads)
    for name, weight in heads.named_parameters():
        values.look(name, weight)
    values.tell()
    heads.requires_grad_(False)
    return heads.to(device).eval()
