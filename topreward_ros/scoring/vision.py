"""The vision model on temporal patches of one size, with nothing computed anew that hangs on the size alone.

It is the model's own arithmetic on the model's own weights (`Qwen3VLVisionModel`), for the one case that
occurs here: all patches of equal size, none of which looks at another. So they are a batch, positions are
found once, and nothing waits for the device.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from topreward_ros.scoring.attention import rotate


class Features(NamedTuple):
    """Of a number of patches; a token stands for a block of merged pixel patches."""

    embeddings: torch.Tensor  #: (patches, tokens, hidden)
    deepstack: list[torch.Tensor]  #: (patches, tokens, hidden) each


class VisionModel:
    """Runs a loaded vision model."""

    def __init__(self, visual: Any) -> None:
        self._visual = visual
        self._places = lru_cache(maxsize=4)(self._find_places)  # by rows and columns of pixel patches

    def __call__(self, pixels: torch.Tensor, rows: int, columns: int) -> Features:
        """``pixels``: (patches, rows * columns, values of a pixel patch), in the order of `patches.cut`."""
        visual = self._visual
        project = visual.patch_embed.proj  # a convolution whose steps do not overlap is a matrix product
        position, turn = self._places(rows, columns)
        hidden = linear(pixels, project.weight.flatten(1), project.bias) + position
        count, size = len(pixels), hidden.shape[-1]
        deepstack = []
        for number, block in enumerate(visual.blocks):
            hidden += _attend(block.attn, block.norm1(hidden), turn)
            hidden += block.mlp(block.norm2(hidden))
            if number in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
                deepstack.append(merger(hidden.reshape(-1, size)).unflatten(0, (count, -1)))
        return Features(visual.merger(hidden.reshape(-1, size)).unflatten(0, (count, -1)), deepstack)

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


def _attend(attention: Any, hidden: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Attention of every patch (patches, tokens, hidden) to itself."""
    split = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = split.permute(2, 0, 3, 1, 4)  # (patches, heads, tokens, head size) each
    # In float32, as the model does it here.
    query, key = (rotate(each.float(), *turn).to(each.dtype) for each in (query, key))
    seen = scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    made: torch.Tensor = attention.proj(seen.transpose(1, 2).flatten(2))
    return made
