"""The vision model on temporal patches of one size, whose position embeddings are cached.

It is the model's own arithmetic on the model's own weights (`Qwen3VLVisionModel`), for the one case that
occurs here: all patches have the same size, and none attends to another. So the patches are a batch,
and nothing waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from topreward_ros.scoring.bounded_dict import BoundedDict
from topreward_ros.scoring.qwen3_vl.cuda_graphs import GraphCache, GraphRunner, GraphWork
from topreward_ros.scoring.qwen3_vl.layer_functions import PLAIN, LayerFunctions
from topreward_ros.scoring.qwen3_vl.linear import Packer

_MAX_SIZES = 4  # of frames, whose position embeddings are cached
_MAX_CAPTURED = 2  # patches in a CUDA graph: what a tick brings; catching up is rare, and keeps a GPU busy


class BatchFeatures(NamedTuple):
    """Features of a batch of patches; a token stands for a block of merged pixel patches."""

    embeddings: torch.Tensor  #: (patches, tokens, hidden)
    deepstack: list[torch.Tensor]  #: (patches, tokens, hidden) each


class _Positions(NamedTuple):
    """Positions of the pixel patches of a grid, in the order of `patches.cut`."""

    embeddings: torch.Tensor  #: (rows * columns, hidden), added to the pixels' embeddings
    rotary: torch.Tensor  #: (2, 1, rows * columns, head size) float32: cos and sin


class VisionModel:
    """Runs a loaded vision model, with the weights that it has at construction."""

    def __init__(self, visual: Any, graphs: GraphRunner | None = None) -> None:
        """``graphs``: of the model's device, where the vision model may run as CUDA graphs."""
        self._visual = visual
        self._positions: BoundedDict[tuple[int, int], _Positions] = BoundedDict(
            _MAX_SIZES
        )  # by rows and columns
        self._graphs = graphs
        self._graph_cache = GraphCache()
        packer = Packer(visual)
        activation = visual.config.hidden_act
        self._blocks = [_Block(block, activation, packer) for block in visual.blocks]
        self._mergers = [_Merger(merger, packer) for merger in (visual.merger, *visual.deepstack_merger_list)]
        self._taps: list[int] = list(visual.deepstack_visual_indexes)  # after which blocks

    def __call__(self, pixels: torch.Tensor, rows: int, columns: int) -> BatchFeatures:
        """``pixels``: (patches, rows * columns, values of a pixel patch), in the order of `patches.cut`."""
        positions = self._positions_of(rows, columns)
        if self._graphs is None or len(pixels) > _MAX_CAPTURED:
            embeddings, *deepstack = self.run(pixels, positions)
        else:
            embeddings, *deepstack = self._graphs.run(
                owner=self,
                cache=self._graph_cache,
                shape=_BatchShape(len(pixels), rows, columns),
                inputs=pixels,
                make_work=lambda: _VisionWork(self, pixels, positions),
                run_eagerly=lambda: self.run(pixels, positions),
            )
        return BatchFeatures(embeddings, deepstack)

    @property
    def captured_functions(self) -> LayerFunctions:
        """What captured runs call between the matrix products."""
        return PLAIN if self._graphs is None else self._graphs.functions

    def run(
        self, pixels: torch.Tensor, positions: _Positions, functions: LayerFunctions = PLAIN
    ) -> list[torch.Tensor]:
        """Embeddings, and what is added after the first language layers, (patches, tokens, hidden) each."""
        project = self._visual.patch_embed.proj  # a convolution with stride = kernel size: a matrix product
        hidden = linear(pixels, project.weight.flatten(1), project.bias) + positions.embeddings
        merge, *deepstack_merges = self._mergers
        deepstack = []
        normed = layer_norm(hidden, hidden.shape[-1:], *self._blocks[0].norm)
        for number, block in enumerate(self._blocks):
            hidden, added = block(hidden, normed, positions.rotary, functions)
            if number + 1 < len(self._blocks):
                hidden, normed = functions.add_and_layer_norm(hidden, added, *self._blocks[number + 1].norm)
            else:
                hidden = hidden + added
            if number in self._taps:
                deepstack.append(deepstack_merges[self._taps.index(number)](hidden))
        return [merge(hidden), *deepstack]

    def input_shape(self, rows: int, columns: int) -> tuple[int, int]:
        """Of what `patches.cut` makes of a patch: (rows * columns, values of a pixel patch)."""
        return rows * columns, self._visual.patch_embed.proj.weight[0].numel()

    def work(self, pixels: torch.Tensor, rows: int, columns: int) -> GraphWork:
        """A run on pixels of this shape, as it is captured."""
        return _VisionWork(self, pixels, self._positions_of(rows, columns))

    def _positions_of(self, rows: int, columns: int) -> _Positions:
        if (rows, columns) not in self._positions:
            self._positions[rows, columns] = self._compute_positions(rows, columns)
        return self._positions[rows, columns]

    def _compute_positions(self, rows: int, columns: int) -> _Positions:
        """Position embeddings and rotary angles of a grid of pixel patches."""
        visual = self._visual
        merge = visual.spatial_merge_size
        table = visual.pos_embed.weight
        side = round(table.shape[0] ** 0.5)
        # Learned on a square grid, and interpolated bilinearly where there are more or fewer rows or columns.
        # Stated, as PyTorch's default is another one while a second model is loaded in this process.
        exact = {"dtype": torch.float32, "device": table.device}
        y = torch.linspace(0, side - 1, rows, **exact)
        x = torch.linspace(0, side - 1, columns, **exact)
        embeddings = torch.zeros(rows, columns, table.shape[1], dtype=table.dtype, device=table.device)
        square = table.view(side, side, -1)
        for dy in (0, 1):
            for dx in (0, 1):
                i, j = ((at.int() + step).clamp(max=side - 1) for at, step in ((y, dy), (x, dx)))
                weight_y, weight_x = (at.frac() if step else 1 - at.frac() for at, step in ((y, dy), (x, dx)))
                weight = (weight_y[:, None] * weight_x[None, :])[..., None].to(table.dtype)
                embeddings += square[i][:, j] * weight
        attention = visual.blocks[0].attn
        quarter = attention.head_dim // 4  # half of the frequencies encode rows, half columns
        theta = (getattr(visual.config, "rope_parameters", None) or {}).get("rope_theta", 10000.0)
        frequencies = theta ** -(torch.arange(quarter, **exact) / quarter)
        row_angles = torch.arange(rows, device=table.device)[:, None, None] * frequencies
        column_angles = torch.arange(columns, device=table.device)[None, :, None] * frequencies
        shape = (rows, columns, quarter)
        angles = torch.cat([row_angles.expand(shape), column_angles.expand(shape)] * 2, dim=-1)
        angles = _by_blocks(angles, merge)
        return _Positions(_by_blocks(embeddings, merge), torch.stack([angles.cos(), angles.sin()])[:, None])


def _by_blocks(grid: torch.Tensor, merge: int) -> torch.Tensor:
    """From (rows, columns, size) to (rows * columns, size), each ``merge`` x ``merge`` block in a row."""
    rows, columns, size = grid.shape
    blocks = grid.view(rows // merge, merge, columns // merge, merge, size).transpose(1, 2)
    return blocks.reshape(rows * columns, size)


class _Norm(NamedTuple):
    """What `layer_norm` takes."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float


def _norm_of(module: nn.LayerNorm) -> _Norm:
    return _Norm(module.weight, module.bias, module.eps)


class _Block:
    """A layer of the vision model, behind its first norm."""

    def __init__(self, block: Any, activation: str, packer: Packer) -> None:
        attention, mlp = block.attn, block.mlp
        self.norm, self._mlp_norm = _norm_of(block.norm1), _norm_of(block.norm2)
        self._heads, self._scaling = attention.num_heads, attention.scaling
        self._in, self._out = packer.linear(attention.qkv), packer.linear(attention.proj)
        self._up = packer.linear(mlp.linear_fc1, mlp.act_fn, activation)
        self._down = packer.linear(mlp.linear_fc2)

    def __call__(
        self, hidden: torch.Tensor, normed: torch.Tensor, rotary: torch.Tensor, functions: LayerFunctions
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the layer to (patches, pixel patches, hidden) and its norm, each patch by itself.

        Returns what is to be added up.
        """
        query, key, value = functions.split_and_rotate(self._in(normed), self._heads, *rotary)
        attended = scaled_dot_product_attention(query, key, value, scale=self._scaling)
        attended = self._out(attended.transpose(1, 2).flatten(2))
        hidden, normed = functions.add_and_layer_norm(hidden, attended, *self._mlp_norm)
        return hidden, self._down(self._up(normed))


class _Merger:
    """Merges each block of pixel patches into one token."""

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


class _BatchShape(NamedTuple):
    """What is fixed in a captured run of the vision model, and tells its graph from others."""

    patches: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"the vision model on {self.patches} patches of {self.rows} x {self.columns}"


class _VisionWork(GraphWork):
    """The vision model on a number of patches of one size."""

    def __init__(self, model: VisionModel, pixels: torch.Tensor, positions: _Positions) -> None:
        self._model, self._positions = model, positions
        self._pixels = torch.zeros_like(pixels)

    def load(self, inputs: torch.Tensor) -> None:
        """See `GraphWork.load`."""
        self._pixels.copy_(inputs)

    def run(self) -> list[torch.Tensor]:
        """See `GraphWork.run`."""
        return self._model.run(self._pixels, self._positions, self._model.captured_functions)
