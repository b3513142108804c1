"""The network that is trained: a small model of the real Qwen3-VL class, with several questions per video.

The token stream is that of `topreward_ros.scoring`: the same prompt, tokens, patches and positions. All
questions about a video share one forward pass: each attends to the patches it is about and to itself only.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from topreward_ros.offline.distill.stories import LOWEST, Question
from topreward_ros.scoring import patches
from topreward_ros.scoring.checkpoint.random_weights import train_tokenizer
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question import prompts
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.question.templates import PAPER, fill
from topreward_ros.scoring.qwen3_vl.temporal_patch import patch_positions

PATCH, MERGE = 16, 2  # [px] side of a vision patch; patches along the side of a token
VOCABULARY = 512


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """How large a model is."""

    text_hidden: int
    text_layers: int
    vision_hidden: int
    vision_layers: int

    @property
    def text_heads(self) -> int:
        """Attention heads of `HEAD` values each."""
        return self.text_hidden // HEAD


HEAD = 48  # values of one head of the language model
#: That of the embedded model: 3.1 M parameters.
EMBEDDED = Size(text_hidden=192, text_layers=3, vision_hidden=128, vision_layers=4)


def make_tokenizer(wordings: Sequence[str]) -> Tokenizer:
    """A tokenizer for which every word of the prompt is one token, and those of ``wordings`` as far as there
    is room; words beyond that are several."""
    prompt = [fill(PAPER, wording) for wording in wordings]
    return train_tokenizer([*prompt, prompts.TURN_HEAD + prompts.time_text(0.0)] * 2, VOCABULARY)


def make_config(tokenizer: Tokenizer, size: Size = EMBEDDED) -> Qwen3VLConfig:
    """Configuration of a model of ``size``."""

    def token(content: str) -> int:
        number = tokenizer.token_to_id(content)
        assert number is not None, content
        return int(number)

    return Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": size.text_hidden,
            "intermediate_size": size.text_hidden * 8 // 3,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.text_heads,
            "num_key_value_heads": size.text_heads,
            "head_dim": HEAD,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100000.0,
                "mrope_section": [8, 8, 8],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_hidden * 3,
            "num_heads": size.vision_hidden // 32,
            "out_hidden_size": size.text_hidden,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [size.vision_layers // 2],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token(prompts.VIDEO_PAD),
        vision_start_token_id=token(prompts.VISION_START),
        vision_end_token_id=token(prompts.VISION_END),
        tie_word_embeddings=False,
        architectures=["Qwen3VLForConditionalGeneration"],
        dtype="float32",
    )


class Asked(Protocol):
    """A video of P temporal patches, and questions about prefixes of it."""

    @property
    def frames(self) -> np.ndarray:
        """(2 P, height, width, 3) uint8 RGB"""

    @property
    def seconds(self) -> np.ndarray:
        """(P,) mean time of each patch's frames since the first"""

    @property
    def questions(self) -> Sequence[Question]: ...


@dataclass
class Batch:
    """B videos of P patches with Q questions each, as tensors. T tokens: the videos, then the questions."""

    pixels: torch.Tensor  #: (B * P * rows * columns, 3 * 2 * PATCH * PATCH) the vision model's input
    grid: torch.Tensor  #: (B * P, 3) time, rows, columns
    ids: torch.Tensor  #: (B, T)
    positions: torch.Tensor  #: (3, B, T)
    attends: torch.Tensor  #: (B, 1, T, T) bool attention mask, query by key
    is_pad: torch.Tensor  #: (B, T) bool, True where a vision token stands
    ends: torch.Tensor  #: (B, P) place of each patch's last token
    answers: torch.Tensor  #: (B, Q) place of each question's last token
    progress: torch.Tensor  #: (B, Q) target of the answer, 0 to 1

    def to(self, device: torch.device) -> Self:
        return type(self)(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


class Stream:
    """Turns samples into a `Batch`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = PromptTokens(tokenizer)
        self.preprocessing = Preprocessing()
        self._before_patch = lru_cache(4096)(self.tokens.before_patch)
        self._after_video = lru_cache(4096)(self.tokens.after_video)

    def batch(self, samples: Sequence[Asked]) -> Batch:
        """A batch of samples with the same number of patches, questions and pixels."""
        height, width = samples[0].frames.shape[1:3]
        rows, columns = height // PATCH, width // PATCH
        number = len(samples) * len(samples[0].seconds)
        lines = [self._line(sample, rows // MERGE, columns // MERGE) for sample in samples]
        longest = max(len(line.ids) for line in lines)
        return Batch(
            pixels=torch.cat([self.pixels(sample.frames) for sample in samples]),
            grid=torch.tensor([[1, rows, columns]] * number),
            ids=torch.tensor([line.ids + [0] * (longest - len(line.ids)) for line in lines]),
            positions=torch.stack([_padded(line.positions, longest) for line in lines], dim=1),
            attends=torch.stack([line.attention_mask(longest) for line in lines])[:, None],
            is_pad=torch.tensor([line.ids + [0] * (longest - len(line.ids)) for line in lines])
            == self.tokens.video_pad,
            ends=torch.tensor([line.ends for line in lines]),
            answers=torch.tensor([line.answers for line in lines]),
            progress=torch.tensor(
                [[question.progress for question in sample.questions] for sample in samples]
            ),
        )

    def pixels(self, video: np.ndarray) -> torch.Tensor:
        """The vision model's input for frames (2 P, height, width, 3)."""
        frames = torch.from_numpy(video).permute(0, 3, 1, 2)
        pairs = zip(frames[0::2], frames[1::2], strict=True)
        return torch.cat(
            [patches.cut(first, second, self.preprocessing, PATCH, MERGE) for first, second in pairs]
        )

    def _line(self, sample: Asked, rows: int, columns: int) -> _Line:
        line = _Line()
        for number, seconds in enumerate(sample.seconds):
            before = self._before_patch(float(seconds), number == 0)
            ids = [*before, *[self.tokens.video_pad] * (rows * columns), self.tokens.vision_end]
            line.add_patch(ids, *patch_positions(line.next_position, len(before), rows, columns))
        for question in sample.questions:
            line.add_question(self._after_video(question.wording)[0], question.patches)
        return line


class _Line:
    """The tokens of one video and its questions."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.ends: list[int] = []
        self.answers: list[int] = []
        self.next_position = 0
        self._positions: list[torch.Tensor] = []
        self._after: list[int] = []  # next position after each patch
        # of each question: tokens of video seen, its first token, the token after its last
        self._questions: list[tuple[int, int, int]] = []

    @property
    def positions(self) -> torch.Tensor:
        return torch.cat(self._positions, dim=1)

    def add_patch(self, ids: list[int], positions: torch.Tensor, after: int) -> None:
        self.ids += ids
        self.ends.append(len(self.ids) - 1)
        self._positions.append(positions)
        self._after.append(after)
        self.next_position = after

    def add_question(self, ids: list[int], patches_seen: int) -> None:
        start = self._after[patches_seen - 1]
        self._questions.append((self.ends[patches_seen - 1] + 1, len(self.ids), len(self.ids) + len(ids)))
        self.ids += ids
        self.answers.append(len(self.ids) - 1)
        self._positions.append(torch.arange(start, start + len(ids)).expand(3, -1))

    def attention_mask(self, length: int) -> torch.Tensor:
        """(length, length) bool, query by key. Padding attends to itself, so that no row is empty."""
        mask = torch.eye(length, dtype=torch.bool)
        video = self.ends[-1] + 1
        mask[:video, :video] = torch.ones(video, video, dtype=torch.bool).tril()
        for seen, start, end in self._questions:
            mask[start:end, :seen] = True
            mask[start:end, start:end] = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        return mask


def _padded(positions: torch.Tensor, length: int) -> torch.Tensor:
    return nn.functional.pad(positions, (0, length - positions.shape[1]))


class Student(nn.Module):
    """A model to be trained.

    With ``bfloat16`` matrix products are computed in that precision; weights and losses stay float32. Its
    weights are those of the library until they are drawn (`draw_weights`) or loaded.
    """

    def __init__(self, tokenizer: Tokenizer, config: Qwen3VLConfig, bfloat16: bool = False) -> None:
        super().__init__()
        self._bfloat16 = bfloat16
        self.tokens = PromptTokens(tokenizer)
        config._attn_implementation = "sdpa"
        self.model = Qwen3VLForConditionalGeneration(config)
        self.hidden: int = self.model.config.text_config.hidden_size  # type: ignore[union-attr]
        _take_equal_patches_together(self.model)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the network on B videos of P patches with Q questions each.

        Returns in float32 log-probabilities (B, Q, vocabulary) after the questions, hidden states (B, Q,
        hidden) there, hidden states (B, P, hidden) after the patches, and vision features (B, P, tokens *
        hidden).
        """
        with self.precision(batch.pixels.device):
            return self._forward(batch)

    def precision(self, device: torch.device) -> torch.autocast:
        """In which matrix products are computed."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self._bfloat16)

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        core: Any = self.model.model
        seen = core.visual(batch.pixels, grid_thw=batch.grid)
        embeddings = self.model.get_input_embeddings()(batch.ids)
        embeddings = embeddings.masked_scatter(
            batch.is_pad[..., None], seen.pooler_output.to(embeddings.dtype)
        )
        states = core.language_model(
            inputs_embeds=embeddings,
            attention_mask=batch.attends,
            position_ids=batch.positions,
            visual_pos_masks=batch.is_pad,
            deepstack_visual_embeds=seen.deepstack_features,
            use_cache=False,
        ).last_hidden_state
        rows = torch.arange(len(states), device=states.device)[:, None]
        answers = states[rows, batch.answers]
        logits = self.model.lm_head(answers)
        seen_in_patches = seen.pooler_output.view(*batch.ends.shape, -1)
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        return log_probs, answers.float(), states[rows, batch.ends].float(), seen_in_patches.float()

    def answer_losses(self, log_probs: torch.Tensor, progress: torch.Tensor) -> dict[str, torch.Tensor]:
        """The terms of the loss that are about answers, each a mean over the batch.

        ``log_probs`` (B, Q, vocabulary) as `forward` gives them; ``progress`` (B, Q): the targets.
        """
        log_true = log_probs[..., self.tokens.answers[0]]
        log_false = log_probs[..., self.tokens.answers[1]]
        wanted = LOWEST * (1 - progress)
        p = wanted.exp()
        # Cross-entropy over the vocabulary makes the answer one of the two words. Its gradient is weak where
        # p is small, so the log-odds are fitted as well.
        answer = -(p * log_true + (1 - p) * log_false).mean()
        odds = nn.functional.smooth_l1_loss(log_true - log_false, wanted - torch.log1p(-p), beta=0.5)
        return {"answer": answer, "odds": odds}

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms of the loss, each a mean over the batch."""
        log_probs, *_ = self(batch)
        return self.answer_losses(log_probs, batch.progress)


def draw_weights(module: nn.Module, seed: int) -> None:
    """Draw normal weights of variance 1 / fan-in, in the order of names; biases are 0, norms 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(module.named_parameters()):
            if weight.dim() < 2:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
                continue
            fan_in = 1.0 if "embed_tokens" in name or "pos_embed" in name else weight[0].numel()
            drawn = torch.randn(weight.shape, generator=generator) * fan_in**-0.5
            if "embed" in name and fan_in == 1.0:
                drawn *= 0.2
            elif name.endswith(
                ("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.linear_fc2.weight")
            ):
                drawn *= 0.35  # each of some seven layers adds these to the residual stream
            elif "lm_head" in name:
                drawn *= 0.1
            elif "heads" in name:
                drawn *= 0.3
            weight.copy_(drawn)


def _take_equal_patches_together(model: Qwen3VLForConditionalGeneration) -> None:
    """Make the vision model attend within all patches in one call, as they are equal in size.

    Pixels are embedded by a matrix product, as the equivalent convolution is slow on a CPU.
    """

    def embed(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)

    def attend(
        self: Any, hidden: torch.Tensor, cu_seqlens: torch.Tensor, position_embeddings: Any, **_: Any
    ) -> Any:
        number, tokens = len(cu_seqlens) - 1, hidden.shape[0]
        query, key, value = self.qkv(hidden).view(tokens, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (
            part.view(number, tokens // number, self.num_heads, -1).transpose(1, 2)
            for part in (query, key, value)
        )
        made = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(made.transpose(1, 2).reshape(tokens, -1))

    visual: Any = model.model.visual
    visual.patch_embed.forward = types.MethodType(embed, visual.patch_embed)
    for block in visual.blocks:
        block.attn.forward = types.MethodType(attend, block.attn)
