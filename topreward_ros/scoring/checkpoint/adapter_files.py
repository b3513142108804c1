"""The folder of a LoRA adapter: what its configuration says, and which weights its file has.

Only plain LoRA of linear layers is taken: for each layer a pair of matrices, whose product is added to its
weight. What would need more than that, or be left out by it, is refused by name here, before a model is
loaded; whether it fits one, and the merging, are in adapter.py. No weights are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, in_a_line
from topreward_ros.scoring.checkpoint.weight_files import StoredTensor, read_head, short_hash
from topreward_ros.scoring.json_files import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"

_MERGE = (
    "merge it with peft's merge_and_unload(), save_pretrained() the result, and name that folder as model"
)
_LARGEST_RANK = 65_536
_LARGEST_ALPHA = 1_000_000
_MOST_PATTERNS = 500  # as many as Python keeps compiled
_MOST_TARGETS = 10_000
_LONGEST_PATTERN = 4_000  # characters
_PAIR = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,400})\.lora_(A|B)\.weight")
_PLAIN_PATTERN = re.compile(r"\^?[A-Za-z0-9_.]{1,400}\$?")

#: Keys that change nothing about what the stored weights mean, whatever they say.
_OF_NO_EFFECT = frozenset(
    (
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
        *("inference_mode", "lora_dropout", "megatron_core", "qalora_group_size", "eva_config"),
        *("layers_pattern", "ensure_weight_tying", "runtime_config"),
    )
)
_USED = frozenset(
    (
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
        *("target_modules", "exclude_modules", "bias", "init_lora_weights", "loftq_config"),
    )
)
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # which leave the model's own weights


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter on disk."""

    folder: Path
    base_model: str  #: as its trainer named it, often a path of another machine; empty: not said
    rank: int
    alpha: float
    root_scaling: bool  #: the product is scaled by alpha / sqrt(rank), not by alpha / rank
    ranks: Mapping[str, int]  #: by a pattern of names, instead of `rank`
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | str  #: endings of layers' names, or an expression for whole names
    excluded: tuple[str, ...] | str
    pairs: Mapping[str, tuple[StoredTensor, StoredTensor]]  #: A and B by the layer's name

    @property
    def revision(self) -> str:
        """What tells it from others, see `weight_files.short_hash`: of weights and configuration."""
        return short_hash([self.folder / CONFIG, self.folder / WEIGHTS])

    def rank_of(self, layer: str) -> int:
        """The rank that adapter_config.json gives a layer."""
        return self.ranks.get(_pattern_for(self.ranks, layer), self.rank)


def _pattern_for(patterns: Mapping[str, Any], layer: str) -> str:
    """The first of ``patterns`` that is for ``layer``, as peft looks for it; empty: none is."""
    return next((it for it in patterns if re.match(rf"(.*\.)?({it})$", layer)), "")


def no_peft(why: str) -> str:
    """What to say where peft cannot be used."""
    return (
        f"an adapter needs peft, which cannot be used here ({why}): pip install 'peft>=0.18', or merge the "
        "adapter elsewhere"
    )


def check_peft() -> None:
    """Raise `ScorerError` where peft is not installed, without importing it."""
    if find_spec("peft") is None:
        raise ScorerError(no_peft("it is not installed"))


def open_adapter(name: str) -> Adapter:
    """Read the adapter in the folder ``name``. Raises `ScorerError` for one that is missing, damaged, or does
    more than plain LoRA."""
    try:
        folder = Path(name).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError) as error:
        raise ScorerError(
            f"adapter {name!r} cannot be looked up ({in_a_line(error)}): name its folder"
        ) from error
    if not is_folder:
        raise ScorerError(
            f"adapter {name!r}: no such folder. Name one that holds {CONFIG} and {WEIGHTS}; fetch one of the "
            "hub first, by `hf download ORG/NAME --local-dir FOLDER`"
        )
    if not (folder / CONFIG).is_file():
        raise ScorerError(f"{folder} has no {CONFIG}: name the folder of an adapter that peft has saved")
    said = read_json(folder / CONFIG)
    _refuse_more_than_lora(folder / CONFIG, said)
    if not (folder / WEIGHTS).is_file():
        if (folder / _PICKLE).is_file():
            raise ScorerError(
                f"{folder} has no {WEIGHTS}, but {_PICKLE}, a pickle, which could run a program and is not "
                "read: save the adapter as safetensors, as peft does"
            )
        raise ScorerError(f"{folder} has no {WEIGHTS}: copy the adapter again")
    return Adapter(
        folder=folder,
        base_model=str(said.get("base_model_name_or_path") or ""),
        rank=_rank(folder / CONFIG, "r", said.get("r", 8)),
        alpha=_alpha(folder / CONFIG, "lora_alpha", said.get("lora_alpha", 8)),
        root_scaling=said.get("use_rslora") is True,
        ranks=_by_pattern(folder / CONFIG, "rank_pattern", said, _rank),
        alphas=_by_pattern(folder / CONFIG, "alpha_pattern", said, _alpha),
        targets=_layers(folder / CONFIG, "target_modules", said),
        excluded=_layers(folder / CONFIG, "exclude_modules", said),
        pairs=_pairs(folder),
    )


def _refuse_more_than_lora(path: Path, said: Mapping[str, Any]) -> None:
    if said.get("peft_type") != "LORA":
        raise ScorerError(
            f"{path}: peft_type is {printable(repr(said.get('peft_type')), 40)}, and only LORA is merged "
            "here: take a LoRA adapter, or the folder of a model in which this one is merged already"
        )
    for name, plain in (("bias", ("none", None)), ("init_lora_weights", _PLAIN_STARTS)):
        if (value := said.get(name)) not in plain:
            raise ScorerError(
                f"{path}: {name} is {printable(repr(value), 60)}, with which the adapter changes more than "
                f"it stores as LoRA: {_MERGE}"
            )
    if not isinstance(said.get("use_rslora", False), bool):
        raise ScorerError(f"{path}: use_rslora must be true or false: copy the adapter again")
    for name, value in said.items():
        if name not in _OF_NO_EFFECT | _USED and value not in (None, False, [], {}, "", 0):
            raise ScorerError(
                f"{path}: {printable(name, 60)} is {printable(repr(value), 60)}, which is more than the "
                f"plain LoRA that is merged here: {_MERGE}"
            )


def _rank(path: Path, name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST_RANK:
        raise ScorerError(
            f"{path}: {name} is {printable(repr(value), 60)} and must be a whole number from 1 to "
            f"{_LARGEST_RANK}: copy the adapter again"
        )
    return value


def _alpha(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_ALPHA:
        raise ScorerError(
            f"{path}: {name} is {printable(repr(value), 60)} and must be a number, at most "
            f"{_LARGEST_ALPHA}: copy the adapter again"
        )
    return value


def _by_pattern(path: Path, name: str, said: Mapping[str, Any], read: Any) -> dict[str, Any]:
    patterns = said.get(name) or {}
    if not isinstance(patterns, dict) or len(patterns) > _MOST_PATTERNS:
        raise ScorerError(f"{path}: {name} must be an object, of {_MOST_PATTERNS} entries at most: {_MERGE}")
    for pattern in patterns:
        if not _PLAIN_PATTERN.fullmatch(pattern):
            raise ScorerError(
                f"{path}: {name} has {printable(repr(pattern), 100)}, and only names of layers are read "
                f"there: {_MERGE}"
            )
    return {pattern: read(path, name, value) for pattern, value in patterns.items()}


def _layers(path: Path, name: str, said: Mapping[str, Any]) -> tuple[str, ...] | str:
    value = said.get(name) or ()
    if isinstance(value, str) and len(value) <= _LONGEST_PATTERN:
        return value
    listed = isinstance(value, list | tuple) and len(value) <= _MOST_TARGETS
    if not listed or not all(isinstance(it, str) and it for it in value):
        raise ScorerError(
            f"{path}: {name} must be a list of names, or one expression of up to {_LONGEST_PATTERN} "
            "characters: copy the adapter again"
        )
    return tuple(value)


def _pairs(folder: Path) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    path = folder / WEIGHTS
    found: dict[str, dict[str, StoredTensor]] = {}
    for tensor in read_head(path):
        name = _PAIR.fullmatch(tensor.name)
        if name is None:
            raise ScorerError(
                f"{path} has the weight {printable(tensor.name, 200)!r}, which is no lora_A or lora_B of a "
                f"linear layer and would be left out: {_MERGE}"
            )
        if tensor.dtype not in ("F32", "F16", "BF16") or len(tensor.shape) != 2 or 0 in tensor.shape:
            raise ScorerError(
                f"{path}: the weight {tensor.name!r} is {printable(tensor.dtype, 20)} of shape "
                f"{tensor.shape}, and must be a matrix of F32, F16 or BF16: {_MERGE}"
            )
        found.setdefault(name[1], {})[name[2]] = tensor
    if not found:
        raise ScorerError(f"{path} holds no weights: copy the adapter again")
    for layer, pair in found.items():
        if len(pair) < 2:
            lacking = "B" if "A" in pair else "A"
            raise ScorerError(f"{path} lacks lora_{lacking} of the layer {layer!r}: copy the adapter again")
    return {layer: (pair["A"], pair["B"]) for layer, pair in found.items()}
