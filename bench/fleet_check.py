"""The simulated fleet beside a real one: monitors' places at one thread with the embedded model, on this CPU.

First the times of passes, steps of work ahead and refills are measured, one after the other. Then robots ask
by the plan that the simulation has of them, in real time, and the same plan is played with the times measured
before. They ask through the code that serves several monitors of one process (scoring/worker.py), or, with a
URL, a `topreward serve` on this machine, started with the defaults and one replica; half an empty request is
the network then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from heapq import merge
from statistics import median

from fleet import Episode, Fleet, Outcome, episodes_of
from fleet_play import Simulation
from fleet_service import Service
from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.engine_bench import TASK, make_video
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.question.templates import read_templates
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import LoadedModel, load_qwen3_vl, load_scorer
from topreward_ros.scoring.remote.scorer import RemoteScorer
from topreward_ros.scoring.worker import ScoringThread, ScoringWorker

AT_ONCE = (1, 2, 4, 8)
CONTEXT, TICKS = 40, 16  # frames before the ticks that are measured, which stay below a full buffer
ROUNDS = 2
SIZE = 480, 640  # (height, width) of the frames
_LONGEST_WAIT_S = 60.0  # for the last answers
_EMPTY_REQUESTS = 40


class Real:
    """The embedded model, and what this machine does with it."""

    def __init__(self, prompts: int, threads: int, rate: float, url: str = "") -> None:
        """``url``: of the server that the robots ask; empty: they ask a thread of this process."""
        self._url = url
        self._settings = ScorerSettings(
            device="cpu",
            dtype="float32",
            max_pixels=SIZE[0] * SIZE[1],
            max_frames=64,
            threads=threads,
            static_baseline=True,
            sample_rate=rate,
        )
        if url:
            self._settings = replace(ScorerSettings.from_parameters(monitor_defaults()), threads=1)
        loaded = load_qwen3_vl("embedded", self._settings)
        templates = read_templates("ten_prompts.txt")[:prompts]
        self._loaded: LoadedModel = loaded._replace(tokens=loaded.tokens.with_templates(templates))
        self._rate = rate
        self._images = [frame.image for frame in make_video(16, *SIZE)]

    def scorer(self) -> Qwen3VLScorer:
        model, tokens, preprocessing, info = self._loaded
        return Qwen3VLScorer(model, tokens, preprocessing, self._settings, info)

    def place(self, thread: ScoringThread) -> ScoringThread:
        """Where a robot asks: ``thread``, or one of its own that asks the server."""
        return ScoringThread(load_scorer(self._url, self._settings)) if self._url else thread

    def network_s(self) -> float:
        """Half the time of an empty request to the server."""
        scorer = load_scorer(self._url, self._settings)
        assert isinstance(scorer, RemoteScorer)
        with closing(scorer):
            taken = []
            for _ in range(_EMPTY_REQUESTS):
                begun = time.perf_counter()
                scorer.ask_info()
                taken.append(time.perf_counter() - begun)
        return median(taken) / 2.0

    def frame(self, number: int) -> Frame:
        """The frame of this number of an episode, with pixels that other frames share."""
        return Frame(round(number * NS_PER_S / self._rate), self._images[number % len(self._images)])

    # ---- times -------------------------------------------------------------------------------------

    def service(self) -> Service:
        """Times of this machine, measured now: medians, and how passes vary around them."""
        known: dict[int, list[float]] = {number: [] for number in AT_ONCE}
        unknown: dict[int, list[float]] = {number: [] for number in AT_ONCE}
        steps: list[float] = []
        refills: list[float] = []
        for _ in range(ROUNDS):
            for number in AT_ONCE:
                known[number] += self._ticks(number, steps, ahead=True)
                unknown[number] += self._ticks(number, steps, ahead=False)
            refills.append(self._refill())
        pass_ms = {number: 1e3 * median(times) for number, times in known.items()}
        with closing(self.scorer()) as scorer:
            held = scorer.episodes_kept()
        return Service(
            "measured on this machine before",
            pass_ms=pass_ms,
            baseline_pass_ms={number: 1e3 * median(times) for number, times in unknown.items()},
            step_ms=1e3 * median(steps),
            refill_ms=max(0.0, 1e3 * median(refills) - pass_ms[1]) / (CONTEXT - 2),
            held=held,
            spread=tuple(1e3 * time / pass_ms[number] for number, times in known.items() for time in times),
        )

    def _ticks(self, number: int, steps: list[float], *, ahead: bool) -> list[float]:
        """Seconds of passes over ``number`` episodes; those of steps of work ahead go to ``steps``."""
        with closing(self.scorer()) as scorer:
            buffers = [EpisodeBuffer(self._settings.max_frames) for _ in range(number)]
            for k in range(CONTEXT):
                for buffer in buffers:
                    buffer.append(self.frame(k))
            self._pass(scorer, buffers)
            if ahead:
                for buffer in buffers:
                    begun = time.perf_counter()
                    for _ in scorer.ahead(ScoreRequest(TASK, buffer.copy())):
                        steps.append(time.perf_counter() - begun)
                        begun = time.perf_counter()
            found = []
            for k in range(CONTEXT, CONTEXT + TICKS):
                for buffer in buffers:
                    buffer.append(self.frame(k))
                found.append(self._pass(scorer, buffers))
        return found

    def _refill(self) -> float:
        """Seconds of a score of `CONTEXT` frames of which the scorer knows nothing."""
        with closing(self.scorer()) as scorer:
            return self._pass(scorer, [EpisodeBuffer.holding([self.frame(k) for k in range(CONTEXT)])])

    def _pass(self, scorer: Qwen3VLScorer, buffers: Sequence[EpisodeBuffer]) -> float:
        requests = [ScoreRequest(TASK, buffer.copy()) for buffer in buffers]
        begun = time.perf_counter()
        outcomes = scorer.score_all(requests)
        took = time.perf_counter() - begun
        for outcome in outcomes:
            if isinstance(outcome, ScorerError):
                raise outcome
        return took

    # ---- robots ------------------------------------------------------------------------------------

    def play(self, fleet: Fleet) -> Outcome:
        """Let the robots of ``fleet`` ask, in real time."""
        thread = ScoringThread(self.scorer())
        robots = [
            _RealRobot(self, self.place(thread), fleet, number, bool(self._url))
            for number in range(fleet.robots)
        ]
        begun = time.monotonic() + 0.5
        plans = [
            [
                (when, robot.number, episode)
                for episode in episodes_of(fleet, robot.number)
                for when in episode.ticks
            ]
            for robot in robots
        ]
        for when, number, episode in merge(*plans, key=lambda each: each[:2]):
            time.sleep(max(0.0, begun + when - time.monotonic()))
            robots[number].asks(begun, when, episode)
        end = time.monotonic() + _LONGEST_WAIT_S
        while any(map(self._is_busy, robots)) and time.monotonic() < end:
            time.sleep(0.05)
        for robot in robots:
            robot.worker.stop()
        outcome = Outcome(due=sum(robot.asked for robot in robots))
        for robot in robots:
            outcome.ages += robot.ages
            outcome.late += robot.late
            outcome.replaced += robot.asked - len(robot.ages) - robot.late
        return outcome

    @staticmethod
    def _is_busy(robot: _RealRobot) -> bool:
        with robot.place.wake:
            return robot.place.is_busy()


class _RealRobot:
    """A robot's place at a thread."""

    def __init__(
        self, real: Real, place: ScoringThread, fleet: Fleet, number: int, may_fail: bool = False
    ) -> None:
        """``may_fail``: a request may have no score, as a busy server may refuse it."""
        self.number = number
        self.place = place
        self._may_fail = may_fail
        self.asked = 0
        self.late = 0
        self.ages: list[float] = []
        self.worker = ScoringWorker(place, notify=self._answered)
        self._real, self._fleet = real, fleet
        self._episode: Episode | None = None
        self._buffer = EpisodeBuffer(fleet.max_frames)
        self._frames = 0
        self._captured: dict[
            int, tuple[float, float]
        ] = {}  # by request: of its newest frame; end of its episode
        self._lock = threading.Lock()

    def asks(self, begun: float, when: float, episode: Episode) -> None:
        """Ask for the score of a frame that was captured at ``when``, seconds after ``begun``."""
        if episode is not self._episode:
            self.worker.start_generation()
            self._episode, self._buffer, self._frames = episode, EpisodeBuffer(self._fleet.max_frames), 0
        self._buffer.append(self._real.frame(self._frames))
        self._frames += 1
        self.asked += 1
        request = ScoreRequest(TASK, self._buffer.copy())
        with self._lock:
            self._captured[id(request.buffer)] = begun + when, begun + episode.end
        self.worker.submit(request)

    def _answered(self) -> None:
        now = time.monotonic()
        for result in self.worker.results():
            if result.score is None and self._may_fail:
                continue
            if result.score is None:
                raise RuntimeError(result.error)
            with self._lock:
                captured, end = self._captured[id(result.request.buffer)]
            if now > end:
                self.late += 1
            else:
                self.ages.append(now - captured)


def compare(
    numbers: Sequence[int], fleet: Fleet, prompts: int, threads: int, url: str = ""
) -> tuple[Service, list[tuple[Fleet, Outcome, Outcome]]]:
    """Times of this machine; and of each number of robots what was asked, measured and simulated."""
    fleet = replace(fleet, replicas=1, network=0.0, network_jitter=0.0, frame=0.0, one_in_flight=bool(url))
    real = Real(prompts, threads, fleet.rate, url)
    if url:
        fleet = replace(fleet, network=real.network_s())
    service = real.service()
    rows = []
    for number in numbers:
        some = replace(fleet, robots=number)
        rows.append((some, real.play(some), Simulation(some, service).run()))
    return service, rows
