"""The vision model on temporal patches of one size, with nothing computed anew that hangs on the size alone.

It is the model's own arithmetic on the model's own weights (`Qwen3VLVisionModel`), for the one case that
occurs here: all patches of equal size, none of which looks at another. So they are a batch, positions are
found once, and nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

from topreward_ros.scoring.newest import Newest
from topreward_ros.scoring.qwen3_vl.attention import rotate
from topreward_ros.scoring.qwen3_vl.cuda_graphs import Recorder, Recordings, Work
from topreward_ros.scoring.qwen3_vl.linear import Packer

_MOST_SIZES = 4  # of frames, of which positions are kept
_MOST_RECORDED = 2  # patches in a recording: what a tick brings; catching up is rare, and busy enough


class Features(NamedTuple):
    """Of a number of patches; a token stands for a block of merged pixel patches."""

    embeddings: torch.Tensor  #: (patches, tokens, hidden)
    deepstack: list[torch.Tensor]  #: (patches, tokens, hidden) each


class VisionModel:
    """Runs a loaded vision model. Its weights count as they are when this is made."""

    def __init__(self, visual: Any, recorder: Recorder | None = None) -> None:
        self._visual = visual
        self._places: Newest[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = Newest(_MOST_SIZES)
        self._recorder = recorder
        self._recordings = Recordings()
        packer = Packer(visual)
        activation = visual.config.hidden_act
        self._blocks = [_Block(block, activation, packer) for block in visual.blocks]
        self._mergers = [_Merger(merger, packer) for merger in (visual.merger, *visual.deepstack_merger_list)]
        self._taps: list[int] = list(visual.deepstack_visual_indexes)  # after which blocks

    def __call__(self, pixels: torch.Tensor, rows: int, columns: int) -> Features:
        """``pixels``: (patches, rows * columns, values of a pixel patch), in the order of `patches.cut`."""
        if (rows, columns) not in self._places:
            self._places[rows, columns] = self._find_places(rows, columns)
        place = self._places[rows, columns]
        if self._recorder is None or len(pixels) > _MOST_RECORDED:
            embeddings, *deepstack = self.run(pixels, *place)
        else:
            embeddings, *deepstack = self._recorder.run(
                *(self, self._recordings, _Shape(len(pixels), rows, columns), pixels),
                make_work=lambda: _RecordedVision(self, pixels, place),
                run_unrecorded=lambda: self.run(pixels, *place),
            )
        return Features(embeddings, deepstack)

    def run(self, pixels: torch.Tensor, position: torch.Tensor, turn: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings, and what is added to the first language layers, (patches, tokens, hidden) each."""
        project = self._visual.patch_embed.proj  # a convolution whose steps do not overlap: a matrix product
        hidden = linear(pixels, project.weight.flatten(1), project.bias) + position
        merge, *deepstack_merges = self._mergers
        deepstack = []
        for number, block in enumerate(self._blocks):
            hidden = block(hidden, turn)
            if number in self._taps:
                deepstack.append(deepstack_merges[self._taps.index(number)](hidden))
        return [merge(hidden), *deepstack]

    def _find_places(self, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Position embeddings (rows * columns, hidden), and by what queries and keys are turned.

        The latter are cosine and sine, (2, 1, rows * columns, head size), float32.
        """
        visual = self._visual
        merge = visual.spatial_merge_size
        table = visual.pos_embed.weight
        side = round(table.shape[0] ** 0.5)
        # Learned for a square of places, and read between them where there are more or fewer.
        y = torch.linspace(0, side - 1, rows, device=table.device)
        x = torch.linspace(0, side - 1, columns, device=table.device)
        embeddings = torch.zeros(rows, columns, table.shape[1], dtype=table.dtype, device=table.device)
        square = table.view(side, side, -1)
        for down in (0, 1):
            for right in (0, 1):
                i, j = ((at.int() + step).clamp(max=side - 1) for at, step in ((y, down), (x, right)))
                near_y, near_x = (
                    at.frac() if step else 1 - at.frac() for at, step in ((y, down), (x, right))
                )
                weight = (near_y[:, None] * near_x[None, :])[..., None].to(table.dtype)
                embeddings += square[i][:, j] * weight
        attention = visual.blocks[0].attn
        quarter = attention.head_dim // 4  # half of a head turns by the row, half by the column, in pairs
        theta = (getattr(visual.config, "rope_parameters", None) or {}).get("rope_theta", 10000.0)
        speed = theta ** -(torch.arange(quarter, device=table.device) / quarter)
        down = torch.arange(rows, device=table.device)[:, None, None] * speed
        right = torch.arange(columns, device=table.device)[None, :, None] * speed
        shape = (rows, columns, quarter)
        angles = torch.cat([down.expand(shape), right.expand(shape)] * 2, dim=-1)
        angles = _by_blocks(angles, merge)
        return _by_blocks(embeddings, merge), torch.stack([angles.cos(), angles.sin()])[:, None]


def _by_blocks(grid: torch.Tensor, merge: int) -> torch.Tensor:
    """From (rows, columns, size) to (rows * columns, size), the ``merge`` x ``merge`` of a token in a row."""
    rows, columns, size = grid.shape
    blocks = grid.view(rows // merge, merge, columns // merge, merge, size).transpose(1, 2)
    return blocks.reshape(rows * columns, size)


class _Block:
    """A layer of the vision model."""

    def __init__(self, block: Any, activation: str, packer: Packer) -> None:
        attention, mlp = block.attn, block.mlp
        self._norm, self._mlp_norm = block.norm1, block.norm2
        self._heads, self._scaling = attention.num_heads, attention.scaling
        self._in, self._out = packer.linear(attention.qkv), packer.linear(attention.proj)
        self._up = packer.linear(mlp.linear_fc1, mlp.act_fn, activation)
        self._down = packer.linear(mlp.linear_fc2)

    def __call__(self, hidden: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        """On (patches, tokens, hidden), each patch by itself."""
        hidden = hidden + self._attend(self._norm(hidden), turn)
        hidden += self._down(self._up(self._mlp_norm(hidden)))
        return hidden

    def _attend(self, hidden: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        split = self._in(hidden).view(*hidden.shape[:2], 3, self._heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (patches, heads, tokens, head size) each
        # In float32, as the model does it here.
        query, key = (rotate(each.float(), *turn).to(each.dtype) for each in (query, key))
        seen = scaled_dot_product_attention(query, key, value, scale=self._scaling)
        return self._out(seen.transpose(1, 2).flatten(2))


class _Merger:
    """Makes one token of a block of pixel patches."""

    def __init__(self, merger: Any, packer: Packer) -> None:
        self._norm = merger.norm
        self._size: int = merger.hidden_size  # of a block
        self._norm_comes_first = not merger.use_postshuffle_norm
        name = "gelu" if isinstance(merger.act_fn, nn.GELU) and merger.act_fn.approximate == "none" else ""
        self._up = packer.linear(merger.linear_fc1, merger.act_fn, name)
        self._down = packer.linear(merger.linear_fc2)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """From (patches, pixel patches, size) to (patches, tokens, hidden)."""
        if self._norm_comes_first:
            hidden = self._norm(hidden)
        hidden = hidden.reshape(len(hidden), -1, self._size)
        if not self._norm_comes_first:
            hidden = self._norm(hidden)
        return self._down(self._up(hidden))


class _Shape(NamedTuple):
    """What is fixed in a recording of the vision model."""

    patches: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"the vision model on {self.patches} patches of {self.rows} x {self.columns}"


class _RecordedVision(Work):
    """The vision model on a number of patches of one size."""

    def __init__(
        self, model: VisionModel, pixels: torch.Tensor, place: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        self._model, self._place = model, place
        self._pixels = torch.zeros_like(pixels)

    def fill(self, given: torch.Tensor) -> None:
        """See `Work.fill`."""
        self._pixels.copy_(given)

    def run(self) -> list[torch.Tensor]:
        """See `Work.run`."""
        return self._model.run(self._pixels, *self._place)
