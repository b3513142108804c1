"""Weights go from the mapped files to their place on a device, one after the other.

transformers maps the files into memory. A weight that stays in the type of its file is a view of that map,
which the page cache holds: no memory of this process. One that is converted is a copy, and a model that is
converted on the host before it moves is a copy of all. So it is read in the type of the files, and each
weight is sent to the device first and converted there. Nothing is read or checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from topreward_ros.scoring.checkpoint.weight_files import StoredTensor

if TYPE_CHECKING:
    import torch

Outline = Callable[
    ["torch.dtype"], Any
]  #: the model in that type on the device "meta", which holds no values


def dtype_to_read(
    stored: Collection[StoredTensor], device: torch.device, dtype: torch.dtype, outline: Outline
) -> torch.dtype:
    """The type in which the model of these files is best read, to be used on ``device`` in ``dtype``.

    It is that of the files where the weights go to another device and nothing of the model would differ for
    it: not where parts stay in float32, nor where numbers that no file holds are made in the type of the
    model, nor where files hold several types (a weight could be rounded twice). Else it is ``dtype``, and
    what has another type in the files is converted on the host. So are weights in files that are no
    safetensors.
    """
    import torch

    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    held = {types.get(tensor.dtype) for tensor in stored}
    own = held.pop() if len(held) == 1 else None
    if own is None or own is dtype or device.type == "cpu":
        return dtype
    asked, read = outline(dtype), outline(own)
    apart = (
        getattr(asked, "_keep_in_fp32_modules", None),
        getattr(asked, "_keep_in_fp32_modules_strict", None),
    )
    if any(apart) or dict(_buffer_types(asked)) != dict(_buffer_types(read)):
        return dtype
    return own


def _buffer_types(model: torch.nn.Module) -> Iterator[tuple[str, torch.dtype]]:
    return ((name, buffer.dtype) for name, buffer in model.named_buffers())


def dtypes_of(model: torch.nn.Module) -> dict[str, torch.dtype]:
    """The types of all weights, by name."""
    return {name: weight.dtype for name, weight in model.named_parameters(remove_duplicate=False)}


def place(
    model: torch.nn.Module,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype],
    placed: Callable[[str, torch.Tensor], None],
) -> None:
    """Move ``model`` to ``device``, each weight by itself, and convert it there to its type in ``dtypes``.

    A weight that has no type there keeps its own. Tied weights stay tied. ``placed`` is told of each weight
    once it is there.
    """
    from torch import nn

    moved: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # by id of the old one, which is kept: ids recur
    for prefix, module in model.named_modules():
        for own_name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in moved:
                name = f"{prefix}.{own_name}" if prefix else own_name
                there = _sent(weight, device, dtypes.get(name, weight.dtype))
                # What was the weight holds no memory from here on.
                moved[id(weight)] = weight, there
                if there is not weight:
                    weight.data = weight.data.new_empty(0)
                placed(name, there)
            module._parameters[own_name] = moved[id(weight)][1]
    model.to(device)  # the buffers, which are small


def _sent(weight: torch.nn.Parameter, device: torch.device, dtype: torch.dtype) -> torch.nn.Parameter:
    """``weight`` on ``device`` in ``dtype``; the same one where it is there already."""
    from torch import nn

    data = weight.detach()
    there = data.to(device).to(dtype)
    return weight if there is data else nn.Parameter(there, requires_grad=False)


def state_dtype(config: Any, dtype: torch.dtype) -> None:
    """Let the configuration of a model say that it is in ``dtype``, as if it had been read so."""
    config.dtype = dtype
    for part in getattr(config, "sub_configs", ()):
        if (inner := getattr(config, part, None)) is not None:
            state_dtype(inner, dtype)
