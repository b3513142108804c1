"""Calls of many robots to one scorer: who waits, who is replaced, which episodes stay.

A `ScoringThread` owns the scorer, as in a monitor, and every episode has a place at it. So robots take turns,
those that wait are scored together, a newer call replaces one that was not begun, and there is work ahead
between calls. An episode is known by the name that its client gave it. Its frames are held until the client
names it no longer, until nobody has asked for it for `Limits.idle_s`, or until others need the room; then the
client is asked for them again. HTTP is in app.py, Ray Serve in deployment.py. All methods are called in one
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from secrets import token_hex
from typing import Any, NamedTuple

from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import PrefixScorer
from topreward_ros.scoring.remote import protocol
from topreward_ros.scoring.remote.protocol import ProtocolError, ScoreCall, ServerInfo, Status
from topreward_ros.scoring.worker import ScoreResult, ScoringThread, ScoringWorker
from topreward_ros.serving.pictures import check_sizes, decode

_LOG = logging.getLogger(__name__)
_SWEEP_S = 5.0
_DECODERS = 2  # threads


@dataclass(frozen=True, slots=True)
class Limits:
    """What a replica takes at most."""

    episodes: int = 256  #: held
    frame_bytes: int = 2 << 30  #: of the frames that are held
    idle_s: float = 120.0  #: without a call, then an episode is freed
    calls: int = 256  #: at once
    body_bytes: int = 256 << 20  #: of one call
    bodies_bytes: int = 1 << 30  #: of all that are being read
    body_s: float = 10.0  #: until a call has arrived
    answer_s: float = 120.0  #: until a call that waits is given up


class Reply(NamedTuple):
    """The answer to a call."""

    status: int
    content: dict[str, Any]


_Waiting = tuple[ScoreRequest, "asyncio.Future[ScoreResult | None]"]


@dataclass(eq=False)
class _Episode:
    """An episode of a robot, with its place at the scorer."""

    client: str
    name: str
    worker: ScoringWorker
    used_s: float
    frames: dict[int, Frame] = field(default_factory=dict)
    frame_bytes: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)

    def hold(self, frames: dict[int, Frame]) -> None:
        """Hold these frames, by their numbers, and no others."""
        self.frames = frames
        self.frame_bytes = sum(frame.image.nbytes for frame in frames.values())


class Engine:
    """One scorer for many robots."""

    def __init__(
        self,
        scorer: PrefixScorer,
        info: ServerInfo,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes over ``scorer``. To be made in the event loop that uses it."""
        self.info = info
        self.limits = limits
        self.replica = token_hex(8)  #: names this engine among its like
        self.calls = 0  #: that are being answered
        self._most_frames = int(info.settings["max_frames"])
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = ScoringThread(scorer)
        self._keeper = ScoringWorker(self._thread)  # keeps the scorer while no robot is there
        self._episodes: dict[tuple[str, str], _Episode] = {}  # those that were used last come last
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        self._sweeper = self._loop.create_task(self._sweep())

    # ---- what goes on -----------------------------------------------------------------------------

    @property
    def episodes(self) -> int:
        """How many are held."""
        return len(self._episodes)

    @property
    def frame_bytes(self) -> int:
        """Of the frames that are held."""
        return sum(episode.frame_bytes for episode in self._episodes.values())

    def hang(self) -> str:
        """That the scorer has not answered for too long; else empty."""
        return self._keeper.hang()

    async def close(self) -> None:
        """Free the scorer; calls that wait get no answer."""
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper
        for key in list(self._episodes):
            self._drop(key)
        self._decoders.shutdown(wait=False)
        await self._loop.run_in_executor(None, self._keeper.stop)

    # ---- a call -----------------------------------------------------------------------------------

    async def answer(self, body: bytes) -> Reply:
        """The reply to a call."""
        if self.calls >= self.limits.calls:
            return _error(Status.BUSY, f"{self.calls} calls are being answered: come again")
        self.calls += 1
        try:
            return await self._answer(body)
        except ProtocolError as error:
            return _error(Status.GARBAGE, str(error))
        except Exception as error:  # one client's call must not look like a dead server
            _LOG.exception("unexpected error in a call")
            return _error(Status.FAILED, f"the call failed in the server: {type(error).__name__}")
        finally:
            self.calls -= 1

    async def _answer(self, body: bytes) -> Reply:
        call = protocol.unpack_call(body, self._most_frames)
        check_sizes(call.images, self.limits.frame_bytes)
        key = call.client, call.episode
        known = self._episodes[key].frames if key in self._episodes else {}
        brought = {image.number for image in call.images}
        if lacks := sorted({it.number for it in call.frames} - known.keys() - brought):
            return Reply(
                Status.LACKS, {"lacks": lacks, "error": "frames are lacking", "replica": self.replica}
            )
        new = [image for image in call.images if image.number not in known]
        pixels = await asyncio.gather(
            *(self._loop.run_in_executor(self._decoders, decode, image) for image in new)
        )
        stamps = {it.number: it.stamp_ns for it in call.frames}
        made = {
            image.number: Frame(stamps[image.number], array) for image, array in zip(new, pixels, strict=True)
        }
        episode = self._episode(call)
        frames = made | episode.frames  # an object that is there already has caches
        if missing := [it.number for it in call.frames if it.number not in frames]:  # freed meanwhile
            return Reply(
                Status.LACKS, {"lacks": missing, "error": "frames are lacking", "replica": self.replica}
            )
        request = _request(call, frames)
        named = {it.number: frames[it.number] for it in call.frames}
        episode.hold(named | (episode.frames if call.extra else {}))
        if not self._make_room(episode):
            return _error(Status.TOO_LARGE, f"its frames take more than {self.limits.frame_bytes} bytes")
        return await self._scored(episode, request)

    async def _scored(self, episode: _Episode, request: ScoreRequest) -> Reply:
        pending = episode.worker.pending
        for earlier, unanswered in episode.waiting:
            if pending is not None and earlier is pending[1] and not unanswered.done():
                unanswered.set_result(None)
        future: asyncio.Future[ScoreResult | None] = self._loop.create_future()
        episode.waiting.append((request, future))
        episode.worker.submit(request)
        try:
            result = await asyncio.wait_for(future, self.limits.answer_s)
        except asyncio.TimeoutError:
            return _error(Status.BUSY, f"the scorer has not answered within {self.limits.answer_s:.0f} s")
        if result is None:
            return _error(Status.REPLACED, "a newer call of the episode came before this one was begun")
        if result.score is None:
            return _error(Status.NO_SCORE, result.error)
        return Reply(200, protocol.answer_to_json(result.score, self.replica, result.seconds))

    def _notify(self, episode: _Episode) -> None:
        """Called in the scorer's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take_results, episode)

    def _take_results(self, episode: _Episode) -> None:
        for result in episode.worker.results():
            while episode.waiting:
                request, future = episode.waiting.popleft()
                if not future.done():
                    future.set_result(result if request is result.request else None)
                if request is result.request:
                    break

    # ---- which episodes stay ----------------------------------------------------------------------

    def _episode(self, call: ScoreCall) -> _Episode:
        """The episode of a call, as the one that was used last. What its client names no longer goes."""
        key = call.client, call.episode
        for other in [it for it in self._episodes if it[0] == call.client and it[1] not in call.kept]:
            if other != key:
                self._drop(other)
        episode = self._episodes.pop(key, None)
        if episode is None:
            worker = ScoringWorker(self._thread, awaited=True)
            episode = _Episode(*key, worker, self._clock())
            worker.notify = partial(self._notify, episode)
        episode.used_s = self._clock()
        self._episodes[key] = episode
        return episode

    def _make_room(self, newest: _Episode) -> bool:
        """Free episodes that were used longest ago until the limits hold; whether they do."""
        for key, episode in list(self._episodes.items()):
            if self.episodes <= self.limits.episodes and self.frame_bytes <= self.limits.frame_bytes:
                return True
            if episode is not newest:
                self._drop(key)
        if self.frame_bytes <= self.limits.frame_bytes:
            return True
        self._drop((newest.client, newest.name))
        return False

    def _drop(self, key: tuple[str, str]) -> None:
        episode = self._episodes.pop(key)
        episode.worker.ask_to_stop()
        for _, future in episode.waiting:
            if not future.done():
                future.set_result(None)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(_SWEEP_S, self.limits.idle_s))
            self.free_idle()

    def free_idle(self) -> None:
        """Free the episodes that nobody has asked for."""
        since_s = self._clock() - self.limits.idle_s
        for key in [key for key, it in self._episodes.items() if it.used_s < since_s and not it.waiting]:
            self._drop(key)


def _request(call: ScoreCall, frames: dict[int, Frame]) -> ScoreRequest:
    """What the scorer is asked. Raises `ProtocolError`."""
    prefix: Sequence[Frame] = [frames[it.number] for it in call.frames]
    if any(frame.stamp_ns != it.stamp_ns for frame, it in zip(prefix, call.frames, strict=True)):
        raise ProtocolError("a frame has another stamp than before")
    if any(later.stamp_ns < earlier.stamp_ns for earlier, later in pairwise(prefix)):
        raise ProtocolError("the frames are not in order of their stamps")
    places = {it.place: frame for it, frame in zip(call.frames, prefix, strict=True)}
    if len(places) < len(prefix):
        raise ProtocolError("two frames have one place")
    try:
        buffer = EpisodeBuffer.rebuilt(places, call.count, call.stride, call.max_frames, call.window)
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    return ScoreRequest(call.instruction, buffer, extra=call.extra)


def _error(status: Status, text: str) -> Reply:
    return Reply(status, {"error": text})
