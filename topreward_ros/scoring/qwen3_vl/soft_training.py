"""Training of soft prompts (prefix tuning; Li and Liang 2021, Lester et al. 2021): the model stays as it is.

Each vector begins as the embedding of a token of a template, so that before the first step the soft prompt
scores as the template does. The last vectors before the instruction and the last of all are trained; the rest
stay. The video stands before the question and does not see it: its keys and values are computed once, and a
step costs passes over the question alone.

What is wanted: a high probability of True at the end of successes, a low one at the end of failures, and that
it rises within successes. Some episodes are kept for validation; the vectors of the epoch that is best on
these are the result, and training ends when none was better for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import logsigmoid, softplus
from transformers.cache_utils import DynamicCache

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import device, patches
from topreward_ros.scoring.base import ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.question.soft_prompt import MAX_VECTORS, SoftPrompt
from topreward_ros.scoring.question.templates import INSTRUCTION_PLACEHOLDER
from topreward_ros.scoring.qwen3_vl.references import PrefixCache
from topreward_ros.scoring.qwen3_vl.temporal_patch import Patch, pair_up
from topreward_ros.scoring.shown_video import shown_video

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

EPOCHS = 60  #: at most
_PATIENCE = 8  # epochs without a better one
_BATCH = 8  # episodes of a step
_RATE = 0.03  # of a step, as a share of the size of an embedding's numbers
_ORDER = 0.5  # weight of the order within successes, beside their end
_EVERY = 4  # of how many episodes of a task and outcome one is for validation
_MEMORY = 0.8  # of what is free, that what is kept of videos may take
_CERTAIN = -1e-4  # [nat] from which on a failure counts as one that the model is sure of


class Epoch(NamedTuple):
    """How an epoch went."""

    number: int  #: from 0: before the first step
    training: float  #: mean loss; of number 0 NaN
    validation: float  #: mean loss
    best: int  #: number of the best so far


class _Context(NamedTuple):
    """Keys and values of a video, which the question stands behind."""

    cache: DynamicCache  #: may hold more
    length: int  #: tokens of it
    position: int  #: M-RoPE position of the next token


class _Example(NamedTuple):
    """An episode: what stands before the question at some of its prefixes, in order."""

    instruction: str
    succeeded: bool
    contexts: list[_Context]


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Those of a soft prompt, of which the last ones on each side are trained."""

    frozen: tuple[torch.Tensor, torch.Tensor]  #: before the instruction, behind it
    trained: tuple[torch.Tensor, torch.Tensor]

    def joined(self) -> list[torch.Tensor]:
        """All before the instruction, and all behind it."""
        return [torch.cat(pair) for pair in zip(self.frozen, self.trained, strict=True)]


class _Videos(PrefixCache):
    """Fills caches with videos."""

    def contexts(self, videos: Sequence[list[Patch]], size: tuple[int, int]) -> list[_Context]:
        """What stands before a question about each of ``videos``; those that begin alike share memory."""
        self._start_over()
        made = []
        for video in videos:
            if self._kept != video[: len(self._kept)]:
                self._start_over()
            for patch in video[len(self._kept) :]:
                self._position = self._run_patch(patch, size, first=not self._kept)
                self._kept.append(patch)
            made.append(_Context(self._cache, self._cache.get_seq_length(), self._position))
        return made

    def frame_size(self, first: Frame) -> tuple[int, int]:
        """(height, width) to which the frames of an episode are resized that begins with ``first``."""
        height, width = first.image.shape[:2]
        return patches.frame_size(height, width, self._patch_side * self._merge_side, self.info.max_pixels)

    def answer_logits(self, contexts: Sequence[_Context], embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (contexts, vocabulary) of the answer to a question of these ``embeddings`` (tokens, hidden).

        The contexts are of one cache, and share a pass. Gradients flow to the embeddings, and the cache stays
        as it is.
        """
        count, longest = len(embeddings), max(context.length for context in contexts)
        cache = DynamicCache()
        for number, tensors in enumerate(_layers(contexts[0].cache)):
            keys, values = (it[:, :, :longest].expand(len(contexts), -1, -1, -1) for it in tensors)
            cache.update(keys, values, number)
        sees = torch.ones(len(contexts), 1, count, longest + count, dtype=torch.bool)
        sees[..., longest:] = torch.ones(count, count, dtype=torch.bool).tril()
        positions = torch.empty(len(contexts), count, dtype=torch.long)
        for row, context in enumerate(contexts):
            sees[row, ..., context.length : longest] = False
            positions[row] = torch.arange(context.position, context.position + count)
        hidden = self._model.model.language_model(
            inputs_embeds=embeddings.expand(len(contexts), -1, -1),
            position_ids=positions.expand(3, -1, -1).to(embeddings.device),
            attention_mask=sees.to(embeddings.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = self._model.lm_head(hidden[:, -1])
        return logits


class SoftTraining:
    """Training of one soft prompt with a loaded Qwen3-VL; add episodes, then `train`."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokens: PromptTokens,
        preprocessing: Preprocessing,
        info: ScorerInfo,
        settings: ScorerSettings,
        template: str,
    ) -> None:
        """``template``: what the soft prompt begins as. Raises `ScorerError` where it cannot."""
        self._model = model.requires_grad_(False)
        self.info = info
        self._settings = settings
        self._videos = _Videos(model, tokens, preprocessing, info)
        self._examples: list[_Example] = []
        self.start = _begun_as(template, model, tokens, info, settings)
        self._tokens = tokens.with_soft_prompt(self.start)

    def add(
        self, instruction: str, succeeded: bool, prefixes: Sequence[Sequence[Frame]], episodes: int
    ) -> None:
        """Add an episode by some of its prefixes, in order; ``episodes`` are to come in all.

        Raises `ScorerError` where memory would not hold them.
        """
        settings = self._settings
        videos = []
        for prefix in prefixes:
            shown = shown_video(prefix, settings.sample_rate, settings.front_padding, settings.fixed_length)
            video = pair_up(shown)[: len(shown) // 2]  # without an odd last frame, which is not kept
            if video and video not in videos:
                videos.append(video)
        if not videos:
            return
        with torch.no_grad():  # no inference mode: what is made in that has no gradients later
            contexts = self._videos.contexts(videos, self._videos.frame_size(prefixes[0][0]))
        self._examples.append(_Example(instruction, succeeded, contexts))
        self._check_memory(contexts, episodes - len(self._examples))

    def train(
        self,
        vectors: int,
        seed: int,
        on_epoch: Callable[[Epoch], None],
        is_over: Callable[[], bool] = lambda: False,
    ) -> tuple[SoftPrompt, list[Epoch]]:
        """The soft prompt of the best epoch, and how all went.

        ``vectors``: how many are trained; ``is_over`` ends training after an epoch. Raises `ScorerError`
        where there are too few episodes, or where the model gives no numbers.
        """
        training, validation = self._parts()
        trained = self._vectors(vectors)
        best = [it.detach().clone() for it in trained.joined()]
        size = float(torch.cat(best).square().mean().sqrt())
        optimizer = torch.optim.Adam(trained.trained, lr=_RATE * size)
        rng = np.random.default_rng(seed)
        epochs = [Epoch(0, float("nan"), self._loss_of(validation, trained), 0)]
        on_epoch(epochs[0])
        while len(epochs) <= EPOCHS and len(epochs) - epochs[-1].best <= _PATIENCE and not is_over():
            losses = []
            order = rng.permutation(len(training))
            for start in range(0, len(order), _BATCH):
                batch = [training[place] for place in order[start : start + _BATCH]]
                optimizer.zero_grad()
                for example in batch:
                    loss = self._loss(example, trained) / len(batch)
                    torch.autograd.backward(loss)
                    losses.append(loss.item() * len(batch))
                optimizer.step()
            reached = self._loss_of(validation, trained)
            number, before = len(epochs), epochs[epochs[-1].best].validation
            if reached < before:
                best = [it.detach().clone() for it in trained.joined()]
            is_best = number if reached < before else epochs[-1].best
            epochs.append(Epoch(number, float(np.mean(losses)), reached, is_best))
            on_epoch(epochs[-1])
        arrays = [it.float().cpu().numpy() for it in best]
        return replace(self.start, before=arrays[0], after=arrays[1]), epochs

    def _vectors(self, count: int) -> _Vectors:
        """All vectors as tensors; ``count`` of them, half on each side, are trained."""
        arrays = (self.start.before, self.start.after)
        wholes = [torch.from_numpy(array).to(self._model.device) for array in arrays]
        behind = min(-(-count // 2), len(wholes[1]))
        shares = (min(count - behind, len(wholes[0])), behind)
        pairs = [
            (whole[: len(whole) - share], whole[len(whole) - share :].clone().requires_grad_())
            for whole, share in zip(wholes, shares, strict=True)
        ]
        return _Vectors((pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1]))

    def _parts(self) -> tuple[list[_Example], list[_Example]]:
        """The episodes to train on and those for validation: of each task and outcome one of four."""
        groups: dict[tuple[str, bool], list[_Example]] = {}
        for example in self._examples:
            groups.setdefault((example.instruction, example.succeeded), []).append(example)
        training, validation = [], []
        for some in groups.values():
            kept = max(1, len(some) // _EVERY) if len(some) > 1 else 0
            validation += some[:kept]
            training += some[kept:]
        for part, name in ((training, "training"), (validation, "validation")):
            if len({example.succeeded for example in part}) < 2:
                raise ScorerError(
                    f"the episodes for {name} have not both successes and failures ({len(self._examples)} "
                    "can be used in all): label two of each, of tasks that are not laid aside"
                )
        return training, validation

    def _loss_of(self, examples: Sequence[_Example], vectors: _Vectors) -> float:
        with torch.no_grad():
            loss = float(torch.stack([self._loss(example, vectors) for example in examples]).mean())
        if not isfinite(loss):
            raise ScorerError(
                f"the loss of training is {loss} in {self._model.dtype}: try dtype float32, or check the "
                "weights"
            )
        return loss

    def _loss(self, example: _Example, vectors: _Vectors) -> torch.Tensor:
        """Cross-entropy of the outcome at the end, and for a success how far its prefixes are in order."""
        shown = example.contexts if example.succeeded else example.contexts[-1:]
        scores = self._scores(shown, example.instruction, vectors)
        if not example.succeeded:
            return -torch.log(-torch.expm1(scores[-1].clamp(max=_CERTAIN)))
        loss = -scores[-1]
        if len(scores) > 1:
            earlier, later = torch.triu_indices(len(scores), len(scores), 1)
            loss = loss + _ORDER * softplus(scores[earlier] - scores[later]).mean()
        return loss

    def _scores(self, contexts: Sequence[_Context], instruction: str, vectors: _Vectors) -> torch.Tensor:
        """log p(True) [nat] after each video and the question about ``instruction``: (contexts,)."""
        (ids,) = self._tokens.after_video(instruction)
        embeddings = self._model.get_input_embeddings()(torch.tensor(ids, device=self._model.device))
        for (place, _), joined in zip(self._tokens.learned(len(ids)), vectors.joined(), strict=True):
            rest = embeddings[place + len(joined) :]
            embeddings = torch.cat([embeddings[:place], joined.to(embeddings.dtype), rest])
        by_cache = groupby(contexts, key=lambda context: id(context.cache))
        logits = [self._videos.answer_logits(list(some), embeddings) for _, some in by_cache]
        log_probs = torch.log_softmax(torch.cat(logits).float(), dim=-1)
        true, false = (log_probs[:, token] for token in self._tokens.answers)
        return logsigmoid(true - false) if self._settings.contrastive else true

    def _check_memory(self, contexts: Sequence[_Context], more: int) -> None:
        """Raise `ScorerError` where ``more`` episodes like the one of these ``contexts`` would not fit."""
        caches = {id(context.cache): context.cache for context in contexts}.values()
        size = sum(tensor.nbytes for cache in caches for layer in _layers(cache) for tensor in layer)
        free = device.free_memory(self._model.device)
        if size * more > _MEMORY * free:
            raise ScorerError(
                f"training keeps {size / 1e9:.2f} GB of each of {more} more episodes, and {free / 1e9:.2f} "
                f"GB are free on {self._model.device}: take fewer, or a smaller max_pixels or max_frames"
            )


def _layers(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of each layer, each (1, heads, tokens, head size)."""
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def _begun_as(
    template: str,
    model: Qwen3VLForConditionalGeneration,
    tokens: PromptTokens,
    info: ScorerInfo,
    settings: ScorerSettings,
) -> SoftPrompt:
    """A soft prompt that scores as ``template`` does."""
    head, _, tail = template.partition(INSTRUCTION_PLACEHOLDER)
    arrays = []
    for text in (head.removesuffix(" "), tail + tokens.gap):
        ids = torch.tensor(tokens.text(text), dtype=torch.long, device=model.device)
        if len(ids) > MAX_VECTORS:
            raise ScorerError(
                f"a soft prompt begins as at most {MAX_VECTORS} tokens, and {template!r} is longer"
            )
        with torch.no_grad():
            arrays.append(model.get_input_embeddings()(ids).float().cpu().numpy())
    about = {"model": info.model_id}
    before, after = arrays
    return SoftPrompt(
        before, after, info.revision, settings.layout, settings.chat_template, settings.contrastive,
        template, about,
    )  # fmt: skip
