"""What one training step is told: frames of attempts, mostly in order, sometimes not, and targets for them.

A story mostly shows an attempt as it was; sometimes it is held still, played backwards, given up, undone
after it was done, begun when it was finished already, or cut to another attempt. Progress is what the video
shows happening: a finished state that nobody brought about is none, and a picture that shows nothing leaves
the progress as it was.

Nothing here knows of tokens, of the network, or of where the frames come from. Everything is drawn from a
generator that the caller seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from topreward_ros.offline.distill import disturbances
from topreward_ros.offline.distill.looks import change_looks

#: The target of log p(" True") is LOWEST at no progress and rises in proportion to progress, so that
#: 1 - log p / log p(static) is the progress itself.
LOWEST = -3.9  # [nat], p = 0.02

#: Progress right after success, and its limit while the success lasts: each frame leaves 0.7 of the gap.
_JUST_DONE, _SURELY_DONE = 0.97, 0.996

#: How often which story is told.
_STORIES = {
    "attempt": 0.50,
    "frozen": 0.05,
    "reversed": 0.06,
    "static": 0.08,
    "finished": 0.08,
    "undone": 0.08,
    "cut": 0.15,
}


class Question(NamedTuple):
    """The question whether the first patches of a video complete a task, and the right answer."""

    patches: int  #: temporal patches that the question is about, from the first on
    task: int  #: the task asked for, as its index in a list of the caller's
    wording: str
    progress: float  #: target of the answer, 0 to 1; log p(" True") = LOWEST * (1 - progress)


class Shape(NamedTuple):
    """What all samples of a step have in common."""

    patches: int
    odd: bool  #: the last patch is one frame twice, as when the number of frames is odd
    height: int  #: [px]
    width: int
    questions: int

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: Callable[[np.random.Generator], tuple[int, int]]) -> Shape:
        """Draw a shape: mostly short videos, sometimes long; ``size`` draws height and width [px]."""
        longest = rng.choice([4, 10, 16, 33], p=[0.12, 0.38, 0.28, 0.22])
        patches = int(rng.integers(1, longest))
        return cls(patches, bool(rng.random() < 0.4), *size(rng), questions=4)


class Frames(Protocol):
    """N frames that need not be in memory as they are."""

    def __getitem__(self, places: np.ndarray, /) -> np.ndarray:
        """Those at ``places`` (K,): (K, height, width, 3) uint8 RGB."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Footage:
    """N frames of one attempt in order, and what is true at each of them."""

    frames: Frames
    rate: float  #: [Hz] of the frames
    progress: np.ndarray  #: (N,) 0 to 1, before it is done
    done: np.ndarray  #: (N,) bool; stays True once it was
    succeeded: bool  #: as a whole; only then stories are told of what was done
    reversible: bool  #: so much happens that its reverse is another thing
    lasting: bool  #: what was done stays so, and can be seen to be undone
    #: after it is done the target is near certainty; else `progress` is all that is known
    certain: bool = True
    known: Mapping[str, np.ndarray] = field(default_factory=dict)  #: (N, ...) what else is true

    def target(self, places: np.ndarray) -> np.ndarray:
        """(K,) target after each of the frames at ``places`` (K,), in the order in which they are shown."""
        is_done = self.done[places] if self.certain else np.zeros(len(places), bool)
        since = np.cumsum(is_done)
        certain = _SURELY_DONE - (_SURELY_DONE - _JUST_DONE) * 0.7 ** np.maximum(since - 1, 0)
        return np.asarray(np.where(is_done, certain, self.progress[places]))


@dataclass(frozen=True)
class Shown:
    """N frames of a story, and what is true at each of them."""

    frames: np.ndarray  #: (N, height, width, 3) uint8 RGB
    target: np.ndarray  #: (N,) progress, 0 to 1
    done: np.ndarray  #: (N,) bool
    seen: np.ndarray  #: (N,) bool; False where the scene of the task is not shown
    known: Mapping[str, np.ndarray]  #: (N, ...) each

    @classmethod
    def of(cls, footage: Footage, places: np.ndarray, target: np.ndarray) -> Shown:
        known = {name: values[places] for name, values in footage.known.items()}
        seen = np.ones(len(places), bool)
        return cls(footage.frames[places], target, footage.done[places], seen, known)

    def chosen(self, places: np.ndarray) -> Shown:
        known = {name: values[places] for name, values in self.known.items()}
        return Shown(self.frames[places], self.target[places], self.done[places], self.seen[places], known)

    def then(self, other: Shown) -> Shown:
        known = {name: np.concatenate([values, other.known[name]]) for name, values in self.known.items()}
        return Shown(
            np.concatenate([self.frames, other.frames]),
            np.concatenate([self.target, other.target]),
            np.concatenate([self.done, other.done]),
            np.concatenate([self.seen, other.seen]),
            known,
        )


class Told(NamedTuple):
    """A story of P temporal patches, augmented."""

    pictures: np.ndarray  #: (2 P, height, width, 3) uint8 RGB
    seconds: np.ndarray  #: (P,) mean time of each patch's frames since the first
    ends: Shown  #: P frames: the last one of each patch
    story: str


#: Draws other footage: given whether it is of the same task, a success.
Another = Callable[[bool], Footage]


def tell(
    footage: Footage,
    shape: Shape,
    rng: np.random.Generator,
    another: Another | None = None,
    gaps: float = 0.0,
    seen_height: float | None = None,
    withdrawals: float = 0.0,
    tilt: float = 0.0,
) -> Told:
    """Draw a story with frames of ``footage``, and augment it.

    ``another`` draws footage to which a video is cut; without it there are no cuts. ``gaps``: in how many
    attempts, as a share, the camera is away for seconds in which the robot works on. ``withdrawals``: in how
    many others the arm goes back before it is done. ``seen_height`` and ``tilt``: as `change_looks` takes
    them.
    """
    count = 2 * shape.patches - shape.odd
    story = _drawn_story(footage, count, another is not None, rng)
    long_enough = count >= 3 and len(footage.frames) >= 3 * footage.rate
    if story == "attempt" and gaps and long_enough and rng.random() < gaps:
        shown, seconds = _with_gap(footage, count, rng)
    elif story == "attempt" and withdrawals and count >= 4 and rng.random() < withdrawals:
        shown, seconds = _withdrawn(footage, count, rng)
    else:
        shown, seconds = _told(footage, story, count, rng, another)
    pictures = change_looks(shown.frames, shape.height, shape.width, rng, seen_height, tilt)
    pictures = _wavering(pictures, rng)
    still = story == "static" or (story == "finished" and rng.random() < 0.5)
    pictures, shown = _interrupted(pictures, shown, still, rng)
    shown = replace(shown, target=_carried(shown.target, shown.seen))
    if shape.odd:  # the last frame makes a patch with itself
        pictures, seconds = np.concatenate([pictures, pictures[-1:]]), np.append(seconds, seconds[-1])
        shown = shown.chosen(np.append(np.arange(count), count - 1))
    ends = shown.chosen(np.arange(1, 2 * shape.patches, 2))
    return Told(pictures, seconds.reshape(-1, 2).mean(1), ends, story)


def ask(
    task: int,
    progress: np.ndarray,
    shape: Shape,
    rng: np.random.Generator,
    wording: Callable[[int, np.random.Generator], str],
    other: Callable[[int, np.random.Generator], int],
) -> list[Question]:
    """Questions about prefixes: right ones, the whole video among them, and wrong ones (target 0).

    ``progress`` (P,): the target at the end of each patch; ``wording`` draws words for a task, ``other``
    another task than the given one.
    """
    wrong = max(1, shape.questions // 4)
    beginnings = rng.permutation(np.arange(1, shape.patches))[: shape.questions - wrong - 1]
    ends = [*sorted(beginnings.tolist()), shape.patches]
    asked = [Question(end, task, wording(task, rng), float(progress[end - 1])) for end in ends]
    while len(asked) < shape.questions:
        end = shape.patches if rng.random() < 0.5 else int(rng.integers(1, shape.patches + 1))
        number = other(task, rng)
        asked.append(Question(end, number, wording(number, rng), 0.0))
    return asked


def _drawn_story(footage: Footage, count: int, can_cut: bool, rng: np.random.Generator) -> str:
    """Draw a story that ``count`` frames of ``footage`` can tell."""
    story = str(rng.choice(list(_STORIES), p=list(_STORIES.values())))
    possible = {
        "reversed": footage.reversible,
        "finished": footage.succeeded,
        "undone": footage.succeeded and footage.lasting and count >= 4,
        "cut": can_cut and count >= 2,
    }
    return story if possible.get(story, True) else "attempt"


def _told(
    footage: Footage, story: str, count: int, rng: np.random.Generator, another: Another | None
) -> tuple[Shown, np.ndarray]:
    """The frames of a story and their times [s]."""
    nothing = np.zeros(count)
    if story == "static":
        places = np.full(count, rng.integers(len(footage.frames)))
        shown = Shown.of(footage, places, nothing)
    elif story == "finished":
        places = _finished(footage, count, rng)
        shown = Shown.of(footage, places, nothing)
    elif story == "undone":
        places = _there_and_back(footage, count, rng)
        shown = Shown.of(footage, places, footage.target(places))
    elif story == "cut" and another is not None:
        shown, places = _cut(footage, count, rng, another)
    else:
        places = _in_order(footage, count, rng)
        if story == "frozen":
            places[int(rng.integers(0, count)) :] = places[int(rng.integers(0, count))]
            places = np.maximum.accumulate(places)
        if story == "reversed":
            shown = Shown.of(footage, places[::-1], nothing)
        else:
            places = _jumping(places, rng) if story == "attempt" else places
            shown = Shown.of(footage, places, footage.target(places))
    spacing = (
        float(rng.choice([0.25, 0.5, 0.5, 0.5, 1.0]))
        if rng.random() < 0.5
        else _spacing(places, footage.rate, rng)
    )
    seconds = np.arange(count) * spacing * rng.uniform(0.97, 1.03, count)
    if count > 2 and rng.random() < 0.06:  # images were missing for a while
        seconds[int(rng.integers(1, count)) :] += rng.uniform(1, 10)
    return shown, seconds


def _with_gap(footage: Footage, count: int, rng: np.random.Generator) -> tuple[Shown, np.ndarray]:
    """An attempt of which some seconds are not shown, and the times [s] of its frames, which tell so."""
    total, rate = len(footage.frames), footage.rate
    gap = min(int(rng.integers(round(rate), round(9 * rate))), total - 3)
    begun = int(rng.integers(1, total - gap - 1))
    path = np.delete(np.arange(total), np.s_[begun : begun + gap])
    until = len(path) - 1 if rng.random() < 0.6 else int(rng.integers(begun, len(path)))
    places = path[_spread(0, until, len(path), count, rng)]
    speed = rng.uniform(0.6, 1.6)
    seconds = (places - places[0]) / rate * speed + np.arange(count) * 0.1  # frames that repeat pass, too
    return Shown.of(footage, places, footage.target(places)), seconds


def _withdrawn(footage: Footage, count: int, rng: np.random.Generator) -> tuple[Shown, np.ndarray]:
    """An attempt that is given up: before it is done the arm goes back, and rests. And its frames' times."""
    until = int(np.argmax(footage.done)) if footage.done.any() else len(footage.frames)
    top = int(rng.integers(_begun(footage, max(1, until)), max(1, until)))
    turned = int(rng.integers(0, top + 1)) if rng.random() < 0.5 else 0
    rest = int(rng.integers(0, round(5 * footage.rate)))
    path = np.concatenate(
        [
            np.arange(top + 1),
            np.full(int(rng.integers(0, 5)), top),
            np.arange(top, turned - 1, -1),
            np.full(rest, turned),
        ]
    )
    ways = _spread(0, len(path) - 1, len(path), count, rng)
    places = path[ways]
    seconds = np.arange(count) * _spacing(ways, footage.rate, rng) * rng.uniform(0.97, 1.03, count)
    return Shown.of(footage, places, footage.target(places)), seconds


def _begun(footage: Footage, total: int) -> int:
    """The place from which on, of the first ``total``, the arm has moved; the last of them: in none."""
    is_begun = footage.progress[:total] > 0.08
    return int(np.argmax(is_begun)) if is_begun.any() else total - 1


def _in_order(footage: Footage, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of ``count`` frames in the footage. A video may begin late, but only while the arm has hardly
    moved; and it may end early."""
    total = len(footage.frames)
    first = int(rng.integers(0, min(_begun(footage, total), total // 3) + 1))
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


def _finished(footage: Footage, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places after the success: the work was over before anybody looked. Still, or as it goes on."""
    total, since = len(footage.frames), int(np.argmax(footage.done))
    first = int(rng.integers(since, total))
    last = first if rng.random() < 0.4 else total - 1
    return _spread(first, last, total, count, rng)


def _there_and_back(footage: Footage, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places to the success and a little beyond, and back again."""
    total, since = len(footage.frames), int(np.argmax(footage.done))
    top = min(total - 1, since + int(rng.integers(0, 8)))
    way_back = top - int(rng.integers(0, top + 1)) if rng.random() < 0.5 else top
    path = np.concatenate(
        [np.arange(top + 1), np.full(int(rng.integers(0, 5)), top), top - np.arange(way_back + 1)]
    )
    return np.asarray(path[_spread(0, len(path) - 1, len(path), count, rng)])


def _cut(
    footage: Footage, count: int, rng: np.random.Generator, another: Another
) -> tuple[Shown, np.ndarray]:
    """Frames of this attempt, not done yet, and then of another: finished, or an attempt of its own.

    Also returns places in footage from which times can be drawn.
    """
    same_task = bool(rng.random() < 0.75)
    other = another(same_task)
    first = int(rng.integers(1, count))
    until = int(np.argmax(footage.done)) if footage.succeeded else len(footage.frames)
    before = _spread(0, int(rng.integers(0, max(1, until))), max(1, until), first, rng)
    if same_task and rng.random() < 0.35:
        after = _in_order(other, count - first, rng)
        target = other.target(after)
    else:
        after = _finished(other, count - first, rng)
        target = np.zeros(count - first)
    part = Shown.of(other, after, target)
    if not same_task:
        part = replace(part, seen=np.zeros(len(after), bool))
    return Shown.of(footage, before, footage.target(before)).then(part), before if first > 1 else after


def _wavering(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera in changing light or on a mount that is not firm."""
    if rng.random() < 0.15:
        pictures = disturbances.drifting(pictures, rng)
    if rng.random() < 0.12:
        pictures = disturbances.trembling(pictures, rng)
    return pictures


def _interrupted(
    pictures: np.ndarray, shown: Shown, still: bool, rng: np.random.Generator
) -> tuple[np.ndarray, Shown]:
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
    pictures: np.ndarray, shown: Shown, first: int, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, Shown]:
    pictures, seen = pictures.copy(), shown.seen.copy()
    pictures[first : first + number] = disturbances.hidden(pictures[first : first + number], rng)
    seen[first : first + number] = False
    return pictures, replace(shown, seen=seen)


def _carried(target: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Targets in which a frame that shows nothing keeps that of the last one that did; 0 before the first."""
    last = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), -1))
    return np.where(last < 0, 0.0, target[np.maximum(last, 0)])


def _spacing(chosen: np.ndarray, rate: float, rng: np.random.Generator) -> float:
    """Draw seconds between frames: the filmed ones at another speed."""
    filmed = abs(int(chosen[-1]) - int(chosen[0])) / rate / max(1, len(chosen) - 1)
    return max(0.1, filmed) * float(rng.uniform(0.6, 1.6))
