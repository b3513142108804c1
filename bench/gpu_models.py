"""Models of the shapes of the released ones, with random weights, for a GPU and for ticks on a CPU.

The weights are drawn on the device, so that nothing is downloaded: time does not depend on them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.initialization import no_init_weights

from topreward_ros.core.frames import Frame
from topreward_ros.offline import engine_bench
from topreward_ros.offline.engine_bench import RATE, TASK, make_video
from topreward_ros.scoring.base import ScorerInfo, ScorerSettings
from topreward_ros.scoring.checkpoint.quantization import FP8, precision_text, quantize
from topreward_ros.scoring.checkpoint.random_weights import TINY, Shape, rope, train_tokenizer
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question import prompts
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.question.templates import fill, read_templates
from topreward_ros.scoring.registry import LoadedModel


def shape(*, hidden: int, layers: int, heads: int, inner: int, vision: dict[str, Any], tied: bool) -> Shape:
    """One of the released sizes, as their config.json has it."""
    text = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": inner,
        "rope_parameters": rope(5e6, (24, 20, 20)),
        "tie_word_embeddings": tied,
    }
    return Shape(text, {**vision, "out_hidden_size": hidden, "num_position_embeddings": 2304}, 151936)


SHAPES = {
    "tiny": TINY,
    "2B": shape(
        hidden=2048, layers=28, heads=16, inner=6144, tied=True,
        vision={"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
         "deepstack_visual_indexes": [5, 11, 17]},
    ),
    "8B": shape(
        hidden=4096, layers=36, heads=32, inner=12288, tied=False,
        vision={"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
         "deepstack_visual_indexes": [8, 16, 24]},
    ),
}  # fmt: skip


def make_model(of: Shape, device: torch.device, dtype: torch.dtype) -> tuple[Any, PromptTokens]:
    """A model with random weights on ``device``, and a tokenizer that knows the words of the prompts."""
    templates = read_templates("ten_prompts.txt")
    sentences = [fill(template, TASK) for template in templates] + [
        prompts.time_text(k / 4) for k in range(400)
    ]
    tokenizer = train_tokenizer(sentences, min(1024, of.vocabulary))
    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.token_to_id(token)
        for name, token in (
            ("image", "<|image_pad|>"),
            ("video", prompts.VIDEO_PAD),
            ("vision_start", prompts.VISION_START),
            ("vision_end", prompts.VISION_END),
        )
    }
    text = {"vocab_size": max(of.vocabulary, 1024), "max_position_embeddings": 262144, **of.text}
    tied = bool(of.text.get("tie_word_embeddings"))  # transformers looks at the upper level alone
    config = Qwen3VLConfig(text_config=text, vision_config=of.vision, tie_word_embeddings=tied, **ids)
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device, no_init_weights():
            model: Any = Qwen3VLForConditionalGeneration(config)
        model.tie_weights()
        fill_weights(model)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False), PromptTokens(tokenizer, templates)


def load_shape(key: str, settings: ScorerSettings, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """The model of ``SHAPES[key]``, quantized as ``settings`` say, and the tokens of all prompts."""
    model, tokens = make_model(SHAPES[key], device, dtype)
    quantize(model, settings.quantization, device)
    info = ScorerInfo(
        model_id=key,
        revision="",
        random_weights=True,
        device=str(device),
        dtype=precision_text(str(dtype).removeprefix("torch."), settings.quantization),
        prompt_hash="",
        max_pixels=settings.max_pixels,
    )
    return LoadedModel(model, tokens, Preprocessing(), info)


def fill_weights(model: torch.nn.Module) -> None:
    """Fill matrices with copies of one drawn block, and set norms to 1 and biases to 0.

    Drawing each of 2 billion numbers takes a CPU minutes.
    """
    block: torch.Tensor | None = None
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            if block is None:
                block = 0.02 * torch.randn(1_000_003, device=weight.device, dtype=weight.dtype)
            for part in torch.split(weight.view(-1), len(block)):
                part.copy_(block[: len(part)])


@dataclass(frozen=True)
class Setup:
    """What is the same for all models of a run."""

    device: torch.device
    dtype: torch.dtype
    size: tuple[int, int]  #: (height, width) of the frames
    frames: int  #: of a tick's context
    ticks: int
    settings: ScorerSettings

    @classmethod
    def of(cls, options: argparse.Namespace, max_frames: int) -> Setup:
        """From ``--device``, ``--size``, ``--frames`` and ``--ticks``. Exits where there is no GPU."""
        device = torch.device(options.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise SystemExit(
                "PyTorch sees no CUDA device: run it on a machine with one, or give --device cpu"
            )
        half = device.type == "cuda" or options.quantization == FP8
        dtype = torch.bfloat16 if half else torch.float32
        height, width = options.size
        settings = ScorerSettings(
            device=options.device,
            dtype=str(dtype).removeprefix("torch."),
            max_pixels=height * width,
            max_frames=max_frames,
            threads=0,
            static_baseline=False,
            sample_rate=RATE,
            quantization=options.quantization,
        )
        return cls(device, dtype, (height, width), options.frames, options.ticks, settings)

    def in_fp8(self) -> Setup:
        """The same in fp8, which goes with bfloat16."""
        settings = replace(self.settings, dtype="bfloat16", quantization=FP8)
        return replace(self, dtype=torch.bfloat16, settings=settings)

    def __str__(self) -> str:
        height, width = self.size
        precision = precision_text(self.settings.dtype, self.settings.quantization)
        return f"{precision}, {width}x{height}, {self.frames} frames"

    def load(self, key: str) -> LoadedModel:
        """The model of ``SHAPES[key]``, and the tokens of all prompts."""
        return load_shape(key, self.settings, self.device, self.dtype)

    def video(self) -> list[Frame]:
        """The context, and two new frames for each tick."""
        return make_video(self.frames + 2 * self.ticks, *self.size)

    def machine(self) -> dict[str, Any]:
        """The machine that the numbers come from, the GPU first."""
        machine = engine_bench.machine()
        if self.device.type == "cuda":
            machine["processor"] = f"{torch.cuda.get_device_name(self.device)}, {machine['processor']}"
        return machine


def with_prompts(loaded: LoadedModel, count: int) -> LoadedModel:
    """``loaded``, asked the first ``count`` of the ten prompts."""
    templates = read_templates("ten_prompts.txt")[:count]
    return loaded._replace(tokens=loaded.tokens.with_templates(templates))
