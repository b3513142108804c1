"""Merging a LoRA adapter into a loaded model: does it fit, and then peft adds its products to the weights.

Which layers are changed is said by the weights in the adapter's file. That these are all layers which its
configuration asks for, and that each has the shape that its layer and its rank want, is looked at before
anything is changed. peft is an optional library (the extra ``adapters``).
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, in_a_line, quiet_logging
from topreward_ros.scoring.checkpoint.adapter_files import WEIGHTS, Adapter, no_peft

_log = logging.getLogger(__name__)

_MATCH_S = 20.0  # [s] for an expression over all names; a healthy one takes milliseconds
#: Tells which of the names fit the expression; a process of its own can be given up.
_MATCHER = (
    "import json, re, sys\n"
    "pattern, names = json.load(sys.stdin)\n"
    "json.dump([name for name in names if re.fullmatch(pattern, name)], sys.stdout)"
)
_ALL_LINEAR = "all-linear"
_OTHER = "the adapter belongs to another model; name that one as model, or another adapter"


def import_peft() -> Any:
    """The library peft. Raises `ScorerError` where it is not installed."""
    try:
        with quiet_logging():
            import peft
    except Exception as error:  # an import may fail with anything
        raise ScorerError(no_peft(in_a_line(error))) from error
    return peft


def merge(model: Any, adapter: Adapter) -> list[str]:
    """Add ``adapter`` to the weights of ``model``; returns the names of those weights.

    Raises `ScorerError` where it does not fit, and for one that is damaged.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    _check_fit(model, layers, adapter)
    values = load_file(adapter.folder / WEIGHTS)
    _check_values(adapter, values)
    peft = import_peft()  # one that fits no model is not worth its installation
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        use_rslora=adapter.root_scaling,
        rank_pattern=dict(adapter.ranks),
        alpha_pattern=dict(adapter.alphas),
        target_modules=sorted(adapter.pairs),
        init_lora_weights=False,
    )
    with quiet_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wrapped = peft.get_peft_model(model, config)
            loading = peft.set_peft_model_state_dict(wrapped, values)
            lost = [*loading.unexpected_keys, *(key for key in loading.missing_keys if ".lora_" in key)]
            if lost:
                raise ScorerError(
                    f"{adapter.folder}: peft finds no place for {printable(lost[0], 200)!r}: {_OTHER}"
                )
            for layer in adapter.pairs:  # peft adds in place, and these may be views of the mapped file
                layers[layer].weight.data = layers[layer].weight.data.clone()
            wrapped.merge_and_unload()
        except ValueError as error:
            raise ScorerError(
                f"{adapter.folder} cannot be merged ({in_a_line(error)}): use another adapter"
            ) from error
    model.requires_grad_(False)
    _log.info("merged the adapter %s into %d layers", adapter.folder, len(adapter.pairs))
    return [f"{layer}.weight" for layer in adapter.pairs]


def _check_fit(model: Any, layers: dict[str, nn.Linear], adapter: Adapter) -> None:
    """Raise `ScorerError` where a pair has no layer, a layer no pair, or one has another shape."""
    if unknown := sorted(adapter.pairs.keys() - layers.keys()):
        base = f", made for {printable(adapter.base_model, 200)}," if adapter.base_model else ""
        raise ScorerError(
            f"{adapter.folder}{base} changes the layer {unknown[0]!r}, and the model has no linear layer of "
            f"that name: {_OTHER}"
        )
    embedding = model.get_input_embeddings()
    for name, (down, up) in adapter.pairs.items():
        layer, rank = layers[name], adapter.rank_of(name)
        wanted = (rank, layer.in_features), (layer.out_features, rank)
        if (down.shape, up.shape) != wanted:
            raise ScorerError(
                f"{adapter.folder}: lora_A and lora_B of {name!r} have the shapes {down.shape} and "
                f"{up.shape}, and with rank {rank} this model needs {wanted[0]} and {wanted[1]}: {_OTHER}"
            )
        if layer.weight is embedding.weight:
            raise ScorerError(
                f"{adapter.folder} changes {name!r}, which is the embedding of this model at the same time: "
                "merge it with peft's merge_and_unload(), and name the result as model"
            )
    if lacking := sorted(_wanted(model, layers, adapter) - adapter.pairs.keys()):
        raise ScorerError(
            f"{adapter.folder}: its configuration asks for {len(lacking)} more layers of this model than its "
            f"file has, first {lacking[0]!r}: the adapter is not complete, or of another model; copy it again"
        )


def _wanted(model: Any, layers: dict[str, nn.Linear], adapter: Adapter) -> set[str]:
    """The layers that the adapter's configuration asks for."""
    names = sorted(layers)
    if adapter.targets == _ALL_LINEAR:
        head = model.get_output_embeddings()
        found = {name for name in names if layers[name] is not head}
    else:
        found = _chosen(adapter, adapter.targets, names)
    return found - _chosen(adapter, adapter.excluded, names) if adapter.excluded else found


def _chosen(adapter: Adapter, choice: Sequence[str], names: list[str]) -> set[str]:
    """Those of ``names`` that have one of these endings, or fit the expression ``choice``."""
    if not isinstance(choice, str):
        return {name for name in names if any(name == end or name.endswith(f".{end}") for end in choice)}
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER],
            input=json.dumps([choice, names]),
            capture_output=True,
            text=True,
            timeout=_MATCH_S,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        is_slow = isinstance(error, subprocess.TimeoutExpired)
        why = f"takes more than {_MATCH_S:g} s" if is_slow else "cannot be read"
        raise ScorerError(
            f"{adapter.folder}: the expression {printable(choice, 100)!r} for its layers {why}: merge the "
            "adapter elsewhere, with peft's merge_and_unload()"
        ) from error
    return set(parsed_json(answer.stdout))


def _check_values(adapter: Adapter, values: dict[str, torch.Tensor]) -> None:
    for name, weight in values.items():
        if not bool(torch.isfinite(weight).all()):
            raise ScorerError(
                f"{adapter.folder}: the weight {name!r} has values that are not finite: the adapter is "
                "damaged, or its training failed; use another"
            )
    if not any(bool(weight.any()) for name, weight in values.items() if ".lora_B." in name):
        raise ScorerError(
            f"{adapter.folder} changes nothing, as all its lora_B are zero: it was never trained, or its "
            "file has holes; copy it again, or leave adapter empty"
        )
