"""A trained model as the folder that `model:=` takes: what `from_pretrained` and our registry read.

Auxiliary heads stay behind, and the weights become fp16. `topreward.json` lists the instructions that the
model understands. The card, README.md, is the caller's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig

from topreward_ros.core.output_files import write_file
from topreward_ros.offline.distill.network import MERGE, PATCH
from topreward_ros.scoring.checkpoint.notes import NOTES_FILE


class Written(NamedTuple):
    """What was written."""

    sha256: str  #: of model.safetensors
    parameters: int


def write_model(
    folder: Path,
    trained: Mapping[str, torch.Tensor],
    config: Qwen3VLConfig,
    tokenizer: Tokenizer,
    frame_pixels: int,
    summary: str,
    instructions: Mapping[str, Sequence[str]],
) -> Written:
    """Write everything but the card to ``folder``, which is there.

    ``trained``: the state of a `Student`; ``frame_pixels``: of one frame at most, ``summary``: what the model
    is, as a short phrase, ``instructions``: each with all its wordings. Raises `OutputFileError`.
    """
    weights = {
        name.removeprefix("model."): weight.to(torch.float16)
        for name, weight in trained.items()
        if name.startswith("model.")
    }
    stored = save(weights, metadata={"format": "pt"})
    write_file(folder / "model.safetensors", stored)
    digest = hashlib.sha256(stored).hexdigest()
    config.dtype = "float16"
    write_file(folder / "config.json", config.to_json_string())
    write_file(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 32768,
        },
    )
    _write(
        folder / "video_preprocessor_config.json",
        {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "merge_size": MERGE,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"shortest_edge": 4096, "longest_edge": 64 * frame_pixels},
        },
    )
    _write(
        folder / NOTES_FILE,
        {
            "frame_pixels": frame_pixels,
            "model_summary": summary,
            "sha256": digest,
            "instructions": {name: list(wordings) for name, wordings in instructions.items()},
        },
    )
    return Written(digest, sum(weight.numel() for weight in weights.values()))


def _write(path: Path, content: dict[str, object]) -> None:
    write_file(path, json.dumps(content, indent=2) + "\n")
