"""What the steps of a distillation are drawn from: stories of films, and right and wrong questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.offline.distill import stories
from topreward_ros.offline.distill.network import Stream
from topreward_ros.offline.distill.pupil import Batch, with_known
from topreward_ros.offline.distill.stories import Footage, Question, Shape
from topreward_ros.scoring.patches import resize

PATCHES = 64  # per step, shared by its videos
_MOST_VIDEOS = 10  # per step
_GAPS = 0.1  # share of the attempts in which the camera is away for seconds
_WITHDRAWALS = 0.2  # share of the others that the arm gives up
_TILT = 4.0  # [degrees] by which cameras are turned, at most
_STRANGE = 0.3  # share of the wrong instructions that are of no film
_QUESTIONS = 4  # about a held-out film


@dataclass(frozen=True)
class Lesson:
    """A film to learn from."""

    footage: Footage
    task: int  #: its place among the instructions
    size: tuple[int, int]  #: [px] height and width at which the model sees a frame


@dataclass(frozen=True)
class Instructions:
    """Those of the films, and others that none of them shows."""

    own: tuple[str, ...]
    strange: tuple[str, ...]

    def wording(self, task: int, _: np.random.Generator) -> str:
        """The text of an instruction."""
        return (*self.own, *self.strange)[task]

    def other(self, task: int, rng: np.random.Generator) -> int:
        """Draw another instruction than ``task``."""
        own = len(self.own)
        if self.strange and (own == 1 or rng.random() < _STRANGE):
            return own + int(rng.integers(len(self.strange)))
        return (task + 1 + int(rng.integers(own - 1))) % own


#: Instructions that may stand for wrong ones, where films do not show what they tell.
_OTHERS = (
    "open the drawer", "close the window", "turn on the faucet", "press the handle", "open the door",
    "press the button", "start the coffee machine", "pick up the cup", "fold the towel", "wipe the table",
    "stack the blocks", "pour water into the glass", "put the book on the shelf", "unplug the cable",
)  # fmt: skip
_LITTLE = "a an and at by from in into it of off on onto out the then to up down with"
_SMALL_WORDS = frozenset(_LITTLE.split(" "))


def instructions_for(own: Sequence[str]) -> Instructions:
    """``own`` with strange ones that share no word that means something with any of them; else others."""
    words = {word for text in own for word in normalized_instruction(text).split()} - _SMALL_WORDS
    strange = [text for text in _OTHERS if not words & (set(text.split()) - _SMALL_WORDS)]
    known = set(map(normalized_instruction, own))
    return Instructions(tuple(own), tuple(strange or (text for text in _OTHERS if text not in known)))


@dataclass(frozen=True)
class Sample:
    """A video of P temporal patches, and questions about prefixes of it."""

    frames: np.ndarray  #: (2 P, height, width, 3) uint8 RGB
    seconds: np.ndarray  #: (P,) mean time of each patch's frames since the first
    questions: Sequence[Question]
    task: int  #: of the film
    target: np.ndarray  #: (P,) as in `pupil.Batch`
    state: np.ndarray  #: (P,)
    seen: np.ndarray  #: (P,) bool


class Steps(Dataset[Batch]):
    """The batch of every step, seeded by its number; half are successes, where there are both."""

    def __init__(
        self, lessons: Sequence[Lesson], instructions: Instructions, stream: Stream, steps: int, seed: int
    ) -> None:
        self._instructions, self._stream, self._steps, self._seed = instructions, stream, steps, seed
        self._by_size: dict[tuple[int, int], list[Lesson]] = defaultdict(list)
        for lesson in lessons:
            self._by_size[lesson.size].append(lesson)
        self._sizes = list(self._by_size)
        counts = np.array([len(self._by_size[size]) for size in self._sizes])
        self._shares = counts / counts.sum()

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        shape = Shape.drawn(rng, self._drawn_size)
        lessons = self._by_size[shape.height, shape.width]
        groups = [[it for it in lessons if it.footage.succeeded is outcome] for outcome in (True, False)]
        groups = [group for group in groups if group]
        number = int(np.clip(PATCHES // shape.patches, 2, _MOST_VIDEOS))
        samples = []
        for _ in range(number):
            group = groups[int(rng.integers(len(groups)))]
            lesson = group[int(rng.integers(len(group)))]
            samples.append(self._sample(lesson, shape, rng, lessons))
        return _batch(self._stream, samples)

    def _drawn_size(self, rng: np.random.Generator) -> tuple[int, int]:
        return self._sizes[int(rng.choice(len(self._sizes), p=self._shares))]

    def _sample(
        self, lesson: Lesson, shape: Shape, rng: np.random.Generator, lessons: Sequence[Lesson]
    ) -> Sample:
        done = [it for it in lessons if it.footage.succeeded]
        same = [it for it in done if it.task == lesson.task]

        def another(same_task: bool) -> Footage:
            those = same if same_task and same else done
            return those[int(rng.integers(len(those)))].footage

        told = stories.tell(
            lesson.footage,
            shape,
            rng,
            another if same else None,
            gaps=_GAPS,
            withdrawals=_WITHDRAWALS,
            tilt=_TILT,
        )
        wording, other = self._instructions.wording, self._instructions.other
        questions = stories.ask(lesson.task, told.ends.target, shape, rng, wording, other)
        ends = told.ends
        return Sample(
            told.pictures, told.seconds, questions, lesson.task, ends.target, ends.known["state"], ends.seen
        )


def held_out_batches(
    lessons: Sequence[Lesson], instructions: Instructions, stream: Stream, most_patches: int = 16
) -> list[Batch]:
    """Each film as it was, evenly thinned, with questions about parts of it, the whole, and a wrong one."""
    batches = []
    for number, lesson in enumerate(lessons):
        rng = np.random.default_rng([number, 3])
        total = len(lesson.footage.frames)
        count = min(total, 2 * most_patches) // 2 * 2
        places = np.rint(np.linspace(0, total - 1, count)).astype(int)
        height, width = lesson.size
        target = lesson.footage.target(places)[1::2]
        shape = Shape(count // 2, False, height, width, _QUESTIONS)
        questions = stories.ask(lesson.task, target, shape, rng, instructions.wording, instructions.other)
        frames = _resized(lesson.footage.frames[places], lesson.size)
        seconds = (places / lesson.footage.rate).reshape(-1, 2).mean(1)
        state = lesson.footage.known["state"][places][1::2]
        sample = Sample(frames, seconds, questions, lesson.task, target, state, np.ones(len(state), bool))
        batches.append(_batch(stream, [sample]))
    return batches


def _batch(stream: Stream, samples: Sequence[Sample]) -> Batch:
    target, state, seen = (
        torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
        for name in ("target", "state", "seen")
    )
    return with_known(stream.batch(samples), [sample.task for sample in samples], target, state, seen)


def _resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames (N, H, W, 3) as the model sees them, N times ``size``."""
    return np.stack([resize(frame, size).permute(1, 2, 0).numpy() for frame in frames])
