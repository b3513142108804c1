"""Plays robots and replicas event by event, in the time of a clock of its own.

What is played is the server's rule, not its code: an episode sticks to a replica; a robot has one request
waiting, which a newer one replaces; those whose last turn is longest ago are served first, several in one
pass; while nothing waits, baselines are computed ahead; what was computed of an episode stays on the replica
while there is room, and is read anew where it is not there. Times of passes come from fleet_service.py.
Nothing here knows a real scorer: fleet_check.py holds both side by side.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count, cycle
from math import inf
from typing import Any

from fleet import Episode, Fleet, Outcome, episodes_of
from fleet_service import Service, table_of

#: A tick: when its frame was captured, the number of frames of the episode, the end of the episode.
Tick = tuple[float, int, float]


class _Event(IntEnum):
    """What happens. At one time, what ends comes before what begins."""

    PASS_OVER = 0
    BACK = 1
    DEATH = 2
    EPISODE_OVER = 3
    ANSWERED = 4
    ARRIVES = 5
    SENDS = 6
    DUE = 7


class _Robot:
    """One robot, as it and the server see it."""

    __slots__ = (
        "arrived", "episode", "episodes", "in_flight", "index", "not_before", "number", "pending", "replica",
        "turn", "waiting",
    )  # fmt: skip

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.number = number
        self.episodes = episodes_of(fleet, number)
        self.episode: Episode | None = None
        self.index = 0  # of the next tick
        self.pending: Tick | None = None  # at the robot
        self.waiting: Tick | None = None  # at its replica
        self.replica: _Replica | None = None
        self.in_flight = False
        self.arrived = 0.0  # the last request
        self.not_before = 0.0  # it does not know yet that its replica died
        self.turn = 0


class _Held:
    """What a replica keeps of an episode."""

    __slots__ = ("baselines", "frames", "is_behind")

    def __init__(self) -> None:
        self.frames = 0  # of the episode that were read
        self.baselines = 0  # known for so many ticks more
        self.is_behind = False  # and waits for more


class _Replica:
    """One server with a scorer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lives = 0  # that are over
        self.is_up = True
        self.robots: set[int] = set()
        self.queue: list[
            tuple[int, int, _Robot]
        ] = []  # turn, order; who does not wait any more is passed over
        self.held: dict[_Robot, _Held] = {}  # those served last at the end
        self.behind: deque[_Robot] = deque()
        self.taken: list[tuple[_Robot, Tick]] = []  # in the pass that runs
        self.steps_for: _Robot | None = None
        self.is_busy = False
        self.begun = 0.0


class Simulation:
    """One run of ``fleet`` on replicas with ``service``."""

    def __init__(self, fleet: Fleet, service: Service) -> None:
        self._fleet, self._service = fleet, service
        known, unknown = service.pass_ms, service.baseline_pass_ms or service.pass_ms
        self._known, self._unknown = table_of(known, service.at_once), table_of(unknown, service.at_once)
        self._events: list[tuple[float, int, int, Any, Any]] = []
        self._order = count()
        self._turns = count(1)
        self._dice = random.Random(fleet.seed)
        self._fates = random.Random(fleet.seed + 1)  # of the replicas: the robots' dice do not move them
        factors = [*service.spread]
        random.Random(fleet.seed + 2).shuffle(factors)
        self._factors = cycle(factors)
        self._robots = [_Robot(fleet, number) for number in range(fleet.robots)]
        self._replicas = [_Replica(number) for number in range(fleet.replicas)]
        self._stranded: dict[int, _Robot] = {}  # no replica lives
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Play until all ticks of ``fleet.seconds`` have had their end."""
        for robot in self._robots:
            self._begin_next(robot)
        for replica in self._replicas:
            self._plan_death(0.0, replica)
        deeds: dict[_Event, Callable[..., None]] = {
            _Event.PASS_OVER: self._pass_over,
            _Event.BACK: self._back,
            _Event.DEATH: self._death,
            _Event.EPISODE_OVER: self._episode_over,
            _Event.ANSWERED: self._answered,
            _Event.ARRIVES: self._arrives,
            _Event.SENDS: self._sends,
            _Event.DUE: self._due,
        }
        by_number = [deeds[kind] for kind in _Event]
        events = self._events
        while events:
            now, kind, _, one, other = heappop(events)
            by_number[kind](now, one, other)
        return self.outcome

    def _plan(self, when: float, kind: _Event, one: Any, other: Any = None) -> None:
        heappush(self._events, (when, kind, next(self._order), one, other))

    # ---- robots --------------------------------------------------------------------------------------

    def _begin_next(self, robot: _Robot) -> None:
        robot.episode, robot.index = next(robot.episodes, None), 0
        if robot.episode is not None:
            self._plan(robot.episode.end, _Event.EPISODE_OVER, robot)
            self._plan(robot.episode.ticks[0], _Event.DUE, robot, robot.episode)

    def _due(self, now: float, robot: _Robot, episode: Episode) -> None:
        robot.index += 1
        self.outcome.due += 1
        if robot.index < len(episode.ticks):
            self._plan(episode.ticks[robot.index], _Event.DUE, robot, episode)
        self._keep(robot, (now, robot.index, episode.end))
        self._sends(now, robot, None)

    def _keep(self, robot: _Robot, tick: Tick) -> None:
        """Let ``tick`` be the robot's to send, unless a newer one is."""
        self.outcome.replaced += robot.pending is not None
        if robot.pending is None or robot.pending[0] < tick[0]:
            robot.pending = tick

    def _sends(self, now: float, robot: _Robot, _: None) -> None:
        """Send what is pending, if that may be done now; else whoever makes it possible does it."""
        fleet = self._fleet
        if robot.pending is None or now < robot.not_before or (robot.in_flight and fleet.one_in_flight):
            return
        replica = self._replica_of(robot)
        if replica is None:
            self._stranded[robot.number] = robot
            return
        tick, robot.pending, robot.in_flight = robot.pending, None, True
        held = replica.held.get(robot)
        frames = tick[1] - held.frames if held else tick[1]
        delay = fleet.network + max(1, min(frames, self._prefix(tick[1]))) * fleet.frame
        if held is None and tick[1] > 1:
            delay += 2 * fleet.network  # the replica asks for the frames
        if fleet.network_jitter:
            delay += self._dice.expovariate(1.0) * fleet.network_jitter
        robot.arrived = max(robot.arrived, now + delay)  # one connection keeps the order
        self._plan(robot.arrived, _Event.ARRIVES, robot, (tick, replica, replica.lives))

    def _replica_of(self, robot: _Robot) -> _Replica | None:
        """Where the robot's request goes: the replica of its episode, or the one with the fewest."""
        fleet = self._fleet
        if robot.replica is not None and not (fleet.stray and self._dice.random() < fleet.stray):
            return robot.replica
        others = [each for each in self._replicas if each.is_up and each is not robot.replica]
        if not others:
            return robot.replica
        if robot.replica is None:
            chosen = min(others, key=lambda each: len(each.robots))
        else:
            chosen = self._dice.choice(others)
            robot.replica.robots.discard(robot.number)
        chosen.robots.add(robot.number)
        robot.replica = chosen
        return chosen

    def _episode_over(self, now: float, robot: _Robot, _: None) -> None:
        for tick in (robot.pending, robot.waiting):
            self.outcome.late += tick is not None
        if robot.waiting is not None:
            robot.in_flight = False
        robot.pending = robot.waiting = None
        if (replica := robot.replica) is not None:
            replica.robots.discard(robot.number)
            robot.replica = None
        for each in self._replicas if self._fleet.stray else [replica] if replica else []:
            each.held.pop(robot, None)
        self._begin_next(robot)

    def _prefix(self, frames: int) -> int:
        """Frames of the prefix of an episode that had ``frames``; a full buffer is thinned."""
        most = self._fleet.max_frames
        stride = 1
        while frames > stride * most:
            stride *= 2
        return -(-frames // stride)

    # ---- replicas ------------------------------------------------------------------------------------

    def _arrives(self, now: float, robot: _Robot, sent: tuple[Tick, _Replica, int]) -> None:
        tick, replica, lives = sent
        if robot.episode is None or tick[2] != robot.episode.end:
            self.outcome.late += 1  # its episode ended on the way
            self._answered(now, robot, None)
        elif not replica.is_up or replica.lives != lives:
            robot.in_flight = False  # it died meanwhile
            self._keep(robot, tick)
            self._plan(max(now, robot.not_before), _Event.SENDS, robot)
        elif robot.waiting is not None and robot.replica is replica:
            self.outcome.replaced += 1
            robot.waiting = tick
        else:
            self.outcome.replaced += robot.waiting is not None  # at another replica
            robot.waiting = tick
            heappush(replica.queue, (robot.turn, next(self._order), robot))
            if not replica.is_busy:
                self._go_on(now, replica)

    def _go_on(self, now: float, replica: _Replica) -> None:
        """Begin a pass with those who waited longest for a turn, or else a step of work ahead."""
        taken: list[tuple[_Robot, Tick]] = []
        queue, most = replica.queue, self._service.at_once
        while queue and len(taken) < most:
            robot = heappop(queue)[2]
            if robot.waiting is not None and robot.replica is replica:
                taken.append((robot, robot.waiting))
                robot.waiting = None
        if taken:
            self._begin_pass(now, replica, taken)
        else:
            self._begin_step(now, replica)

    def _begin_pass(self, now: float, replica: _Replica, taken: list[tuple[_Robot, Tick]]) -> None:
        turn, unknown, lacking = next(self._turns), 0, 0
        held = replica.held
        for robot, (_, frames, _end) in taken:
            robot.turn = turn
            kept = held.pop(robot, None)
            if kept is None:
                kept = _Held()
                self.outcome.refills += frames > 1
            held[robot] = kept
            new = frames - kept.frames
            lacking += max(0, min(new, self._prefix(frames)) - 2)
            unknown += kept.baselines < new
            kept.frames, kept.baselines = frames, max(0, kept.baselines - new)
        while len(held) > self._service.held:
            del held[next(iter(held))]
        number = len(taken)
        known_s, unknown_s = self._known[number], self._unknown[number]
        took = known_s + (unknown_s - known_s) * unknown / number
        took = next(self._factors) * (took + lacking * self._service.refill_ms / 1e3)
        replica.taken, replica.is_busy, replica.begun = taken, True, now
        self.outcome.passes += 1
        self._plan(now + took, _Event.PASS_OVER, replica, replica.lives)

    def _begin_step(self, now: float, replica: _Replica) -> None:
        replica.is_busy = False
        while replica.behind and now < self._fleet.seconds:
            robot = replica.behind.popleft()
            if robot in replica.held:
                replica.steps_for, replica.is_busy, replica.begun = robot, True, now
                took = self._service.step_ms / 1e3
                self._plan(now + took, _Event.PASS_OVER, replica, replica.lives)
                return

    def _pass_over(self, now: float, replica: _Replica, lives: int) -> None:
        """A pass is over, or a step of work ahead."""
        if lives != replica.lives:
            return  # it died in it
        self._count_time(now, replica)
        taken, replica.taken = replica.taken, []
        if replica.steps_for is not None:
            robot, replica.steps_for = replica.steps_for, None
            if kept := replica.held.get(robot):
                kept.baselines += 1
                kept.is_behind = False
                self._note_behind(replica, robot)
        for robot, tick in taken:
            self._note_behind(replica, robot)
            self._answer(now, robot, tick)
        self._go_on(now, replica)

    def _count_time(self, now: float, replica: _Replica) -> None:
        """Of what ends now; what comes after the run does not count."""
        took = max(0.0, min(now, self._fleet.seconds) - replica.begun)
        if replica.steps_for is not None:
            self.outcome.ahead += took
        else:
            self.outcome.busy += took

    def _note_behind(self, replica: _Replica, robot: _Robot) -> None:
        kept = replica.held.get(robot)
        if self._service.step_ms and kept and not kept.is_behind and kept.baselines < self._fleet.lead:
            kept.is_behind = True
            replica.behind.append(robot)

    def _answer(self, now: float, robot: _Robot, tick: Tick) -> None:
        fleet, outcome = self._fleet, self.outcome
        at_robot = now + fleet.network
        if fleet.network_jitter:
            at_robot += self._dice.expovariate(1.0) * fleet.network_jitter
        if at_robot > tick[2]:
            outcome.late += 1
        else:
            outcome.ages.append(at_robot - tick[0])
            outcome.times.append(at_robot)
        if fleet.one_in_flight:
            self._plan(at_robot, _Event.ANSWERED, robot)

    def _answered(self, now: float, robot: _Robot, _: None) -> None:
        """The robot may ask again."""
        robot.in_flight = False
        self._sends(now, robot, None)

    # ---- replicas that die ---------------------------------------------------------------------------

    def _plan_death(self, now: float, replica: _Replica) -> None:
        if self._fleet.dies_every < inf:
            when = now + self._fates.expovariate(1.0) * self._fleet.dies_every
            if when < self._fleet.seconds:
                self._plan(when, _Event.DEATH, replica)

    def _death(self, now: float, replica: _Replica, _: None) -> None:
        fleet = self._fleet
        if replica.is_busy:
            self._count_time(now, replica)
        self.outcome.deaths += 1
        self.outcome.down.append((now, now + fleet.repair))
        replica.is_up, replica.is_busy = False, False
        replica.lives += 1
        replica.steps_for = None
        replica.queue.clear()
        replica.behind.clear()
        replica.held.clear()
        lost, replica.taken = dict(replica.taken), []
        for number in sorted(replica.robots):
            robot = self._robots[number]
            robot.replica, robot.not_before = None, now + fleet.notice
            robot.in_flight = False
            for tick in (lost.pop(robot, None), robot.waiting):
                if tick is not None:
                    self._keep(robot, tick)
            robot.waiting = None
            self._plan(robot.not_before, _Event.SENDS, robot)
        replica.robots.clear()
        for robot, tick in lost.items():  # of an episode that is over, or that went elsewhere
            robot.in_flight = False
            if robot.episode is not None and tick[2] == robot.episode.end:
                self._keep(robot, tick)
            else:
                self.outcome.late += 1
            self._plan(now + fleet.notice, _Event.SENDS, robot)
        self._plan(now + fleet.repair, _Event.BACK, replica)

    def _back(self, now: float, replica: _Replica, _: None) -> None:
        replica.is_up = True
        self._plan_death(now, replica)
        stranded, self._stranded = self._stranded, {}
        for robot in stranded.values():
            self._sends(now, robot, None)
