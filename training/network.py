"""The network that is trained: a small model of the real Qwen3-VL class, with several questions per video.

The token stream is that of `topreward_ros.scoring`: the same prompt, tokens, patches and positions. All
questions about a video share one forward pass: each attends to the patches it is about and to itself only.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from topreward_ros.scoring import patches
from topreward_ros.scoring.checkpoint.random_weights import train_tokenizer
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question import prompts
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.question.templates import PAPER, fill
from topreward_ros.scoring.qwen3_vl.temporal_patch import patch_positions
from training.instructions import TASKS
from training.samples import LOWEST, SIZES, Glance, Sample

PATCH, MERGE = 16, 2  # [px] side of a vision patch; patches along the side of a token
VOCABULARY, HIDDEN = 512, 192


def make_tokenizer() -> Tokenizer:
    """A tokenizer for which every word of the prompt and of the trained wordings is one token."""
    prompt = [fill(PAPER, wording) for task in TASKS for wording in task.trained]
    return train_tokenizer([*prompt, prompts.TURN_HEAD + prompts.time_text(0.0)] * 2, VOCABULARY)


def make_config(tokenizer: Tokenizer) -> Qwen3VLConfig:
    """Configuration of a model of 3.2 M parameters, half of them in the vision model."""

    def token(content: str) -> int:
        number = tokenizer.token_to_id(content)
        assert number is not None, content
        return int(number)

    return Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 48,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100000.0,
                "mrope_section": [8, 8, 8],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [2],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token(prompts.VIDEO_PAD),
        vision_start_token_id=token(prompts.VISION_START),
        vision_end_token_id=token(prompts.VISION_END),
        tie_word_embeddings=False,
        architectures=["Qwen3VLForConditionalGeneration"],
        dtype="float32",
    )


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
    asked: torch.Tensor  #: (B, Q) the task that is asked for
    newest: torch.Tensor  #: (B, Q) the last patch that the question is about
    hand: torch.Tensor  #: (B, P, 3)
    moved: torch.Tensor  #: (B, P)
    known_progress: torch.Tensor  #: (B, P)
    success: torch.Tensor  #: (B, P)
    seen: torch.Tensor  #: (B, P) 1 where the patch shows the scene of the task, else 0
    task: torch.Tensor  #: (B,)
    forward: torch.Tensor  #: (B,) bool, see `samples.Known`

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


@dataclass
class Look:
    """B pairs of frames, as tensors."""

    pixels: torch.Tensor  #: (B * rows * columns, 3 * 2 * PATCH * PATCH)
    grid: torch.Tensor  #: (B, 3) time, rows, columns
    hand: torch.Tensor  #: (B, 3)
    moved: torch.Tensor  #: (B,)
    task: torch.Tensor  #: (B,)

    def to(self, device: torch.device) -> Look:
        return Look(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


class Stream:
    """Turns samples into a `Batch`, and glances into a `Look`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = PromptTokens(tokenizer)
        self.preprocessing = Preprocessing()
        self._before_patch = lru_cache(4096)(self.tokens.before_patch)
        self._after_video = lru_cache(4096)(self.tokens.after_video)

    def batch(self, samples: list[Sample]) -> Batch:
        """A batch of samples with the same number of patches, questions and pixels."""
        height, width = samples[0].frames.shape[1:3]
        rows, columns = height // PATCH, width // PATCH
        number = len(samples) * len(samples[0].seconds)
        lines = [self._line(sample, rows // MERGE, columns // MERGE) for sample in samples]
        longest = max(len(line.ids) for line in lines)
        known = [sample.known for sample in samples]
        return Batch(
            pixels=torch.cat([self._pixels(sample.frames) for sample in samples]),
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
            asked=torch.tensor([[question.task for question in sample.questions] for sample in samples]),
            newest=torch.tensor(
                [[question.patches - 1 for question in sample.questions] for sample in samples]
            ),
            hand=torch.stack([torch.from_numpy(one.hand) for one in known]).float(),
            moved=torch.stack([torch.from_numpy(one.moved) for one in known]).float(),
            known_progress=torch.stack([torch.from_numpy(one.progress) for one in known]).float(),
            success=torch.stack([torch.from_numpy(one.success) for one in known]).float(),
            seen=torch.stack([torch.from_numpy(one.seen) for one in known]).float(),
            task=torch.tensor([one.task for one in known]),
            forward=torch.tensor([one.forward for one in known]),
        )

    def look(self, glances: list[Glance]) -> Look:
        """A look made of glances of the same size."""
        height, width = glances[0].frames.shape[1:3]
        return Look(
            pixels=torch.cat([self._pixels(glance.frames) for glance in glances]),
            grid=torch.tensor([[1, height // PATCH, width // PATCH]] * len(glances)),
            hand=torch.from_numpy(np.stack([glance.hand for glance in glances])).float(),
            moved=torch.tensor([glance.moved for glance in glances]),
            task=torch.tensor([glance.task for glance in glances]),
        )

    def _pixels(self, video: np.ndarray) -> torch.Tensor:
        frames = torch.from_numpy(video).permute(0, 3, 1, 2)
        pairs = zip(frames[0::2], frames[1::2], strict=True)
        return torch.cat(
            [patches.cut(first, second, self.preprocessing, PATCH, MERGE) for first, second in pairs]
        )

    def _line(self, sample: Sample, rows: int, columns: int) -> _Line:
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


#: Tokens of one patch, by the size of frames.
_TOKENS = sorted({(height // PATCH // MERGE) * (width // PATCH // MERGE) for height, width in SIZES})
_AT_ANSWER = ("asked", "task", "hand", "moved", "progress")
_SEEN = ("task", "hand", "moved")


class Trainee(nn.Module):
    """The model that will be shipped, and auxiliary heads that help training; the export drops them.

    With ``bfloat16`` matrix products are computed in that precision; weights and losses stay float32.
    """

    def __init__(self, tokenizer: Tokenizer, seed: int, bfloat16: bool = False) -> None:
        super().__init__()
        self._bfloat16 = bfloat16
        self.tokens = PromptTokens(tokenizer)
        config = make_config(tokenizer)
        config._attn_implementation = "sdpa"
        self.model = Qwen3VLForConditionalGeneration(config)
        tasks = len(TASKS)
        known = {"hand": 3, "moved": tasks, "progress": tasks, "success": tasks, "task": tasks}
        self.heads = nn.ModuleDict(
            {
                # After every patch: what the language model knows of the video so far.
                **{name: nn.Linear(HIDDEN, outputs) for name, outputs in known.items()},
                # Where the answer is given: the task asked for, the scene, and its state in the newest patch.
                # Without these heads the answers ignored the video for the first five hundred steps.
                **{f"answer_{name}": nn.Linear(HIDDEN, known.get(name, tasks)) for name in _AT_ANSWER},
                # What the vision model sees in one patch: all its tokens side by side, which is learnt
                # quickly, and their mean, which attention can compute.
                # Without these heads the scenes were not told apart after five thousand videos.
                **{
                    f"seen_{name}_{pool}": nn.Linear(width * HIDDEN, known[name])
                    for pool, width in (*((str(tokens), tokens) for tokens in _TOKENS), ("mean", 1))
                    for name in _SEEN
                },
            }
        )
        _draw_weights(self, seed)
        _take_equal_patches_together(self.model)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the network on B videos of P patches with Q questions each.

        Returns in float32 log-probabilities (B, Q, vocabulary) after the questions, hidden states (B, Q,
        hidden) there, hidden states (B, P, hidden) after the patches, and vision features (B, P, tokens *
        hidden).
        """
        with self._precision(batch.pixels.device):
            return self._forward(batch)

    def _precision(self, device: torch.device) -> torch.autocast:
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

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms of the loss, each a mean over the batch."""
        log_probs, answers, states, seen = self(batch)
        log_true = log_probs[..., self.tokens.answers[0]]
        log_false = log_probs[..., self.tokens.answers[1]]
        wanted = LOWEST * (1 - batch.progress)
        p = wanted.exp()
        # Cross-entropy over the vocabulary makes the answer one of the two words. Its gradient is weak where
        # p is small, so the log-odds are fitted as well.
        answer = -(p * log_true + (1 - p) * log_false).mean()
        odds = nn.functional.smooth_l1_loss(log_true - log_false, wanted - torch.log1p(-p), beta=0.5)
        said = {name: self.heads[name](states) for name in ("hand", "moved", "progress", "success", "task")}
        task = batch.task[:, None].expand(states.shape[:2])
        forward = batch.forward[:, None].float() * batch.seen
        success = nn.functional.binary_cross_entropy_with_logits(
            _of_task(said["success"], task), batch.success, reduction="none"
        )
        progress = (_of_task(said["progress"], task) - batch.known_progress).square()
        return {
            "answer": answer,
            "odds": odds,
            **_state_losses(said, batch.hand, batch.moved, task, batch.seen),
            "progress": (progress * forward).sum() / (forward.sum() + 1e-6),
            "success": (success * forward).sum() / (forward.sum() + 1e-6),
            **self._answer_losses(answers, batch),
            **self._seen_losses(seen, batch.hand, batch.moved, task, batch.seen),
        }

    def _answer_losses(self, answers: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of the heads on the hidden states (B, Q, hidden) where answers are given."""
        rows = torch.arange(len(answers), device=answers.device)[:, None]
        said = {name: self.heads[f"answer_{name}"](answers) for name in _AT_ANSWER}
        task = batch.task[:, None].expand_as(batch.asked)
        is_seen = batch.seen[rows, batch.newest]
        forward = batch.forward[:, None].float() * is_seen
        progress = (_of_task(said["progress"], task) - batch.known_progress[rows, batch.newest]).square()
        hand, moved = batch.hand[rows, batch.newest], batch.moved[rows, batch.newest]
        state = _state_losses(said, hand, moved, task, is_seen)
        return {
            "answer_asked": nn.functional.cross_entropy(said["asked"].flatten(0, 1), batch.asked.flatten()),
            **{f"answer_{name}": loss for name, loss in state.items()},
            "answer_progress": (progress * forward).sum() / (forward.sum() + 1e-6),
        }

    def look_losses(self, look: Look) -> dict[str, torch.Tensor]:
        """The terms of the loss while only the vision model learns."""
        core: Any = self.model.model
        with self._precision(look.pixels.device):
            seen = core.visual(look.pixels, grid_thw=look.grid).pooler_output
        seen = seen.float().view(len(look.task), -1)
        return self._seen_losses(seen, look.hand, look.moved, look.task, torch.ones_like(look.moved))

    def _seen_losses(
        self,
        seen: torch.Tensor,
        hand: torch.Tensor,
        moved: torch.Tensor,
        task: torch.Tensor,
        counts: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Losses of the heads on vision features (..., tokens * hidden); targets are (...) or (..., 3)."""
        tokens = seen.unflatten(-1, (-1, HIDDEN))
        losses = {}
        for pool, pooled in (("flat", seen), ("mean", tokens.mean(-2))):
            kind = "mean" if pool == "mean" else str(tokens.shape[-2])
            said = {name: self.heads[f"seen_{name}_{kind}"](pooled) for name in _SEEN}
            for name, loss in _state_losses(said, hand, moved, task, counts).items():
                losses[f"seen_{name}_{pool}"] = loss
        return losses


def _state_losses(
    said: dict[str, torch.Tensor],
    hand: torch.Tensor,
    moved: torch.Tensor,
    task: torch.Tensor,
    counts: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Losses for the scene, the place of the hand and how far the object moved; for any leading shape.

    Means over what ``counts`` (...), 1 or 0.
    """
    scene = nn.functional.cross_entropy(said["task"].flatten(0, -2), task.flatten(), reduction="none")
    losses = {
        "task": scene.view(task.shape),
        "hand": (said["hand"] - hand * 5).square().mean(-1),
        "moved": (_of_task(said["moved"], task) - moved).square(),
    }
    return {name: (loss * counts).sum() / (counts.sum() + 1e-6) for name, loss in losses.items()}


def _of_task(said: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
    """Select the output of the true task (...) among those of all tasks (..., tasks)."""
    return said.gather(-1, task[..., None])[..., 0]


def _draw_weights(module: nn.Module, seed: int) -> None:
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
