"""One copy of a model for all monitors of a process that want the same.

Monitors share a model where all is the same that decides a score: the weights, their device and type, and
every setting of the scorer. Then they share its thread, see worker.py. Any difference makes a second scorer
with weights of its own, and the pool says which. A model goes when the last monitor leaves it. Models that
another process serves are not shared. PyTorch has one number of threads for all of a process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint, open_checkpoint
from topreward_ros.scoring.checkpoint.load import cpu_threads, resolve_precision
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
        self._threads: int | None = None  # of PyTorch; None: each monitor's own number
        self._lock = threading.Lock()
        self._loads = (
            threading.Lock()
        )  # one model at a time: transformers changes PyTorch's default type meanwhile
        self._entries: list[_Entry] = []

    def agree_on_threads(self, asked: Mapping[str, tuple[str, int]]) -> str:
        """Load every model with the first monitor's number of CPU threads, whoever is configured first.

        ``asked``: model and scorer_threads of each monitor, by its name; to be called before any `take`. A
        served model needs none here. Returns what to say where the others want another number; empty: none
        does.
        """
        wanted = {name: threads for name, (model, threads) in asked.items() if not is_served(model)}
        if not wanted:
            return ""
        first, self._threads = next(iter(wanted.items()))
        number = cpu_threads(self._threads)
        others = [f"{name} has {it}" for name, it in wanted.items() if cpu_threads(it) != number]
        if not others:
            return ""
        return (
            f"scorer_threads is {self._threads} for all monitors of this process, as {first} has it, which "
            f"comes first: PyTorch has one number of threads. {', '.join(others)}: give all the same"
        )

    def take(self, model: str, settings: ScorerSettings) -> Place:
        """A place at a scorer for ``model``, which is loaded unless it is there; returns when it is ready.

        The place is given back by `ScoringWorker.stop`. Raises `ScorerError`; who waits for a model that
        cannot be loaded gets the error of the one who loads it, and the next one tries again. A model that is
        served elsewhere has no weights here to share: each monitor asks for itself, and waits for no other. A
        plug-in is loaded for each, as nothing is known of what it can share.
        """
        if self._threads is not None:
            settings = replace(settings, threads=self._threads)
        if is_served(model) or is_plugin(model):
            return Place(ScoringWorker(self._load(model, settings)), "")
        checkpoint = open_checkpoint(model, settings.adapter)
        wish = _Wish(checkpoint, checkpoint.revision, asked_of(settings), settings)
        with self._lock:
            entry = self._find(wish)
            if entry is None:
                mine = _Entry(wish)
                self._entries.append(mine)
            elif entry.thread is not None:
                with entry.thread.wake:  # else its last worker may leave in between
                    if not entry.thread.is_over:
                        return Place(ScoringWorker(entry.thread, model_id=checkpoint.model_id), SHARED)
            else:
                entry.waiting += 1
        if entry is None:
            return Place(self._load_for_all(mine, model), self._why_not_shared(mine))
        if entry.is_over:
            return self.take(model, settings)
        entry.loaded.wait()
        if entry.error:
            raise ScorerError(entry.error)
        with self._lock:
            worker = entry.seats.pop()
        worker.info = replace(worker.info, model_id=checkpoint.model_id)
        return Place(worker, SHARED)

    def _find(self, wish: _Wish) -> _Entry | None:
        """The model that serves ``wish``."""
        self._entries = [entry for entry in self._entries if not entry.is_over]
        return next((entry for entry in self._entries if not wish.differences(entry.wish)), None)

    def _why_not_shared(self, mine: _Entry) -> str:
        """What to say of a model that was loaded for one monitor: the others may have gone meanwhile."""
        with self._lock:
            others = [entry for entry in self._entries if entry is not mine and not entry.is_over]
        differences = [mine.wish.differences(entry.wish) for entry in others]
        if not differences:
            return ""
        names = printable(", ".join(sorted(differences, key=len)[0]), 200)
        return (
            "another model is loaded, with weights of its own, as the one that is most like it in this "
            f"process has another {names}"
        )

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
