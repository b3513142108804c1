"""What Qwen3-VL has seen and computed of one episode, and what is to be run for its next score.

Everything is computed once: frames are resized, patches seen and taken into the language model's memory when
they first come. A second memory is filled for the prefix that the next thinning will leave, a third holds the
first frame still, for the baseline. Several episodes on one model share each pass (`score_together`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import NO_SCORE
from topreward_ros.scoring import patches
from topreward_ros.scoring.base import PrefixScore, ScorerSettings, seconds_of
from topreward_ros.scoring.device import send
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.answers import read_answers
from topreward_ros.scoring.question.prompts import PromptTokens, told_time
from topreward_ros.scoring.qwen3_vl.language import LanguageModel, Pass, PatchFeatures
from topreward_ros.scoring.qwen3_vl.prompt_tree import PromptTree, make_prompt_tree
from topreward_ros.scoring.qwen3_vl.video_cache import Patch, VideoMemory, answers_of
from topreward_ros.scoring.qwen3_vl.vision import VisionModel
from topreward_ros.scoring.static_scores import Layout, StaticScores

#: Patches in one pass of the vision model at most, so that catching up on a long video needs bounded memory.
_SEEN_AT_ONCE = 8

FramePair = tuple[Frame, Frame]  #: of a patch


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model and how it is asked: what all episodes share."""

    vision: VisionModel
    language: LanguageModel
    tokens: PromptTokens
    preprocessing: Preprocessing
    settings: ScorerSettings
    max_pixels: int  #: of one frame
    patch: int  #: [pixels], side of what the vision model takes as one input
    merge: int  #: side of the block of patches that makes one token

    def resized_to(self, frame: Frame) -> tuple[int, int]:
        """(height, width) at which the frames of an episode are seen that begins with ``frame``."""
        height, width = frame.image.shape[:2]
        return patches.frame_size(height, width, self.patch * self.merge, self.max_pixels)

    def read(self, answers: torch.Tensor, seen: int) -> PrefixScore:
        """From log-probabilities (prompts, 2) of the true and the false answer after ``seen`` patches."""
        return read_answers(answers, self.settings.contrastive, f"{seen} patches", self.language.dtype)

    def answer(self, asked: Pass, seen: int) -> PrefixScore:
        """Run one pass by itself."""
        (answers,) = answers_of(self.language, self.tokens, [asked])
        return self.read(answers, seen)


class Question(NamedTuple):
    """What is to be run for one score."""

    video: list[Patch]
    layout: Layout
    passes: list[Pass]  #: the video's, and the still one's where its answer is not known


class EpisodeMemory:
    """Of one episode at a time: it begins anew by itself with a frame of another size."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.forget()

    def forget(self) -> None:
        """Start as new: nothing seen, nothing computed, no cache allocated."""
        self.size = (0, 0)  #: (height, width) of the frames as the model sees them
        self.prefix: Sequence[Frame] = ()  #: that was scored last
        self.newest_score = NO_SCORE
        self.left_behind: Sequence[Frame] = ()  #: that prefix as it would be, had it just not been thinned
        self._resized: dict[Frame, torch.Tensor] = {}  # the newest frames, each (3, height, width) uint8
        self._features: dict[FramePair, PatchFeatures] = {}
        self._video, self._next_video, self._static_video = (
            VideoMemory(self._engine.language, self._engine.tokens, self._engine.settings.max_frames)
            for _ in range(3)
        )
        self._static_scores = StaticScores()
        self._prompt_trees: dict[str, PromptTree] = {}  # of the newest instruction

    def pair_up(self, prefix: Sequence[Frame]) -> list[Patch]:
        """The patches of a prefix."""
        return pair_up(prefix, self._engine.settings.sample_rate)

    # ---- the hot path, in the order of `score_together` -----------------------------------------------

    def take_up(self, prefix: Sequence[Frame]) -> list[Patch]:
        """The patches of a prefix that is to be scored next."""
        size = self._engine.resized_to(prefix[0])
        if size != self.size:  # features of another size are void
            self.forget()
            self.size = size
        video = self.pair_up(prefix)
        if self._next_video.known(video) > self._video.known(video):  # thinned, and prepared for
            self._video, self._next_video = self._next_video, self._video
            self.left_behind = [*self.prefix, prefix[-1]]
        else:
            self.left_behind = ()  # too late to compare: the moment has gone
        return video

    def unseen(self, video: list[Patch]) -> list[FramePair]:
        """Pairs of frames of which features will be wanted for a score of ``video``, and are not known."""
        new = dict.fromkeys((patch.first, patch.second) for patch in video[self._video.known(video) :])
        if self._engine.settings.static_baseline:
            new[video[0].first, video[0].first] = None
        return [frames for frames in new if frames not in self._features]

    def cut(self, frames: FramePair) -> torch.Tensor:
        """The vision model's input for a patch, (rows * columns, 3 * 2 * patch * patch) float32."""
        for frame in frames:
            if frame not in self._resized:
                self._resized[frame] = patches.resize(frame.image, self.size)
        first, second = (self._resized[frame] for frame in frames)
        engine = self._engine
        return patches.cut(first, second, engine.preprocessing, engine.patch, engine.merge)

    def keep(self, frames: FramePair, features: PatchFeatures) -> None:
        """Take what the vision model saw in a patch."""
        self._features[frames] = features

    def ask(self, instruction: str, video: list[Patch]) -> Question:
        """What is to be run for the score of ``video``."""
        layout = layout_of(instruction, video)
        passes = [self._video.ask(video, self._see, self.prompts(instruction))]
        self._static_scores.use_start(video[0].first)
        if self._engine.settings.static_baseline and layout not in self._static_scores:
            passes.append(self._ask_static(instruction, video[0].first, layout))
        return Question(video, layout, passes)

    def conclude(
        self, question: Question, answers: Sequence[torch.Tensor], prefix: Sequence[Frame]
    ) -> PrefixScore:
        """The score of ``prefix`` from the answers of the passes; drops what no later score will need."""
        score = replace(self._engine.read(answers[0], len(question.video)), num_frames=len(prefix))
        if len(answers) > 1:
            self._static_scores[question.layout] = self._engine.read(answers[1], len(question.video)).log_prob
        if self._engine.settings.static_baseline:
            score = replace(score, log_prob_static=self._static_scores[question.layout])
        self._drop_all_but(question.video)
        self.prefix, self.newest_score = prefix, score
        return score

    def prompts(self, instruction: str) -> PromptTree:
        """All prompts about ``instruction``."""
        if instruction not in self._prompt_trees:
            self._prompt_trees.clear()
            self._prompt_trees[instruction] = make_prompt_tree(self._engine.tokens.after_video(instruction))
        return self._prompt_trees[instruction]

    def _ask_static(self, instruction: str, start: Frame, layout: Layout) -> Pass:
        still = [Patch(start, start, float(seconds)) for seconds in layout[1:]]
        return self._static_video.ask(still, self._see, self.prompts(instruction))

    def _see(self, video: list[Patch]) -> list[PatchFeatures]:
        """Features of every patch, computed when it is first seen. Patches do not look at each other."""
        new = dict.fromkeys((patch.first, patch.second) for patch in video)
        see_together(self._engine, [(self, [frames for frames in new if frames not in self._features])])
        return [self._features[patch.first, patch.second] for patch in video]

    def _drop_all_but(self, video: list[Patch]) -> None:
        """Keep features of patches that a thinned prefix may still have; and pixels of the newest frames."""
        start, newest = video[0].first, video[-1]
        kept = {(patch.first, patch.second) for patch in video} | {(start, start)}
        self._features = {frames: features for frames, features in self._features.items() if frames in kept}
        self._resized = {
            f: pixels for f, pixels in self._resized.items() if f in (newest.first, newest.second)
        }

    # ---- between the ticks --------------------------------------------------------------------------

    def prefilled(self, video: list[Patch]) -> int:
        """How many patches of a video to come are in the memory that is made ready for it."""
        return self._next_video.known(video)

    def prefill(self, video: list[Patch], prompts: PromptTree) -> None:
        """Make that memory ready for ``video``."""
        self._next_video.commit(video, self._see, prompts)

    def knows_static(self, layout: Layout) -> bool:
        """Whether the baseline for ``layout`` is there; of this start."""
        return layout in self._static_scores

    def score_static(self, instruction: str, start: Frame, layout: Layout) -> None:
        """Compute the baseline for ``layout``."""
        asked = self._ask_static(instruction, start, layout)
        self._static_scores[layout] = self._engine.answer(asked, len(layout) - 1).log_prob

    def score_left_behind(self, instruction: str) -> PrefixScore:
        """The newest prefix as it would be had it not been thinned. Asked for once."""
        video = self.pair_up(self.left_behind)
        asked = self._next_video.ask(video, self._see, self.prompts(instruction))
        self.left_behind = ()
        return self._engine.answer(asked, len(video))


def score_together(
    engine: Engine, episodes: Sequence[EpisodeMemory], requests: Sequence[tuple[str, Sequence[Frame]]]
) -> list[PrefixScore]:
    """Scores of one prefix of each episode: the hot path, from frames to numbers.

    One pass of the vision model over what is new, one pass of the language model over that and all prompts,
    one wait for the device.
    """
    videos = [episode.take_up(prefix) for episode, (_, prefix) in zip(episodes, requests, strict=True)]
    see_together(
        engine, [(episode, episode.unseen(video)) for episode, video in zip(episodes, videos, strict=True)]
    )
    questions = [
        episode.ask(instruction, video)
        for episode, (instruction, _), video in zip(episodes, requests, videos, strict=True)
    ]
    passes = [one for question in questions for one in question.passes]
    answers = iter(answers_of(engine.language, engine.tokens, passes))
    return [
        episode.conclude(question, [next(answers) for _ in question.passes], prefix)
        for episode, question, (_, prefix) in zip(episodes, questions, requests, strict=True)
    ]


def see_together(engine: Engine, wanted: Sequence[tuple[EpisodeMemory, Sequence[FramePair]]]) -> None:
    """Let the vision model see pairs of frames, and the episodes keep the features."""
    by_size: dict[tuple[int, int], list[tuple[EpisodeMemory, FramePair]]] = {}
    for episode, pairs in wanted:
        by_size.setdefault(episode.size, []).extend((episode, frames) for frames in pairs)
    for (height, width), unseen in by_size.items():
        rows, columns = height // engine.patch, width // engine.patch
        for start in range(0, len(unseen), _SEEN_AT_ONCE):
            some = unseen[start : start + _SEEN_AT_ONCE]
            pixels = torch.stack([episode.cut(frames) for episode, frames in some])
            pixels = send(pixels, engine.language.device).to(engine.language.dtype)
            seen = engine.vision(pixels, rows, columns)
            for number, (episode, frames) in enumerate(some):
                # Copies, so that one patch that is kept does not keep the memory of all.
                layers = [layer[number].clone() for layer in seen.deepstack]
                embeddings = seen.embeddings[number].clone()
                episode.keep(
                    frames,
                    PatchFeatures(rows // engine.merge, columns // engine.merge, embeddings, layers),
                )


def layout_of(instruction: str, video: list[Patch]) -> Layout:
    """What a static baseline hangs on beside the first frame."""
    return (instruction, *(patch.seconds for patch in video))


def pair_up(prefix: Sequence[Frame], sample_rate: float = 0.0) -> list[Patch]:
    """The temporal patches of a prefix; an odd last frame, or one alone, is repeated."""
    seconds = seconds_of(prefix, sample_rate)
    last = len(prefix) - 1
    return [
        Patch(prefix[i], prefix[j], told_time((seconds[i] + seconds[j]) / 2))
        for i in range(0, len(prefix), 2)
        for j in [min(i + 1, last)]
    ]
