"""Scorers that other packages bring, named ``plugin:NAME`` or ``plugin:NAME:ARGUMENT``.

A package states them as entry points of the group `GROUP`; the name stands before the colon, and what is
loaded is a subclass of `ScorerPlugin`. docs/models.md has an example. Nothing of a plug-in is trusted: what
it raises becomes a sentence with its name, and what it returns is looked at before anybody believes it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from math import isnan
from traceback import walk_tb
from typing import TypeVar

from topreward_ros.core.foreign_code import note_foreign_code
from topreward_ros.core.frames import Frame
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.core.standard_output import standard_output_aside
from topreward_ros.scoring.base import (
    EMBEDDED,
    BusyError,
    LinkError,
    PrefixScorer,
    ScorerError,
    ScorerInfo,
    ScorerSettings,
    SequentialScorer,
    in_a_line,
    problem_with,
    process_memory_bytes,
    without_traceback,
)
from topreward_ros.scoring.request_copies import RequestCopies

GROUP = "topreward_ros.scorers"
_log = logging.getLogger(__name__)

_PREFIX = "plugin:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_CLOSE_S = 3.0  # [s] that close() may take
_LONGEST = 200  # characters of what is quoted
_MOST_INSTRUCTIONS, _LONGEST_INSTRUCTION = 10_000, 2000  # texts, characters
_MOST_PIXELS = 2**31 - 1
_NUMBERS = (
    *("log_prob", "log_prob_false", "log_prob_static", "log_prob_std", "log_prob_bound"),
    *("answer_share", "stated_progress", "success_probability"),
)

Result = TypeVar("Result")


class ScorerPlugin(SequentialScorer):
    """What a package that brings a scorer derives from: it gives `revision` and `score_one`.

    ``score_one(request)`` looks at ``request.prefix``, the frames of the episode so far (at least one; each
    with ``stamp_ns`` and ``image``, (H, W, 3) uint8 RGB, which must not be written to), and at
    ``request.instruction``. It returns a `PrefixScore`: ``log_prob`` [nat] <= 0, with ``log_prob_static`` for
    the default progress; or ``PrefixScore(nan, nan, stated_progress=..., success_probability=...)``, both in
    [0, 1], where there is no log-probability. Raise `ScorerError` for a prefix that cannot be scored.

    It runs in one thread, which is not that of the node. `ahead`, `keep` and `score_all` may be overridden,
    as `PrefixScorer` says. ``close`` frees what it holds, in a thread of its own.
    """

    revision: str  #: which weights these are, such as a hash: kept scores count as long as it stays the same
    device: str = "cpu"  #: a torch device
    dtype: str = "float32"  #: of its numbers
    random_weights: bool = False  #: True where nobody has trained it
    max_pixels: int = 0  #: of one frame as it sees it, at most; 0: as the frames are
    instructions: tuple[str, ...] = ()  #: all that it understands; empty: any

    @abstractmethod
    def __init__(self, argument: str, settings: ScorerSettings) -> None:
        """Load. ``argument``: what stands behind the second colon, such as a path; may be empty.

        Of ``settings``, `device`, `dtype`, `threads` and `max_pixels` are the user's wishes. Raise
        `ScorerError` where it cannot be loaded.
        """

    def close(self) -> None:
        """Nothing to free."""

    def _outcome(self, request: ScoreRequest) -> PrefixScore | ScorerError:
        try:
            return super()._outcome(request)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of this episode; the others of the call have theirs
            return ScorerError(_told(error, type(self).__module__))


def is_plugin(model: str) -> bool:
    """Whether ``model`` names a plug-in.

    >>> is_plugin("plugin:newest_frame:w.npz"), is_plugin("embedded")
    (True, False)
    """
    return model.startswith(_PREFIX)


def plugin_names() -> list[str]:
    """The plug-ins that are installed, as a user names them."""
    return sorted({_PREFIX + entry.name for entry in entry_points(group=GROUP)})


def plugin_problem(plugin: str) -> str:
    """Why one of `plugin_names` cannot be used, as far as its import tells; empty where it can."""
    try:
        _found(plugin.removeprefix(_PREFIX))
    except ScorerError as error:
        return str(error)
    return ""


def meant_plugin(model: str) -> str:
    """The installed plug-in that ``model`` names but for ``plugin:`` before it; else empty."""
    named = _PREFIX + model
    return named if _PREFIX + model.partition(":")[0] in plugin_names() else ""


def import_plugin(model: str) -> None:
    """Import the package of the plug-in that ``model`` names. Raises `ScorerError`."""
    _found(model.removeprefix(_PREFIX).partition(":")[0])


def load_plugin(model: str, settings: ScorerSettings) -> PrefixScorer:
    """The scorer that ``model`` names. Raises `ScorerError`."""
    if settings.adapter:
        raise ScorerError(
            f"adapter is '{printable(settings.adapter, _LONGEST)}', which is for dense Qwen3-VL, and model "
            f"'{printable(model, _LONGEST)}' is a plug-in: leave adapter empty"
        )
    name, _, argument = model.removeprefix(_PREFIX).partition(":")
    made, entry, shown = _found(name)
    guarded = partial(_guarded, module=entry.module)
    plugin = guarded(f"{shown} cannot be loaded", lambda: made(argument, replace(settings)))
    try:
        info = guarded(
            f"{shown} says wrongly what it is", lambda: _info(plugin, name, argument, entry, settings)
        )
        return _Checked(plugin, shown, replace(info, model_id=model), entry.module)
    except BaseException:
        with suppress(ScorerError):
            guarded(shown, lambda: _close(plugin))
        raise


def refuse_plugin(model: str, work: str) -> None:
    """Raise `ScorerError` for a plug-in where ``work`` needs a checkpoint."""
    if is_plugin(model):
        raise ScorerError(
            f"model '{printable(model, _LONGEST)}' is a plug-in, and {work} needs a checkpoint: name "
            "'embedded', a hub id or a folder"
        )


class _Checked(PrefixScorer):
    """A plug-in whose errors are sentences, and whose scores are looked at."""

    def __init__(self, plugin: ScorerPlugin, shown: str, info: ScorerInfo, module: str) -> None:
        self._plugin, self._shown, self.info, self._module = plugin, shown, info, module
        _guarded(f"{shown} takes no `info`", lambda: setattr(plugin, "info", replace(info)), module)
        self._said: set[str] = set()
        self._copies = RequestCopies()

    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        """See `PrefixScorer.score_all`."""
        copies = self._copies.of_call(requests, kept)
        given = self._do(lambda: self._plugin.score_all(*copies))
        if not isinstance(given, Sequence) or len(given) != len(requests):
            count = f"{len(given)} scores" if isinstance(given, Sequence) else f"a {_kind(given)}"
            raise ScorerError(
                f"{self._shown} gave {count} for {len(requests)} prefixes, not a list of as many"
            )
        return [self._outcome(*pair) for pair in zip(given, requests, strict=True)]

    def _outcome(self, outcome: object, request: ScoreRequest) -> PrefixScore | ScorerError:
        if isinstance(outcome, LinkError | BusyError):
            return outcome
        if isinstance(outcome, ScorerError):
            return ScorerError(f"{self._shown} failed: {_text(outcome)}")
        try:
            return self._looked_at(outcome, request)
        except ScorerError as error:
            return without_traceback(error)

    def _looked_at(self, score: object, request: ScoreRequest) -> PrefixScore:
        """A score of plain numbers that can be believed. Raises `ScorerError`."""
        if not isinstance(score, PrefixScore):
            raise ScorerError(
                f"{self._shown} gave a {_kind(score)} where a PrefixScore is asked for: let score_one return "
                "one, of topreward_ros.core.progress"
            )
        numbers = {name: self._number(name, getattr(score, name)) for name in _NUMBERS}
        frames = self._number("num_frames", score.num_frames) or float(len(request.prefix))
        if not 0 < frames <= len(request.prefix) or frames % 1:
            raise ScorerError(
                f"{self._shown} gave num_frames {frames:g} for a prefix of {len(request.prefix)} frames"
            )
        note = printable(score.note, _LONGEST) if isinstance(score.note, str) else ""
        score = PrefixScore(**numbers, num_frames=int(frames), note=note)  # type: ignore[arg-type]
        if isnan(score.log_prob) and not isnan(score.success_log_prob) and not note:
            score = replace(score, note="the model states progress itself, and has no log p")
        if problem := problem_with(score):
            raise ScorerError(f"{self._shown}: {problem}")
        return score

    def _number(self, name: str, value: object) -> float:
        """A number of any kind that Python takes for one, such as NumPy's, as a float."""
        try:
            if not isinstance(value, str | bytes):
                return float(value)  # type: ignore[arg-type]
        except Exception as error:  # of what makes its own conversion
            raise self._no_number(name, value) from error
        raise self._no_number(name, value)

    def _no_number(self, name: str, value: object) -> ScorerError:
        try:
            shown = printable(repr(value), _LONGEST)
        except Exception:
            shown = f"a {_kind(value)}"
        return ScorerError(f"{self._shown} gave {shown} for {name}, which is a number")

    def forget(self) -> None:
        """See `PrefixScorer.forget`."""
        self._copies = RequestCopies()
        self._quietly(self._plugin.forget, None)

    def episodes_at_once(self) -> int:
        """See `PrefixScorer.episodes_at_once`."""
        return self._quietly(lambda: max(1, int(self._plugin.episodes_at_once())), 1)

    def ahead(self, request: ScoreRequest) -> Iterator[None]:
        """See `PrefixScorer.ahead`."""
        copy = self._copies.of(request)
        steps = self._do(lambda: iter(self._plugin.ahead(copy)))
        end = object()
        while self._do(lambda: next(steps, end)) is not end:
            yield

    def memory_bytes(self) -> int:
        """See `PrefixScorer.memory_bytes`."""
        return self._quietly(lambda: int(self._plugin.memory_bytes()), process_memory_bytes())

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        self._quietly(lambda: _close(self._plugin), None)

    def _quietly(self, work: Callable[[], Result], otherwise: Result) -> Result:
        """`_do` of what no score hangs on: a fault is logged once, and ``otherwise`` stands in its place."""
        try:
            return self._do(work)
        except ScorerError as error:
            if str(error) not in self._said:
                _log.warning("%s", error)
                self._said.add(str(error))
            return otherwise

    def _do(self, work: Callable[[], Result]) -> Result:
        return _guarded(f"{self._shown} failed", work, self._module)


def _guarded(said: str, work: Callable[[], Result], module: str) -> Result:
    """What ``work`` gives; whatever it raises, but Ctrl-C, is a `ScorerError` that begins with ``said``.

    It tells where in the package of ``module`` that came from.
    What it prints meanwhile goes to standard error, where that is this program's main thread: results may go
    to standard output.
    """
    aside = threading.current_thread() is threading.main_thread()
    try:
        with standard_output_aside() if aside else nullcontext():
            return work()
    except KeyboardInterrupt:
        raise
    except (LinkError, BusyError):  # which say how long to wait
        raise
    except ScorerError as error:
        raise ScorerError(f"{said}: {_text(error)}") from error
    except BaseException as error:  # also what no `Exception` is, such as asyncio's CancelledError
        raise ScorerError(f"{said} ({_told(error, module)}): see to that package") from error


def _close(plugin: ScorerPlugin) -> None:
    """Have a plug-in close, in a thread that is left behind where that does not return."""
    raised: list[BaseException] = []

    def close() -> None:
        try:
            plugin.close()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=close, name="closing a plug-in", daemon=True)
    thread.start()
    thread.join(_CLOSE_S)
    if thread.is_alive():
        raise ScorerError(f"its close() has not returned for {_CLOSE_S:g} s and is left behind")
    for error in raised:
        raise error


def _told(error: BaseException, module: str) -> str:
    """An error, and where in the package of ``module`` it was raised, or what raised it was called."""
    package, place = module.partition(".")[0], ""
    for frame, line in walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            file = printable(frame.f_code.co_filename)
            place = f", {file if len(file) <= _LONGEST else '...' + file[3 - _LONGEST :]}, line {line}"
    return in_a_line(error) + place


def _text(error: ScorerError) -> str:
    """What an error of a plug-in says: a sentence of its own, or what `_told` made."""
    return printable(str(error), 4 * _LONGEST)


def _kind(thing: object) -> str:
    return printable(type(thing).__name__, _LONGEST)


def _found(name: str) -> tuple[type[ScorerPlugin], EntryPoint, str]:
    """The class of a plug-in, its entry point, and what an error calls it. Raises `ScorerError`."""
    entry = _entry(name)
    shown = f"plug-in '{printable(name, _LONGEST)}' of {_package(entry)}"
    if name == EMBEDDED or not _NAME.fullmatch(name):
        raise ScorerError(
            f"{shown} has a name that is taken, or cannot be written: let the entry point have one of "
            f"letters, digits, '_', '-' and '.', and not '{EMBEDDED}', which ships with topreward_ros"
        )
    note_foreign_code(shown)
    made = _guarded(f"{shown} cannot be imported", entry.load, entry.module)
    if not (isinstance(made, type) and issubclass(made, ScorerPlugin)):
        raise ScorerError(
            f"{shown}: {printable(entry.value, _LONGEST)} is no subclass of "
            "topreward_ros.scoring.plugins.ScorerPlugin: let the entry point name one"
        )
    return made, entry, shown


def _entry(name: str) -> EntryPoint:
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    places = {(entry.value, _package(entry)): entry for entry in found}
    if len(places) == 1:
        return next(iter(places.values()))
    if places:
        packages = " and ".join(sorted(package for _, package in places))
        raise ScorerError(
            f"plug-in '{printable(name, _LONGEST)}' is in {packages}: uninstall all but one of them"
        )
    others = ", ".join(plugin_names())
    raise ScorerError(
        f"no installed package has a plug-in '{printable(name, _LONGEST)}': "
        f"{f'there are {printable(others, 5 * _LONGEST)}' if others else 'none has any'}; a package brings "
        f"one by an entry point of the group {GROUP}"
    )


def _package(entry: EntryPoint) -> str:
    """The distribution of an entry point, with its version."""
    if entry.dist is None:
        return printable(entry.value, _LONGEST)
    return printable(f"{entry.dist.name} {entry.dist.version}", _LONGEST)


def _info(
    plugin: ScorerPlugin, name: str, argument: str, entry: EntryPoint, settings: ScorerSettings
) -> ScorerInfo:
    """What a plug-in says of itself, looked at. Raises `ScorerError`, and whatever its attributes raise."""
    revision, instructions = getattr(plugin, "revision", ""), plugin.instructions
    if not isinstance(revision, str) or not revision.strip():
        raise ScorerError(
            "it has no revision: let it say which weights it has, such as a hash, so that scores of others "
            "are not taken for its own"
        )
    if not (
        isinstance(instructions, tuple | list)
        and len(instructions) <= _MOST_INSTRUCTIONS
        and all(isinstance(it, str) and len(it) <= _LONGEST_INSTRUCTION for it in instructions)
    ):
        raise ScorerError(
            f"its instructions must be a tuple of at most {_MOST_INSTRUCTIONS} texts of at most "
            f"{_LONGEST_INSTRUCTION} characters"
        )
    device, dtype, pixels = str(plugin.device), str(plugin.dtype), int(plugin.max_pixels)
    if not re.fullmatch(r"[a-z]{1,20}(:[0-9]{1,3})?", device) or not 0 <= pixels <= _MOST_PIXELS:
        raise ScorerError(
            f"its device is {printable(device, _LONGEST)!r} and its max_pixels {pixels:.3g}: a device is "
            "written as cpu or cuda:0, and pixels are a number from 0 to 2^31 - 1"
        )
    which = f"{name} of {_package(entry)}"
    if argument:  # another argument is another model, whatever it says of its weights
        which += f", argument {hashlib.sha256(argument.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return ScorerInfo(
        model_id="",
        revision=printable(f"{which}, {revision.strip()}", _LONGEST),
        random_weights=bool(plugin.random_weights),
        device=device,
        dtype=printable(dtype, 40),
        prompt_hash="",
        max_pixels=pixels or settings.max_pixels,
        instructions=tuple(printable(it) for it in instructions),
    )
