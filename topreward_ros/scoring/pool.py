"""One copy of a model for all monitors of a process that want the same.

Monitors share a model where all is the same that decides a score: the weights, their device and type, and
every setting of the scorer. Then they share its thread, see worker.py. Any difference makes a second scorer
with weights of its own, and the pool says which. A model goes when the last monitor leaves it. Models that
another process serves are not shared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint, open_checkpoint
from topreward_ros.scoring.checkpoint.load import resolve_precision
from topreward_ros.scoring.plugins import is_plugin
from topreward_ros.scoring.question.soft_prompt import asked_of
from topreward_ros.scoring.served_models import is_served
from topreward_ros.scoring.worker import ScoringThread, ScoringWorker

Load = Callable[[str, ScorerSettings], PrefixScorer]

#: What is said of a model that was there already.
SHARED = "the model is shared with another monitor of this process"

#: Settings of which several values may come to the same on a machine.
_RESOLVED = ("device", "dtype", "quantization")

#: Parameters whose settings have another name.
_PARAMETERS = {"threads": "scorer_threads", "static_baseline": "progress_mode"}


class Place(NamedTuple):
    """What a monitor gets of the pool."""

    worker: ScoringWorker
    said: str  #: whether the model is shared, or why not although there are others; empty: it is the only one


class _Wish(NamedTuple):
    """What a monitor asks for. Its files are looked at now: they may change while a model is loaded."""

    checkpoint: Checkpoint
    revision: str
    question: tuple[str, ...]  #: see `asked_of`
    settings: ScorerSettings

    def differences(self, other: _Wish) -> list[str]:
        """Names of the parameters that keep the two from sharing a model; empty: they do."""
        found = []
        if self.checkpoint.folder.resolve() != other.checkpoint.folder.resolve():
            found.append("model")
        elif self.revision != other.revision and _of(self, "adapter") == _of(other, "adapter"):
            found.append("model (its files have changed)")
        if self.question != other.question:
            found.append("prompts")
        names = [name for name in _RESOLVED if _of(self, name) != _of(other, name)]
        if names:
            found += names if found else _unlike(self, other, names)
        elsewhere = ("prompts", *_RESOLVED)
        names = [each.name for each in fields(ScorerSettings) if each.name not in elsewhere]
        unlike = [name for name in names if _of(self, name) != _of(other, name)]
        return found + [_PARAMETERS.get(name, name) for name in unlike]


def _of(wish: _Wish, name: str) -> object:
    return getattr(wish.settings, name)


def _unlike(wish: _Wish, other: _Wish, names: list[str]) -> list[str]:
    """Those of ``names``, of `_RESOLVED`, that come to something else. Loads PyTorch."""
    try:
        one, two = (_resolved(each) for each in (wish, other))
    except ScorerError:  # told to the one who wishes for what is not there, when it is loaded
        return names
    return [name for name in names if one[name] != two[name]]


def _resolved(wish: _Wish) -> dict[str, object]:
    """What each of `_RESOLVED` comes to. Raises `ScorerError`."""
    device, dtype, quantization, _ = resolve_precision(wish.settings, wish.checkpoint)
    return {"device": (device.type, device.index or 0), "dtype": dtype, "quantization": quantization}


@dataclass
class _Entry:
    """A model that is loaded, or being loaded."""

    wish: _Wish
    loaded: threading.Event = field(default_factory=threading.Event)
    thread: ScoringThread | None = None
    error: str = ""
    waiting: int = 0  #: monitors that want it, while it is loaded
    seats: list[ScoringWorker] = field(default_factory=list)  #: for these, once it is loaded

    @property
    def is_over(self) -> bool:
        """Whether the last monitor has left it."""
        return self.thread is not None and self.thread.is_over


class ScorerPool:
    """Scorers by what decides their scores. May be used by several threads at once."""

    def __init__(self, load: Load) -> None:
        """``load`` makes a scorer; raises `ScorerError`."""
        self._load = load
        self._lock = threading.Lock()
        self._loads = (
            threading.Lock()
        )  # one model at a time: transformers changes PyTorch's default type meanwhile
        self._entries: list[_Entry] = []

    def take(self, model: str, settings: ScorerSettings) -> Place:
        """A place at a scorer for ``model``, which is loaded unless it is there; returns when it is ready.

        The place is given back by `ScoringWorker.stop`. Raises `ScorerError`; who waits for a model that
        cannot be loaded gets the error of the one who loads it, and the next one tries again. A model that is
        served elsewhere has no weights here to share: each monitor asks for itself, and waits for no other. A
        plug-in is loaded for each, as nothing is known of what it can share.
        """
        if is_served(model) or is_plugin(model):
            return Place(ScoringWorker(self._load(model, settings)), "")
        checkpoint = open_checkpoint(model, settings.adapter)
        wish = _Wish(checkpoint, checkpoint.revision, asked_of(settings), settings)
        with self._lock:
            entry, differences = self._find(wish)
            if entry is None:
                said = _why_not_shared(differences)
                mine = _Entry(wish)
                self._entries.append(mine)
            elif entry.thread is not None:
                with entry.thread.wake:  # else its last worker may leave in between
                    if not entry.thread.is_over:
                        return Place(ScoringWorker(entry.thread, model_id=checkpoint.model_id), SHARED)
            else:
                entry.waiting += 1
        if entry is None:
            return Place(self._load_for_all(mine, model), said)
        if entry.is_over:
            return self.take(model, settings)
        entry.loaded.wait()
        if entry.error:
            raise ScorerError(entry.error)
        with self._lock:
            worker = entry.seats.pop()
        worker.info = replace(worker.info, model_id=checkpoint.model_id)
        return Place(worker, SHARED)

    def _find(self, wish: _Wish) -> tuple[_Entry | None, list[list[str]]]:
        """The model that serves ``wish``, and what keeps the others from it."""
        self._entries = [entry for entry in self._entries if not entry.is_over]
        unlike = []
        for entry in self._entries:
            if not (differences := wish.differences(entry.wish)):
                return entry, []
            unlike.append(differences)
        return None, unlike

    def _load_for_all(self, entry: _Entry, model: str) -> ScoringWorker:
        """Load a model, and give places to those who wait for it before anybody can leave it."""
        try:
            with self._loads:
                scorer = self._load(model, entry.wish.settings)
            with self._lock:
                thread = ScoringThread(scorer)
                worker = ScoringWorker(thread)  # starts a thread, which may fail
                entry.seats = [ScoringWorker(thread) for _ in range(entry.waiting)]
                entry.thread = thread
        except BaseException as error:
            with self._lock:
                self._entries.remove(entry)
                entry.error = (
                    str(error) if isinstance(error, ScorerError) else f"{type(error).__name__}: {error}"
                )
            entry.loaded.set()
            raise
        entry.loaded.set()
        return worker


def _why_not_shared(differences: list[list[str]]) -> str:
    """What to say of a model that is loaded beside others. Raises `ScorerError` where it cannot be."""
    if not differences:
        return ""
    if any("scorer_threads" in names for names in differences):
        raise ScorerError(
            "scorer_threads differs from that of another monitor of this process, and PyTorch has one number "
            "of threads for all: give both the same"
        )
    names = printable(", ".join(sorted(differences, key=len)[0]), 200)
    return (
        "another model is loaded, with weights of its own, as the other monitors of this process have "
        f"another {names}"
    )
