"""A checkpoint: the folder of a model, opened once, and the content of its files.

`open_checkpoint` goes from the name that a user gave to a `Checkpoint`, which is passed on from there. What
takes long to read (tokenizer, hash of the weights) is read at the first use, and then kept. No weights are
loaded here: load.py does that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, ScorerSettings, in_a_line
from topreward_ros.scoring.checkpoint.adapter_files import Adapter, open_adapter
from topreward_ros.scoring.checkpoint.config_bounds import check_bounds
from topreward_ros.scoring.checkpoint.folder import find_folder, text_folder
from topreward_ros.scoring.checkpoint.notes import ModelNotes, read_model_notes
from topreward_ros.scoring.checkpoint.quantized import refuse_quantized
from topreward_ros.scoring.checkpoint.random_weights import RANDOM_WEIGHTS_KEY
from topreward_ros.scoring.checkpoint.reward_format import (
    ORIGINAL_CLASSES,
    RewardFormat,
    add_reward_tokens,
    backbone_config,
    is_reward_model,
    read_reward_format,
)
from topreward_ros.scoring.checkpoint.weight_files import full_hash, loaded_files, short_hash
from topreward_ros.scoring.frame_size import smaller_frames
from topreward_ros.scoring.json_files import read_checkpoint_text, read_json, refuse_byte_order_mark

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from topreward_ros.scoring.patches import Preprocessing

#: Model types in config.json of which every prefix is scored incrementally.
INCREMENTAL = ("qwen3_vl", "qwen3_vl_moe")
QUANTIZABLE = ("qwen3_vl",)  #: those whose weights can be quantized; the experts of a mixture cannot
ADAPTABLE = ("qwen3_vl",)  #: those into which an adapter is merged
CAPTURABLE = ("qwen3_vl",)  #: those whose ticks can be captured as CUDA graphs


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk that this package can load."""

    name: str  #: as the user named it: 'embedded', a hub id or a folder
    folder: Path
    config: Mapping[str, Any]  #: config.json; of a Robometer, the part that describes the backbone
    notes: ModelNotes
    reward: RewardFormat | None = None  #: of a Robometer, which states progress by heads of its own
    adapter: Adapter | None = None  #: that is merged into the model when it is loaded

    @property
    def model_id(self) -> str:
        """The name, and the adapter where there is one, for people and records."""
        return f"{self.name} + adapter {self.adapter.folder}" if self.adapter else self.name

    @property
    def model_type(self) -> str:
        """As config.json has it, for example 'qwen3_vl'."""
        return str(self.config["model_type"])

    @property
    def is_incremental(self) -> bool:
        """Whether a score computes only what is new since the last one, not the whole prefix again."""
        return self.reward is None and self.model_type in INCREMENTAL

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights were never trained, so that every number from them means nothing."""
        return bool(self.config.get(RANDOM_WEIGHTS_KEY, False))

    @property
    def weight_files(self) -> list[Path]:
        """The files of weights that are loaded, in order of names."""
        return loaded_files(self.folder)

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the weights in hex, over one file after the other where there are several.

        This reads all of them, which takes long for large ones; `revision` does not.
        """
        return full_hash(self.weight_files)

    @property
    def hash_matches(self) -> bool | None:
        """Whether the weights have the hash that the notes state; None where they state none."""
        return self.weights_hash == self.notes.sha256 if self.notes.sha256 else None

    @cached_property
    def revision(self) -> str:
        """The hub's commit for a folder of its cache, else `weight_files.short_hash` of the weights; with an
        adapter followed by a plus and its hash."""
        return f"{self._own_revision}+{self.adapter.revision}" if self.adapter else self._own_revision

    @property
    def _own_revision(self) -> str:
        if self.folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", self.folder.name):
            return self.folder.name
        return short_hash(self.weight_files)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The content of tokenizer.json, of a Robometer with its added tokens. Raises `ScorerError` for a
        damaged one."""
        from tokenizers import Tokenizer

        path = self._text_folder / "tokenizer.json"
        refuse_byte_order_mark(path)
        read_checkpoint_text(path)  # says what is wrong with a file that is no text
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ScorerError(f"{path} cannot be read ({in_a_line(error)}): restore it") from error
        if self.reward is not None:
            add_reward_tokens(path, tokenizer, self.config.get("text_config", {}).get("vocab_size") or 0)
        return tokenizer

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How frames become pixels, see `patches.read_preprocessing`. Raises `ScorerError`."""
        from topreward_ros.scoring.patches import read_preprocessing

        return read_preprocessing(self._text_folder)

    @property
    def _text_folder(self) -> Path:
        return text_folder(self.folder) or self.folder

    def frame_pixels(self, settings: ScorerSettings) -> int:
        """Pixels of one frame at most, by the settings, the checkpoint and what the model was trained to see.

        The frames of a video share the pixel budget of the checkpoint where the model is incremental.
        """
        return self._frame_pixels(settings, settings.shown_frames)

    def smaller_frames(self, settings: ScorerSettings) -> str:
        """See `frame_size.smaller_frames`; empty, too, where frames do not share the pixels of a video."""
        return smaller_frames(settings, partial(self._frame_pixels, settings))

    def _frame_pixels(self, settings: ScorerSettings, frames: int) -> int:
        budget = settings.max_pixels
        if self.is_incremental:
            budget = self.preprocessing.frame_pixels(settings.max_pixels, frames)
        return min(budget, self.notes.frame_pixels or budget)


def open_checkpoint(model: str, adapter: str = "") -> Checkpoint:
    """Open ``model``: 'embedded', a folder, or a hub id, and ``adapter``, a folder, unless that is empty.

    Raises `ScorerError` if one is missing or damaged, or the model takes no adapter.
    """
    folder = find_folder(model)
    config, notes = read_config(folder), read_model_notes(folder)
    if adapter and (is_reward_model(config) or config.get("model_type") not in ADAPTABLE):
        kind = "a Robometer" if is_reward_model(config) else f"a model of type {config.get('model_type')!r}"
        raise ScorerError(
            f"adapter {adapter!r} is for dense Qwen3-VL, and {folder} holds {kind}: merge it with peft's "
            "merge_and_unload(), save_pretrained() the result, and name that folder as model"
        )
    if not is_reward_model(config):
        opened = open_adapter(adapter) if adapter else None
        return Checkpoint(name=model, folder=folder, config=config, notes=notes, adapter=opened)
    path = folder / "config.json"
    backbone, reward = backbone_config(path, config), read_reward_format(path, config)
    return Checkpoint(name=model, folder=folder, config=backbone, notes=notes, reward=reward)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model that this package can load. Raises `ScorerError` for any other."""
    path = folder / "config.json"
    refuse_byte_order_mark(path)
    config = read_json(path)
    refuse_quantized(folder, config)
    if other := config.get("transformers_weights"):
        raise ScorerError(
            f"{path}: transformers_weights names {other!r} as the weights, which is not supported: "
            "name the weights model.safetensors, and take that line out"
        )
    check_bounds(path, config)
    if is_reward_model(config):
        read_reward_format(path, config)
        backbone = backbone_config(path, config)
        refuse_quantized(folder, backbone)
        _check_qwen3_vl(path, backbone)
    elif set(_listed(config.get("architectures"))) & {*ORIGINAL_CLASSES}:
        raise ScorerError(
            f"{folder} is a Robometer in its authors' own format, which is not read: take the same model as "
            "LeRobot has converted it, lerobot/Robometer-4B"
        )
    elif config.get("model_type") in INCREMENTAL:
        _check_qwen3_vl(path, config)
    else:
        _check_type(folder, config)
    return config


def _listed(value: Any) -> list[str]:
    """The texts in a list; none where it is no list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _check_qwen3_vl(path: Path, config: Mapping[str, Any]) -> None:
    for part in ("text_config", "vision_config"):
        if not isinstance(config.get(part, {}), dict):
            raise ScorerError(
                f"{path}: {part} is {printable(repr(config[part]), 100)} and must be an object: restore it "
                "from the checkpoint"
            )
    if config.get("vision_config", {}).get("temporal_patch_size", 2) != 2:
        raise ScorerError(f"{path}: temporal_patch_size must be 2, as in every released Qwen3-VL")
    _check_rotation(path, config.get("text_config", {}))


def _check_rotation(path: Path, text: Mapping[str, Any]) -> None:
    """Raise `ScorerError` where the parts of a head that turn with time, height and width do not add up."""
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    section = rope.get("mrope_section") if isinstance(rope, dict) else None
    width = text.get("head_dim")
    if section is None or width is None:
        return
    fits = isinstance(section, list) and len(section) == 3 and all(type(part) is int for part in section)
    if not fits or min(section) < 1 or 2 * sum(section) != width:
        raise ScorerError(
            f"{path}: mrope_section is {printable(repr(section), 60)} and must be three whole numbers above "
            f"0 that sum to half of head_dim, {width}: restore it from the checkpoint"
        )


def _check_type(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `ScorerError` for a type that transformers does not know as a model of images and text."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in KNOWN:
        return
    if model_type is None and isinstance(kind := config.get("type"), str):
        raise ScorerError(
            f"{folder} holds a model of LeRobot of type {printable(repr(kind), 60)}, which is not supported: "
            "of its reward models, Robometer is, lerobot/Robometer-4B"
        )
    fix = (
        "use Qwen3-VL ('qwen3_vl', 'qwen3_vl_moe'), or another model of images and text that it knows, such "
        "as Qwen2.5-VL, InternVL3, SmolVLM2 or Molmo2"
    )
    if model_type == "internvl_chat":
        fix = "get the same model in the format of transformers, whose name on the hub ends in -hf"
    raise ScorerError(
        f"{folder} holds a model of type {printable(repr(model_type), 100)}, which transformers "
        f"{transformers.__version__} does not know as one that reads images and text: {fix}"
    )
