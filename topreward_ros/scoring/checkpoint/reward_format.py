"""Robometer as LeRobot publishes it: what its config.json says of the model, its heads and its tokens.

The folder of a Robometer holds no plain model of transformers. Its config.json says ``"type": "robometer"``
and has the configuration of the backbone, a Qwen3-VL, in ``vlm_config``. The weights of the backbone stand
behind ``model.``, those of the heads beside them. Tokenizer and preprocessor are those of the model that it
was trained from, to which five tokens are added, in a fixed order; most folders lack them. Everything is read
from config.json, nothing is guessed from a name. reward_heads/ scores with such a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.json_files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The tokens that Robometer adds, in the order of their ids. A frame's numbers are read at the last one.
ADDED_TOKENS = (
    "<|split_token|>",
    "<|reward_token|>",
    "<|pref_token|>",
    "<|sim_token|>",
    "<|prog_token|>",
)
PROGRESS_TOKEN = ADDED_TOKENS[-1]
BACKBONES = ("qwen3_vl",)  #: model types of which a Robometer can be made

#: For `from_pretrained`: from the names in the files to those of the backbone.
BACKBONE_NAMES = {r"^model\.(?=(model|lm_head)\.)": ""}
#: What config.json of the authors' own format calls the model, which LeRobot has converted.
ORIGINAL_CLASSES = ("RBM", "RFM")
#: Weights beside the backbone; the preference head and the pooling are not used to score.
HEAD_WEIGHT = re.compile(r"(progress|success|preference)_head\.[014]\.(weight|bias)|frame_pool_attn\.weight")

MOST_FRAMES = 8  #: that it was trained to see
_MOST_BINS = 1000
_PUBLISHED = "take the folder as it is published, lerobot/Robometer-4B"


@dataclass(frozen=True, slots=True)
class RewardFormat:
    """What config.json of a Robometer says, beside the backbone."""

    base_model: str  #: hub id of the model that it was trained from
    most_frames: int  #: that it is shown
    bins: int  #: of the distribution over progress that its head gives; 0: one logit


def is_reward_model(config: Mapping[str, Any]) -> bool:
    """Whether config.json is that of a Robometer."""
    return config.get("type") == "robometer"


def backbone_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's own configuration in config.json at ``path``. Raises `ScorerError` without one."""
    backbone = config.get("vlm_config")
    if not isinstance(backbone, dict) or not backbone:
        raise ScorerError(
            f"{path} is of a Robometer and has no vlm_config, which describes its backbone: {_PUBLISHED}"
        )
    if backbone.get("model_type") not in BACKBONES:
        raise ScorerError(
            f"{path}: the backbone is of type {printable(repr(backbone.get('model_type')), 60)}, and a "
            f"Robometer is read on {' or '.join(BACKBONES)} alone: {_PUBLISHED}"
        )
    return backbone


def read_reward_format(path: Path, config: Mapping[str, Any]) -> RewardFormat:
    """What config.json of a Robometer at ``path`` says. Raises `ScorerError` for what cannot be scored."""
    for name in ("use_multi_image", "use_per_frame_progress_token"):
        if config.get(name, True) is not True:
            raise ScorerError(
                f"{path}: {name} is {printable(repr(config[name]), 40)}, and only a Robometer that has an "
                f"image and a progress token for each frame is supported: {_PUBLISHED}"
            )
    loss = config.get("progress_loss_type", "discrete")
    if loss not in ("discrete", "l1", "l2"):
        raise ScorerError(
            f"{path}: progress_loss_type is {printable(repr(loss), 40)} and must be discrete, l1 or l2: "
            f"{_PUBLISHED}"
        )
    base = config.get("base_model_id", "Qwen/Qwen3-VL-4B-Instruct")
    if not isinstance(base, str):
        raise ScorerError(
            f"{path}: base_model_id is {printable(repr(base), 60)} and must be text: {_PUBLISHED}"
        )
    frames = config.get("max_frames", MOST_FRAMES)
    return RewardFormat(
        base_model=base,
        most_frames=MOST_FRAMES
        if frames is None
        else min(_whole(path, config, "max_frames", MOST_FRAMES, 1), MOST_FRAMES),
        bins=_whole(path, config, "progress_discrete_bins", 10, 2) if loss == "discrete" else 0,
    )


def _whole(path: Path, config: Mapping[str, Any], name: str, usual: int, least: int) -> int:
    value = config.get(name, usual)
    if type(value) is not int or not least <= value <= _MOST_BINS:
        raise ScorerError(
            f"{path}: {name} is {printable(repr(value), 60)} and must be a whole number from {least} to "
            f"{_MOST_BINS}: {_PUBLISHED}"
        )
    return value


def base_model_of(folder: Path) -> str:
    """The model whose tokenizer the Robometer in ``folder`` has; empty for any other checkpoint.

    Raises `ScorerError` for a config.json that is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        return ""
    config = read_json(path)
    return read_reward_format(path, config).base_model if is_reward_model(config) else ""


def add_reward_tokens(path: Path, tokenizer: Tokenizer, vocabulary: int) -> None:
    """Add the tokens to the tokenizer at ``path``, unless it has them.

    ``vocabulary``: rows of the backbone's embedding. Raises `ScorerError` where the tokens get no rows of it,
    or other rows than in training.
    """
    had = [token for token in ADDED_TOKENS if tokenizer.token_to_id(token) is not None]
    if not had:
        tokenizer.add_special_tokens(list(ADDED_TOKENS))
    elif len(had) < len(ADDED_TOKENS):
        lacking = next(token for token in ADDED_TOKENS if token not in had)
        raise ScorerError(
            f"{path} has the token {had[0]} of Robometer and not {lacking}: take the tokenizer of the model "
            "that it was trained from, or one with all five"
        )
    tokens = tokenizer.get_vocab_size()
    if tokens > vocabulary or (not had and tokens != vocabulary):
        raise ScorerError(
            f"{path} has {tokens} tokens with the five of Robometer, and vlm_config says vocab_size "
            f"{vocabulary}, so they would not have the ids of its training: take the tokenizer of the model "
            "that it was trained from"
        )
