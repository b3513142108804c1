"""From clips to what one training step sees: a story (`topreward_ros.offline.distill.stories`) of a clip,
questions about it, and what the simulator knows.

Nothing here knows of tokens or of the network. Everything is drawn from a generator that the caller seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from topreward_ros.offline.distill import stories
from topreward_ros.offline.distill.looks import change_looks
from topreward_ros.offline.distill.stories import Footage, Question, Shape
from training.clips import RATE, Clip
from training.instructions import BY_NAME, TASKS, Task

#: A success counts as done once the object was moved by this share of its way, where the simulator says so
#: later: a handle is lifted in steps and may rest just below the simulator's limit. No failure comes so far.
_DONE_AT = {"handle-pull": 0.8}

#: Tasks whose object stays where it was put, so that it can be seen whether the work was undone.
LASTING = tuple(task.name for task in TASKS if task.name not in ("button-press-topdown", "coffee-button"))

#: [px] Sizes (height, width) of frames in training, and how often each is drawn: what a camera of 4:3 and a
#: square one come to, see `export.FRAME_PIXELS`, and small pictures, which are not enlarged.
SIZES = {(160, 192): 0.60, (160, 160): 0.15, (96, 128): 0.25}


class Known(NamedTuple):
    """What the simulator knows at the end of every patch, P of them; for the auxiliary heads."""

    hand: np.ndarray  #: (P, 3) float32 [m], from the middle of the table
    moved: np.ndarray  #: (P,) float32, 0 to 1
    progress: np.ndarray  #: (P,) float32, 0 to 1
    success: np.ndarray  #: (P,) float32, 0 or 1
    seen: np.ndarray  #: (P,) float32, 1 where the patch shows the scene of this task, else 0
    task: int  #: its place in `instructions.TASKS`
    forward: (
        bool  #: False when more than one attempt in order is shown: then progress and success are no targets
    )


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


def drawn_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw one of `SIZES`."""
    return list(SIZES)[int(rng.choice(len(SIZES), p=list(SIZES.values())))]


#: [m] The middle of the table, the origin of hand positions.
_MIDDLE = np.array([0, 0.6, 0.15], np.float32)


def make_glances(clip: Clip, number: int, height: int, width: int, rng: np.random.Generator) -> list[Glance]:
    """Draw ``number`` pairs of frames from ``clip``, each augmented separately."""
    made = []
    for place in rng.integers(1, len(clip.frames), number):
        pair = clip.frames[place - 1 : place + 1]
        frames = change_looks(pair, height, width, rng, _seen_height(clip, height, width))
        moved = float(clip.moved[place])
        made.append(Glance(frames, clip.hand[place] - _MIDDLE, moved, TASKS.index(BY_NAME[clip.task])))
    return made


def _seen_height(clip: Clip, height: int, width: int) -> float:
    """Of a square clip, what a camera sees [px]: all of it where it is square itself, else 4:3."""
    side = clip.frames.shape[2]
    return float(side if height == width else side * 3 / 4)


#: Draws another clip: given whether it is of the same task, a success.
Another = Callable[[bool], Clip]


def make_sample(
    clip: Clip, shape: Shape, rng: np.random.Generator, another: Another | None = None, gaps: float = 0.0
) -> Sample:
    """Draw a sample: a story with frames of ``clip``, augmented, with questions about it.

    ``another`` draws clips to which a video is cut; without it there are no cuts. ``gaps``: in how many
    attempts, as a share, the camera is away for seconds in which the robot works on.
    """
    other = (lambda same_task: footage(another(same_task))) if another else None
    seen_height = _seen_height(clip, shape.height, shape.width)
    told = stories.tell(footage(clip), shape, rng, other, gaps, seen_height)
    ends, task = told.ends, TASKS.index(BY_NAME[clip.task])
    known = Known(
        ends.known["hand"] - _MIDDLE,
        ends.known["moved"],
        ends.known["progress"],
        ends.done.astype(np.float32),
        ends.seen.astype(np.float32),
        task,
        forward=told.story in ("attempt", "frozen"),
    )
    questions = stories.ask(task, ends.target, shape, rng, _wording, _other)
    return Sample(told.pictures, told.seconds, questions, known)


def footage(clip: Clip) -> Footage:
    """A clip as stories are told of it."""
    return Footage(
        clip.frames,
        RATE,
        clip.progress,
        done(clip),
        clip.succeeded,
        reversible=bool(clip.moved[-1] >= 0.3),
        lasting=clip.task in LASTING,
        known={"hand": clip.hand, "moved": clip.moved, "progress": clip.progress},
    )


def done(clip: Clip) -> np.ndarray:
    """(N,) bool: whether the task is done after each frame; it stays so."""
    enough = _DONE_AT.get(clip.task, np.inf) if clip.succeeded else np.inf
    return np.maximum.accumulate(clip.success | (clip.moved >= enough))


def _wording(task: int, rng: np.random.Generator) -> str:
    return drawn_wording(TASKS[task], rng)


def _other(task: int, rng: np.random.Generator) -> int:
    return TASKS.index(drawn_other(TASKS[task], rng))


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
