"""From clips to what one training step sees: frames changed at random, prefixes of them, and targets.

A sample tells a story. Mostly an attempt is shown as it was; sometimes it is held still, played backwards,
undone after it was done, begun when it was finished already, or cut to another attempt. Progress is what the
video shows happening: a finished state that nobody brought about is none, and a picture that shows nothing
leaves the progress as it was.

Nothing here knows of tokens or of the network. Everything is drawn from a generator that the caller seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from training import disturbances
from training.clips import RATE, Clip
from training.instructions import BY_NAME, TASKS, Task

#: The target of log p(" True") is LOWEST at no progress and rises in proportion to progress, so that
#: 1 - log p / log p(static) is the progress itself.
LOWEST = -3.9  # [nat], p = 0.02

#: Progress right after success, and its limit while the success lasts: each frame leaves 0.7 of the gap.
_JUST_DONE, _SURELY_DONE = 0.97, 0.996

#: How often which story is told; only `attempt` and `frozen` are seen through by the auxiliary heads.
_STORIES = {
    "attempt": 0.50,
    "frozen": 0.05,
    "reversed": 0.06,
    "static": 0.08,
    "finished": 0.08,
    "undone": 0.08,
    "cut": 0.15,
}

#: A success counts as done once the object was moved by this share of its way, where the simulator says so
#: later: a handle is lifted in steps and may rest just below the simulator's limit. No failure comes so far.
_DONE_AT = {"handle-pull": 0.8}

#: Tasks whose object stays where it was put, so that it can be seen whether the work was undone.
LASTING = tuple(task.name for task in TASKS if task.name not in ("button-press-topdown", "coffee-button"))

#: [px] Sizes (height, width) of frames in training, and how often each is drawn: what a camera of 4:3 and a
#: square one come to, see `export.FRAME_PIXELS`, and small pictures, which are not enlarged.
SIZES = {(160, 192): 0.60, (160, 160): 0.15, (96, 128): 0.25}


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


class Shape(NamedTuple):
    """What all samples of a step have in common."""

    patches: int
    odd: bool  #: the last patch is one frame twice, as when the number of frames is odd
    height: int  #: [px]
    width: int
    questions: int

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Shape:
        """Draw a shape: mostly short videos, sometimes long; see `SIZES`."""
        longest = rng.choice([4, 10, 16, 33], p=[0.12, 0.38, 0.28, 0.22])
        patches = int(rng.integers(1, longest))
        return cls(patches, bool(rng.random() < 0.4), *drawn_size(rng), questions=4)


def drawn_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw one of `SIZES`."""
    return list(SIZES)[int(rng.choice(len(SIZES), p=list(SIZES.values())))]


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


#: Draws another clip: given whether it is of the same task, a success.
Another = Callable[[bool], Clip]


@dataclass(frozen=True)
class _Shown:
    """N frames of a story, and what is true at each of them. Arrays as those of `Clip`."""

    frames: np.ndarray
    target: np.ndarray  #: (N,) progress, 0 to 1
    hand: np.ndarray
    moved: np.ndarray
    progress: np.ndarray
    done: np.ndarray  #: (N,) bool
    seen: np.ndarray  #: (N,) bool; False where the scene of the task is not shown

    @classmethod
    def of(cls, clip: Clip, places: np.ndarray, target: np.ndarray) -> _Shown:
        arrays = (clip.hand[places], clip.moved[places], clip.progress[places], done(clip)[places])
        return cls(clip.frames[places], target, *arrays, np.ones(len(places), bool))

    def chosen(self, places: np.ndarray) -> _Shown:
        return _Shown(**{name: array[places] for name, array in self.__dict__.items()})

    def then(self, other: _Shown) -> _Shown:
        pairs = ((name, (array, getattr(other, name))) for name, array in self.__dict__.items())
        return _Shown(**{name: np.concatenate(pair) for name, pair in pairs})


def make_sample(
    clip: Clip, shape: Shape, rng: np.random.Generator, another: Another | None = None, gaps: float = 0.0
) -> Sample:
    """Draw a sample: a story with frames of ``clip``, augmented, with questions about it.

    ``another`` draws clips to which a video is cut; without it there are no cuts. ``gaps``: in how many
    attempts, as a share, the camera is away for seconds in which the robot works on.
    """
    count = 2 * shape.patches - shape.odd
    story = _drawn_story(clip, count, another is not None, rng)
    long_enough = count >= 3 and len(clip.frames) >= 3 * RATE
    if story == "attempt" and gaps and long_enough and rng.random() < gaps:
        shown, seconds = _with_gap(clip, count, rng)
    else:
        shown, seconds = _told(clip, story, count, rng, another)
    pictures = change_looks(shown.frames, shape.height, shape.width, rng)
    pictures = _wavering(pictures, rng)
    still = story == "static" or (story == "finished" and rng.random() < 0.5)
    pictures, shown = _interrupted(pictures, shown, still, rng)
    shown = replace(shown, target=_carried(shown.target, shown.seen))
    if shape.odd:  # the last frame makes a patch with itself
        pictures, seconds = np.concatenate([pictures, pictures[-1:]]), np.append(seconds, seconds[-1])
        shown = shown.chosen(np.append(np.arange(count), count - 1))
    ends = shown.chosen(np.arange(1, 2 * shape.patches, 2))
    known = Known(
        ends.hand - _MIDDLE,
        ends.moved,
        ends.progress,
        ends.done.astype(np.float32),
        ends.seen.astype(np.float32),
        TASKS.index(BY_NAME[clip.task]),
        forward=story in ("attempt", "frozen"),
    )
    questions = _ask(BY_NAME[clip.task], ends.target, shape, rng)
    return Sample(pictures, seconds.reshape(-1, 2).mean(1), questions, known)


def done(clip: Clip) -> np.ndarray:
    """(N,) bool: whether the task is done after each frame; it stays so."""
    enough = _DONE_AT.get(clip.task, np.inf) if clip.succeeded else np.inf
    return np.maximum.accumulate(clip.success | (clip.moved >= enough))


def _drawn_story(clip: Clip, count: int, can_cut: bool, rng: np.random.Generator) -> str:
    """Draw a story that ``count`` frames of ``clip`` can tell."""
    story = str(rng.choice(list(_STORIES), p=list(_STORIES.values())))
    possible = {
        "reversed": clip.moved[-1] >= 0.3,
        "finished": clip.succeeded,
        "undone": clip.succeeded and clip.task in LASTING and count >= 4,
        "cut": can_cut and count >= 2,
    }
    return story if possible.get(story, True) else "attempt"


def _told(
    clip: Clip, story: str, count: int, rng: np.random.Generator, another: Another | None
) -> tuple[_Shown, np.ndarray]:
    """The frames of a story and their times [s]."""
    nothing = np.zeros(count)
    if story == "static":
        places = np.full(count, rng.integers(len(clip.frames)))
        shown = _Shown.of(clip, places, nothing)
    elif story == "finished":
        places = _finished(clip, count, rng)
        shown = _Shown.of(clip, places, nothing)
    elif story == "undone":
        places = _there_and_back(clip, count, rng)
        shown = _Shown.of(clip, places, _target(clip, places))
    elif story == "cut" and another is not None:
        shown, places = _cut(clip, count, rng, another)
    else:
        places = _in_order(clip, count, rng)
        if story == "frozen":
            places[int(rng.integers(0, count)) :] = places[int(rng.integers(0, count))]
            places = np.maximum.accumulate(places)
        if story == "reversed":
            shown = _Shown.of(clip, places[::-1], nothing)
        else:
            places = _jumping(places, rng) if story == "attempt" else places
            shown = _Shown.of(clip, places, _target(clip, places))
    spacing = float(rng.choice([0.25, 0.5, 0.5, 0.5, 1.0])) if rng.random() < 0.5 else _spacing(places, rng)
    seconds = np.arange(count) * spacing * rng.uniform(0.97, 1.03, count)
    if count > 2 and rng.random() < 0.06:  # images were missing for a while
        seconds[int(rng.integers(1, count)) :] += rng.uniform(1, 10)
    return shown, seconds


def _with_gap(clip: Clip, count: int, rng: np.random.Generator) -> tuple[_Shown, np.ndarray]:
    """An attempt of which some seconds are not shown, and the times [s] of its frames, which tell so."""
    total = len(clip.frames)
    gap = min(int(rng.integers(round(RATE), round(9 * RATE))), total - 3)
    begun = int(rng.integers(1, total - gap - 1))
    path = np.delete(np.arange(total), np.s_[begun : begun + gap])
    until = len(path) - 1 if rng.random() < 0.6 else int(rng.integers(begun, len(path)))
    places = path[_spread(0, until, len(path), count, rng)]
    speed = rng.uniform(0.6, 1.6)
    seconds = (places - places[0]) / RATE * speed + np.arange(count) * 0.1  # frames that repeat pass, too
    return _Shown.of(clip, places, _target(clip, places)), seconds


def _in_order(clip: Clip, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of ``count`` frames in the clip. A video may begin late, but only while the arm has hardly
    moved; and it may end early."""
    total = len(clip.frames)
    begun = int(np.argmax(clip.progress > 0.08)) if (clip.progress > 0.08).any() else total - 1
    first = int(rng.integers(0, min(begun, total // 3) + 1))
    last = total - 1 if rng.random() < 0.6 else int(rng.integers(first, total))
    return _spread(first, last, total, count, rng)


def _spread(first: int, last: int, total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` places from ``first`` to about ``last``, in order and not quite even."""
    stride = (last - first) / max(1, count - 1)
    places = first + np.arange(count) * stride + rng.uniform(-0.3, 0.3, count) * stride
    return np.asarray(np.clip(np.sort(np.rint(places)), 0, total - 1).astype(int))


def _jumping(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Now and then the picture stands still for a while, and then shows what has happened meanwhile."""
    if len(places) < 6 or rng.random() > 0.1:
        return places
    first = int(rng.integers(1, len(places) - 2))
    held = places.copy()
    held[first : first + int(rng.integers(2, 6))] = places[first]
    return held


def _finished(clip: Clip, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places after the success: the work was over before anybody looked. Still, or as it goes on."""
    total, since = len(clip.frames), int(np.argmax(done(clip)))
    first = int(rng.integers(since, total))
    last = first if rng.random() < 0.4 else total - 1
    return _spread(first, last, total, count, rng)


def _there_and_back(clip: Clip, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places to the success and a little beyond, and back again."""
    total, since = len(clip.frames), int(np.argmax(done(clip)))
    top = min(total - 1, since + int(rng.integers(0, 8)))
    way_back = top - int(rng.integers(0, top + 1)) if rng.random() < 0.5 else top
    path = np.concatenate(
        [np.arange(top + 1), np.full(int(rng.integers(0, 5)), top), top - np.arange(way_back + 1)]
    )
    return np.asarray(path[_spread(0, len(path) - 1, len(path), count, rng)])


def _cut(clip: Clip, count: int, rng: np.random.Generator, another: Another) -> tuple[_Shown, np.ndarray]:
    """Frames of this attempt, not done yet, and then of another: finished, or an attempt of its own.

    Also returns places in a clip from which times can be drawn.
    """
    same_task = bool(rng.random() < 0.75)
    other = another(same_task)
    first = int(rng.integers(1, count))
    until = int(np.argmax(done(clip))) if clip.succeeded else len(clip.frames)
    before = _spread(0, int(rng.integers(0, max(1, until))), max(1, until), first, rng)
    if same_task and rng.random() < 0.35:
        after = _in_order(other, count - first, rng)
        target = _target(other, after)
    else:
        after = _finished(other, count - first, rng)
        target = np.zeros(count - first)
    part = _Shown.of(other, after, target)
    if not same_task:
        part = replace(part, seen=np.zeros(len(after), bool))
    return _Shown.of(clip, before, _target(clip, before)).then(part), before if first > 1 else after


def _wavering(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera in changing light or on a mount that is not firm."""
    if rng.random() < 0.15:
        pictures = disturbances.drifting(pictures, rng)
    if rng.random() < 0.12:
        pictures = disturbances.trembling(pictures, rng)
    return pictures


def _interrupted(
    pictures: np.ndarray, shown: _Shown, still: bool, rng: np.random.Generator
) -> tuple[np.ndarray, _Shown]:
    """Hide the scene at times: before the video, most of all one of a finished state; in it; one frame."""
    count = len(pictures)
    if count >= 3 and rng.random() < (0.35 if still or not shown.target.any() else 0.15):
        number = int(rng.integers(1, min(6, count - 1)))
        places = np.maximum(np.arange(count) - number, 0)
        shown, pictures = shown.chosen(places), pictures[places]
        pictures, shown = _hide(pictures, shown, 0, number, rng)
    if count >= 4 and rng.random() < 0.15:
        first = int(rng.integers(1, count - 1))
        pictures, shown = _hide(pictures, shown, first, int(rng.integers(2, 7)), rng)
    if count >= 2 and rng.random() < 0.08:
        pictures, shown = _hide(pictures, shown, int(rng.integers(count)), 1, rng)
    return pictures, shown


def _hide(
    pictures: np.ndarray, shown: _Shown, first: int, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, _Shown]:
    pictures, seen = pictures.copy(), shown.seen.copy()
    pictures[first : first + number] = disturbances.hidden(pictures[first : first + number], rng)
    seen[first : first + number] = False
    return pictures, replace(shown, seen=seen)


def _carried(target: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Targets in which a frame that shows nothing keeps that of the last one that did; 0 before the first."""
    last = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), -1))
    return np.where(last < 0, 0.0, target[np.maximum(last, 0)])


def _spacing(chosen: np.ndarray, rng: np.random.Generator) -> float:
    """Draw seconds between frames: the simulated ones at another speed."""
    simulated = abs(int(chosen[-1]) - int(chosen[0])) / RATE / max(1, len(chosen) - 1)
    return max(0.1, simulated) * float(rng.uniform(0.6, 1.6))


def _target(clip: Clip, chosen: np.ndarray) -> np.ndarray:
    """Target after each chosen frame: progress by the simulator, near certainty after success."""
    is_done = done(clip)[chosen]
    since = np.cumsum(is_done)
    certain = _SURELY_DONE - (_SURELY_DONE - _JUST_DONE) * 0.7 ** np.maximum(since - 1, 0)
    return np.asarray(np.where(is_done, certain, clip.progress[chosen]))


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
    """The middle of square frames, 4:3 unless a square is asked for; often moved and zoomed a little."""
    side = frames.shape[2]
    seen_height = side if height == width else side * 3 / 4
    zoom, x, y = (
        (rng.uniform(0.94, 1.12), *rng.uniform(-0.04 * side, 0.04 * side, 2))
        if rng.random() < 0.7
        else (1, 0, 0)
    )
    across, down = zoom * width / side, zoom * height / seen_height
    if across < 0.75:  # the change of size below does not look at all pixels
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.35 / across) for frame in frames])
    transform = np.array(
        [
            [across, 0, width / 2 - 0.5 - across * (side / 2 - 0.5 + x)],
            [0, down, height / 2 - 0.5 - down * (frames.shape[1] / 2 - 0.5 + y)],
        ]
    )
    how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return np.stack(
        [
            cv2.warpAffine(frame, transform, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
            for frame in frames
        ]
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
            noise=float(rng.choice([0, 0, 2, 5, 12])) * rng.random(),
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
