"""From clips to what one training step sees: frames changed at random, prefixes of them, and targets.

Nothing here knows of tokens or of the network. Everything is drawn from a generator that the caller seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from training.clips import RATE, Clip
from training.instructions import BY_NAME, TASKS, Task

#: The target of log p(" True") is LOWEST at no progress and rises in proportion to progress, so that
#: 1 - log p / log p(static) is the progress itself.
LOWEST = -3.9  # [nat], p = 0.02

#: Progress right after success, and its limit while the success lasts: each frame leaves 0.7 of the gap.
_JUST_DONE, _SURELY_DONE = 0.97, 0.996

#: How often a clip is shown in which order; only `forward` and `frozen` are progress.
_VARIANTS = {"forward": 0.70, "frozen": 0.06, "reversed": 0.09, "static": 0.15}


class Question(NamedTuple):
    """The question whether the first patches of a video complete a task, and the right answer."""

    patches: int  #: temporal patches that the question is about, from the first on
    task: int  #: the task asked for, as its index in `instructions.TASKS`
    wording: str
    progress: float  #: target of the answer, 0 to 1; log p(" True") = LOWEST * (1 - progress)


class Known(NamedTuple):
    """What the simulator knows at the end of every patch, P of them; for the auxiliary heads."""

    hand: np.ndarray  #: (P, 3) float32 [m], from the middle of the table
    moved: np.ndarray  #: (P,) float32, 0 to 1
    progress: np.ndarray  #: (P,) float32, 0 to 1
    success: np.ndarray  #: (P,) float32, 0 or 1
    task: int  #: its place in `instructions.TASKS`
    forward: bool  #: False when frames are reversed or repeated: then progress and success are not targets


class Glance(NamedTuple):
    """Two consecutive frames and what can be seen in them."""

    frames: np.ndarray  #: (2, height, width, 3) uint8 RGB
    hand: np.ndarray  #: (3,) float32 [m], from the middle of the table
    moved: float  #: 0 to 1
    task: int


@dataclass(frozen=True)
class Sample:
    """A video of P temporal patches, and questions about prefixes of it."""

    frames: np.ndarray  #: (2 P, height, width, 3) uint8 RGB
    seconds: np.ndarray  #: (P,) mean time of each patch's frames since the first
    questions: list[Question]
    known: Known


class Shape(NamedTuple):
    """What all samples of a step have in common."""

    patches: int
    odd: bool  #: the last patch is one frame twice, as when the number of frames is odd
    height: int  #: [px]
    width: int
    questions: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Shape:
        """Draw a shape: mostly short videos, sometimes long; mostly 4:3 as most cameras, sometimes square."""
        longest = rng.choice([4, 10, 16, 33], p=[0.15, 0.40, 0.25, 0.20])
        patches = int(rng.integers(1, longest))
        height = 96 if rng.random() < 0.7 else 128
        return cls(patches, bool(rng.random() < 0.4), height, 128, questions=4)


#: [m] The middle of the table, the origin of hand positions.
_MIDDLE = np.array([0, 0.6, 0.15], np.float32)


def make_glances(clip: Clip, number: int, height: int, width: int, rng: np.random.Generator) -> list[Glance]:
    """Draw ``number`` pairs of frames from ``clip``, each augmented separately."""
    made = []
    for place in rng.integers(1, len(clip.frames), number):
        frames = change_looks(clip.frames[place - 1 : place + 1], height, width, rng)
        moved = float(clip.moved[place])
        made.append(Glance(frames, clip.hand[place] - _MIDDLE, moved, TASKS.index(BY_NAME[clip.task])))
    return made


def make_sample(clip: Clip, shape: Shape, rng: np.random.Generator) -> Sample:
    """Draw a sample: frames of ``clip``, sometimes out of order, augmented, with questions about them."""
    variant = str(rng.choice(list(_VARIANTS), p=list(_VARIANTS.values())))
    if variant == "reversed" and clip.moved[-1] < 0.3:
        variant = "forward"
    count = 2 * shape.patches - shape.odd
    chosen = _choose_frames(clip, count, variant, rng)
    progress = _target(clip, chosen) if variant in ("forward", "frozen") else np.zeros(count)
    frames = change_looks(clip.frames[chosen], shape.height, shape.width, rng)
    spacing = float(rng.choice([0.25, 0.5, 0.5, 0.5, 1.0])) if rng.random() < 0.5 else _spacing(chosen, rng)
    seconds = np.arange(count) * spacing * rng.uniform(0.97, 1.03, count)
    if shape.odd:  # the last frame makes a patch with itself
        frames, seconds = np.concatenate([frames, frames[-1:]]), np.append(seconds, seconds[-1])
        progress, chosen = np.append(progress, progress[-1]), np.append(chosen, chosen[-1])
    ends = chosen[1::2]
    known = Known(
        clip.hand[ends] - _MIDDLE,
        clip.moved[ends],
        clip.progress[ends],
        clip.success[ends].astype(np.float32),
        TASKS.index(BY_NAME[clip.task]),
        forward=variant in ("forward", "frozen"),
    )
    questions = _ask(BY_NAME[clip.task], progress[1::2], shape, rng)
    return Sample(frames, seconds.reshape(-1, 2).mean(1), questions, known)


def _choose_frames(clip: Clip, count: int, variant: str, rng: np.random.Generator) -> np.ndarray:
    """Indices of ``count`` frames in the clip, in the order in which they are shown."""
    total = len(clip.frames)
    if variant == "static":
        return np.full(count, rng.integers(total))
    # A video may begin late, but only while the arm has hardly moved; and it may end early.
    begun = int(np.argmax(clip.progress > 0.08)) if (clip.progress > 0.08).any() else total - 1
    first = int(rng.integers(0, min(begun, total // 3) + 1))
    last = total - 1 if rng.random() < 0.6 else int(rng.integers(first, total))
    stride = (last - first) / max(1, count - 1)
    places = first + np.arange(count) * stride + rng.uniform(-0.3, 0.3, count) * stride
    places = np.clip(np.sort(np.rint(places)), 0, total - 1).astype(int)
    if variant == "frozen":
        places[int(rng.integers(0, count)) :] = places[int(rng.integers(0, count))]
        places = np.maximum.accumulate(places)
    return places[::-1] if variant == "reversed" else places


def _spacing(chosen: np.ndarray, rng: np.random.Generator) -> float:
    """Draw seconds between frames: the simulated ones at another speed."""
    simulated = abs(int(chosen[-1]) - int(chosen[0])) / RATE / max(1, len(chosen) - 1)
    return max(0.1, simulated) * float(rng.uniform(0.6, 1.6))


def _target(clip: Clip, chosen: np.ndarray) -> np.ndarray:
    """Target after each chosen frame: progress by the simulator, near certainty after success."""
    done = clip.success[chosen]
    since = np.cumsum(done)
    certain = _SURELY_DONE - (_SURELY_DONE - _JUST_DONE) * 0.7 ** np.maximum(since - 1, 0)
    return np.asarray(np.where(done, certain, clip.progress[chosen]))


def _ask(task: Task, progress: np.ndarray, shape: Shape, rng: np.random.Generator) -> list[Question]:
    """Questions about prefixes: right ones, the whole video among them, and wrong ones (target 0)."""
    wrong = max(1, shape.questions // 4)
    beginnings = rng.permutation(np.arange(1, shape.patches))[: shape.questions - wrong - 1]
    ends = [*sorted(beginnings.tolist()), shape.patches]
    number = TASKS.index(task)
    asked = [Question(end, number, drawn_wording(task, rng), float(progress[end - 1])) for end in ends]
    while len(asked) < shape.questions:
        end = shape.patches if rng.random() < 0.5 else int(rng.integers(1, shape.patches + 1))
        other = drawn_other(task, rng)
        asked.append(Question(end, TASKS.index(other), drawn_wording(other, rng), 0.0))
    return asked


def drawn_other(task: Task, rng: np.random.Generator) -> Task:
    """Draw another task: in half of the cases the opposite one, if there is one."""
    if task.opposite and rng.random() < 0.5:
        return BY_NAME[task.opposite]
    others = [other for other in TASKS if other != task]
    return others[int(rng.integers(len(others)))]


def drawn_wording(task: Task, rng: np.random.Generator) -> str:
    """Draw a trained wording; the instruction itself comes more often than the others."""
    return task.instruction if rng.random() < 0.2 else str(rng.choice(task.trained))


def crop(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle ``height`` x ``width`` of frames (N, H, W, 3)."""
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]


def change_looks(frames: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Augment frames to (N, height, width, 3) uint8, as another camera might have shown them.

    All frames of a call are changed in the same way: shift and zoom, colour and light, blur, noise, JPEG.
    """
    pictures = _moved(frames, height, width, rng)
    looks = _Looks.drawn(rng)
    made = np.empty(pictures.shape, np.uint8)
    known: dict[bytes, np.ndarray] = {}  # a repeated frame stays equal, unless there is noise
    for number, picture in enumerate(pictures):
        key = picture.tobytes() if looks.noise == 0 else b""
        if key not in known:
            known[key] = looks.applied(picture, rng)
        made[number] = known[key] if looks.noise == 0 else looks.applied(picture, rng)
    return made


def _moved(frames: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.3:
        return crop(frames, height, width)
    zoom = rng.uniform(0.94, 1.12)
    x, y = rng.uniform(-5, 5, 2)
    source_height, source_width = frames.shape[1:3]
    transform = np.array(
        [
            [zoom, 0, width / 2 - zoom * (source_width / 2 + x)],
            [0, zoom, height / 2 - zoom * (source_height / 2 + y)],
        ]
    )
    return np.stack(
        [cv2.warpAffine(f, transform, (width, height), borderMode=cv2.BORDER_REPLICATE) for f in frames]
    )


@dataclass(frozen=True)
class _Looks:
    """How a camera shows colours and details; the same for all frames of a video."""

    gain: np.ndarray  #: (3,) by colour
    offset: float  #: of 255
    noise: float  #: standard deviation, of 255; 0: none
    blur: float  #: [px] standard deviation of the Gaussian; 0: none
    quality: int  #: of JPEG; 0: not compressed
    grey: float  #: share of the colour that is lost

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Looks:
        return cls(
            gain=rng.uniform(0.82, 1.18) * rng.uniform(0.95, 1.05, 3),
            offset=rng.uniform(-12, 12),
            noise=float(rng.choice([0, 0, 2, 5])) * rng.random(),
            blur=float(rng.uniform(0.4, 0.8)) if rng.random() < 0.4 else 0.0,
            quality=int(rng.integers(40, 95)) if rng.random() < 0.2 else 0,
            grey=rng.uniform(0, 0.4) if rng.random() < 0.15 else 0.0,
        )

    def applied(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``picture`` (height, width, 3) uint8 with these looks; ``rng`` draws the noise."""
        changed: np.ndarray = picture.astype(np.float32) * self.gain.astype(np.float32) + np.float32(
            self.offset
        )
        if self.grey:
            changed += np.float32(self.grey) * (changed.mean(2, keepdims=True) - changed)
        if self.blur:
            changed = cv2.GaussianBlur(changed, (0, 0), self.blur)
        if self.noise:
            changed += rng.standard_normal(changed.shape, np.float32) * np.float32(self.noise)
        shown = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
        if self.quality:
            _, jpeg = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
        return np.asarray(shown)
