"""Bounds of config.json, so that one which is damaged or hostile is refused before anything is built from it.

transformers builds what is written there: a million layers take hours, and a large vocabulary takes all
memory. Whether the sizes are those of the weights is looked at in load.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError

# The largest models known have 130 layers, a vocabulary of 260,000 and 400 experts.
_MOST_LAYERS = 1000
_MOST_OTHERS = 10_000  # experts, labels, the width of a head
_LONGEST_LIST = 1000  # one item per layer at most
_LARGEST_SIZE = 10_000_000

_LAYERS = re.compile(r"depth|num_layers|num_hidden_layers|n_layers?|(en|de)coder_layers")
_MORE_LAYERS = re.compile(r"num_\w+_layers")  # some of which may be absent
_OTHERS = re.compile(r"num_labels|(num|n)(_\w+)?_experts|head_dim")
_SIZES = re.compile(
    r"hidden_size|hidden_dim|d_model|embed_dim|out_hidden_size|intermediate_size|vocab_size"
    r"|num_heads|num_attention_heads|num_key_value_heads|num_position_embeddings"
    r"|image_size|patch_size|temporal_patch_size|spatial_merge_size|in_channels|num_channels"
)


def check_bounds(path: Path, config: Mapping[str, Any]) -> None:
    """Raise `ScorerError` for a size, a number of layers or a list in ``config`` that cannot be.

    ``path``: of config.json, for the error. A size that is null or not there is left to its default.
    """
    for where, value in _entries(config):
        key = where.rpartition(".")[2]
        if isinstance(value, list) and len(value) > _LONGEST_LIST:
            _refuse(path, where, f"a list of {len(value)} items", f"have at most {_LONGEST_LIST}")
        for keys, least, most in (
            (_LAYERS, 1, _MOST_LAYERS),
            (_MORE_LAYERS, 0, _MOST_LAYERS),
            (_OTHERS, 0, _MOST_OTHERS),
            (_SIZES, 1, _LARGEST_SIZE),
        ):
            if keys.fullmatch(key) and not all(_is_within(number, least, most) for number in _numbers(value)):
                _refuse(
                    path, where, printable(repr(value), 60), f"be a whole number from {least} to {most:,}"
                )


def _refuse(path: Path, where: str, said: str, must: str) -> None:
    raise ScorerError(
        f"{path}: {printable(where, 100)} is {said} and must {must}: restore it from the checkpoint"
    )


def _entries(config: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield f"{where}{key}", value
        if isinstance(value, dict):
            yield from _entries(value, f"{where}{key}.")


def _numbers(value: Any) -> list[Any]:
    """``value`` as numbers to be checked: a list or an object is what is in it, and null is none."""
    if isinstance(value, dict):
        value = [*value.values()]
    return [number for number in (value if isinstance(value, list) else [value]) if number is not None]


def _is_within(number: Any, least: int, most: int) -> bool:
    return type(number) is int and least <= number <= most
