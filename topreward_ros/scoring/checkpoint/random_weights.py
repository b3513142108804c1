"""A tiny Qwen3-VL folder with random weights: the real model class, and numbers that mean nothing.

It lets tests and benchmarks run the real classes on a model of another shape than the shipped one, without
a download: `python -m topreward_ros.scoring.checkpoint.random_weights FOLDER`. Everything in it is made here:
a byte-level BPE tokenizer trained on the sentences below, the configuration, the weights drawn from a seeded
generator. `config.json` carries ``topreward_random_weights: true``, so that every number from it can be
marked.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.core.output_files import write_file
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import RANDOM_WEIGHTS
from topreward_ros.scoring.question.templates import fill, read_templates

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

#: Key in config.json that marks weights which were never trained.
RANDOM_WEIGHTS_KEY = "topreward_random_weights"

#: How Qwen2-family tokenizers cut text into pieces before merging bytes.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
#: Added to the vocabulary without being special, as the released checkpoints do.
_ADDED_TOKENS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]

_SENTENCES = [
    "The above video shows a robot manipulation trajectory that completes the following task:",
    "Decide whether the above statement is True or not. The answer is:",
    "The answer is: True",
    "The answer is: False",
    "user assistant system seconds",
    "pick up the red cube and place it on the blue plate",
    "open the drawer, put the cup inside and close the drawer",
    "stack the green block on top of the yellow block",
    "fold the towel in half and push it to the left",
    "insert the peg into the hole, then press the button",
    "move the spoon from the bowl to the table on the right",
]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, in the words of transformers' Qwen3-VL configuration."""

    text: dict[str, Any]
    vision: dict[str, Any]
    vocabulary: int = 480  #: tokens: 256 bytes, merges of the sentences, added ones
    sentences: tuple[str, ...] = ()  #: more sentences to train the tokenizer on
    video_pixels: int = 64 * 128 * 128  #: of all frames of a video together


def rope(theta: float, sections: tuple[int, int, int]) -> dict[str, Any]:
    """Qwen3-VL's rotary embedding, for its configuration.

    ``sections`` says how many frequencies go to time, rows and columns: together half of a head's size.
    """
    return {
        "rope_type": "default",
        "rope_theta": theta,
        "mrope_section": list(sections),
        "mrope_interleaved": True,
    }


#: 1.6 million parameters.
TINY = Shape(
    text={
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rope_parameters": rope(5e6, (6, 5, 5)),
    },
    vision={
        "depth": 4,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_heads": 4,
        "out_hidden_size": 128,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [0, 1, 2],
    },
)
_HEAD_GAIN = 4.0  # standard deviation of the logits, so that log-probabilities spread over some nats


def make_random_checkpoint(folder: Path | str, seed: int = 0, shape: Shape = TINY) -> Path:
    """Write the checkpoint to ``folder`` and return that path; an existing folder is left as it is.

    The same seed gives the same bytes of weights and tokenizer. The folder appears complete or not at all,
    and processes that write it at the same time end with the same one. Raises `OSError` where that fails.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_checkpoint(unfinished, seed, shape)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same content
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def make_fifty_million(folder: Path | str) -> Path:
    """A random checkpoint of 25 million parameters in the language model and 27 million in the vision model.

    It is large enough that arithmetic decides the speed, and small enough for a CPU. Otherwise it is made as
    by `make_random_checkpoint`.
    """
    shape = Shape(
        text={
            "hidden_size": 512,
            "intermediate_size": 1408,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "rope_parameters": rope(5e6, (12, 10, 10)),
        },
        vision={
            "depth": 8,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_heads": 6,
            "out_hidden_size": 512,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [1, 3, 5],
        },
        vocabulary=1024,  # so that a prompt is about as many tokens as with Qwen's tokenizer
        sentences=tuple(fill(template, "open the drawer") for template in read_templates("ten_prompts.txt")),
        video_pixels=25165824,  # as the released checkpoints
    )
    return make_random_checkpoint(folder, shape=shape)


def _write_checkpoint(folder: Path, seed: int, shape: Shape) -> None:
    tokenizer = train_tokenizer([*_SENTENCES, *shape.sentences], shape.vocabulary)
    write_file(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 32768,
        },
    )
    _write_json(
        folder / "video_preprocessor_config.json",
        {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"shortest_edge": 4096, "longest_edge": shape.video_pixels},
        },
    )
    _write_model(folder, tokenizer, seed, shape)


def _write_json(path: Path, content: dict[str, object]) -> None:
    write_file(path, json.dumps(content, indent=2) + "\n")


def train_tokenizer(sentences: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer built as Qwen's are, in which " True" and " False" are one token each.

    It has at most ``vocabulary`` tokens, 256 bytes and the added ones among them; the rest are merges that
    make words of ``sentences``. The same arguments give the same tokenizer.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(_SPECIAL_TOKENS) - len(_ADDED_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each sentence comes twice, so that every word becomes one token, and the answers come most often.
    tokenizer.train_from_iterator([" True False"] * 100 + list(sentences) * 2, trainer)
    tokenizer.add_special_tokens(_SPECIAL_TOKENS)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _ADDED_TOKENS])
    return tokenizer


def _write_model(folder: Path, tokenizer: Tokenizer, seed: int, shape: Shape) -> None:
    import torch
    from safetensors.torch import save
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    def token(content: str) -> int:
        number = tokenizer.token_to_id(content)
        assert number is not None, content
        return int(number)

    config = Qwen3VLConfig(
        text_config={"vocab_size": shape.vocabulary, "max_position_embeddings": 32768, **shape.text},
        vision_config=shape.vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
        architectures=["Qwen3VLForConditionalGeneration"],
        dtype="bfloat16",
    )
    setattr(config, RANDOM_WEIGHTS_KEY, True)
    with torch.random.fork_rng(devices=[]):  # leave the caller's random state alone
        model = Qwen3VLForConditionalGeneration(config)
    _draw_weights(model, seed)
    weights = {name: weight.to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    write_file(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    write_file(folder / "config.json", config.to_json_string())


def _draw_weights(model: torch.nn.Module, seed: int) -> None:
    """Draw every weight in the order of names, with variance 1 / fan-in, which keeps signals at their size.

    This makes the answer depend on the whole stream, not on its last word alone. The head is larger by
    ``_HEAD_GAIN``; else both answers would be about equally likely, whatever the video shows.
    """
    import numpy as np
    import torch

    generator = np.random.default_rng(seed)  # NumPy's stream is the same everywhere
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            scale = weight[0].numel() ** -0.5 * (_HEAD_GAIN if name == "lm_head.weight" else 1.0)
            drawn = generator.standard_normal(tuple(weight.shape), dtype=np.float32)
            weight.copy_(torch.from_numpy(drawn) * scale)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m topreward_ros.scoring.checkpoint.random_weights FOLDER")
    made = make_random_checkpoint(sys.argv[1])
    print(f"{RANDOM_WEIGHTS} (the numbers mean nothing): {printable(str(made))}")
