"""What must hold of everything that a monitor publishes, judged from outside, message by message.

`Invariants` is told every message and everything that was done to the monitor and its camera; what does not
hold is in `broken`. It moves nothing and reads no clock: times are those of the caller's steady clock [s].
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isclose, isfinite, isnan
from typing import Any

from topreward_ros.msg import TaskEvent, TaskProgress, TaskReward

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S

#: States in which the monitor says that images can be used, or that it waits for the first one.
LOOKING = (TaskProgress.WAITING_FOR_IMAGES, TaskProgress.RUNNING, TaskProgress.STALLED)
CAUSES = {
    TaskEvent.SUCCESS,
    TaskEvent.SUBTASK_SUCCESS,
    TaskEvent.FAILURE,
    TaskEvent.TIMEOUT,
    TaskEvent.ABORTED,
}
SLACK_S = 1.5  #: beyond `stale_timeout`, of which 0.5 s are the monitor's, the rest a busy machine's
_ARRIVES_NS = 3 * NS_PER_S  # an image, on a busy machine
_LATE_S = 0.3  # since the look before
_RECOVERY_S = 3.0  # of good images, after which the monitor says no more that there are none


@dataclass(slots=True)
class Episode:
    """What was heard of one episode."""

    life: int  #: of the monitor, which is killed and started again
    events: list[int] = field(default_factory=list)
    rewards: int = 0
    episode_return: float = 0.0
    reward_stamp_ns: int = 0
    started_ns: int | None = None  #: stamp of EPISODE_STARTED
    last_reward: bool = False  #: the one that says so was heard

    @property
    def began(self) -> bool:
        return TaskEvent.EPISODE_STARTED in self.events

    @property
    def ended(self) -> bool:
        return TaskEvent.EPISODE_ENDED in self.events


class Invariants:
    """The judge of one run."""

    def __init__(self, stale_timeout: float) -> None:
        self.broken: list[str] = []  #: one sentence each
        self.tell: Callable[[str], None] = lambda problem: None  #: is called with each as it is found
        self.episodes: dict[str, Episode] = {}
        self.events = self.rewards = self.scores = 0  #: heard
        self.by_type: dict[int, int] = {}  #: events heard
        self.false_stamps: set[int] = set()  #: of images that were sent with a stamp that is wrong [ns]
        #: When images without a stamp were sent, by the clock of the machine [ns].
        self.unstamped_ns: deque[int] = deque(maxlen=1000)
        self._stale_timeout = stale_timeout
        self._life = 0
        self._sequence = 0
        self._state: int | None = None
        self._state_since = 0.0  # when the state became that
        self._looked = 0.0  # when `look` was called last
        self._watched_since = 0.0  # when the monitor could begin to judge the camera
        self._usable_since = self._usable = 0.0  # of the images that it can use, without a break
        self._good = 0.0  # when the last image was published that is in order
        self._said: set[float] = set()

    def say(self, problem: str) -> None:
        """Note what does not hold."""
        self.broken.append(problem)
        self.tell(problem)

    # ---- what is done ---------------------------------------------------------------------------

    def new_life(self, now: float) -> None:
        """The monitor was killed: its episode has no end, and another process counts from 1."""
        self._life += 1
        self._sequence = 0
        self._state = None
        self._watched_since = now

    def held(self, now: float) -> None:
        """The monitor was stopped until now, or its task was changed: it cannot know what came before."""
        self._watched_since = now

    def shown(self, now: float, usable: bool, may_be_usable: bool = False) -> None:
        """An image was published. ``usable``: it is in order; ``may_be_usable``: nobody can say."""
        if usable or may_be_usable:
            self._usable = now
        if not usable or now - self._good > 0.5:
            self._usable_since = now
        if usable:
            self._good = now

    # ---- what is heard --------------------------------------------------------------------------

    def event(self, message: TaskEvent) -> None:
        """Judge an event."""
        self.events += 1
        self.by_type[message.type] = self.by_type.get(message.type, 0) + 1
        name = EventType(message.type).name
        where = f"{name} (event {message.sequence} of episode {message.episode_id!r})"
        self._hold(
            message.sequence == self._sequence + 1 or self._sequence == 0,
            f"{where} follows event {self._sequence}",
        )
        self._sequence = message.sequence
        episode = self._episode(message.episode_id)
        self._hold(not episode.ended, f"{where} comes after the end of its episode")
        self._hold(bool(message.message), f"{where} says nothing")
        if message.type == TaskEvent.EPISODE_STARTED:
            self._hold(not episode.began, f"{where} comes twice")
            unended = [name for name in self.open_episodes() if name != message.episode_id]
            self._hold(not unended, f"{where} comes before the end of {unended}")
            episode.started_ns = _stamp_ns(message)
        elif message.type != TaskEvent.STALE_IMAGES:
            self._hold(episode.began, f"{where} comes before EPISODE_STARTED")
        if message.type == TaskEvent.SUCCESS:
            self._hold(isfinite(message.log_prob), f"{where} comes of {message.log_prob}")
        if message.type in CAUSES:
            self._hold(message.type not in episode.events, f"{where} comes twice")
        if message.type in (TaskEvent.SUCCESS, TaskEvent.SUBTASK_SUCCESS):
            last = message.stage == message.stages
            which = f"stage {message.stage} of {message.stages}"
            self._hold(last == (message.type == TaskEvent.SUCCESS), f"{where} comes of {which}")
        if message.type == TaskEvent.TIMEOUT:
            self._hold(TaskEvent.SUCCESS not in episode.events, f"{where} comes after SUCCESS")
        if message.type == TaskEvent.EPISODE_ENDED:
            self._hold(bool(CAUSES & set(episode.events)), f"{where} has no cause")
        episode.events.append(message.type)

    def reward(self, message: TaskReward) -> None:
        """Judge a reward. It is of another topic than events, and may come before or after them."""
        self.rewards += 1
        episode = self._episode(message.episode_id)
        where = f"reward {message.step} of episode {message.episode_id!r}"
        self._hold(message.step == episode.rewards, f"{where} follows {episode.rewards} rewards")
        self._hold(not episode.last_reward, f"{where} comes after the last one")
        if isfinite(message.reward):
            episode.episode_return += message.reward
        self._hold(
            isclose(message.episode_return, episode.episode_return, rel_tol=1e-9, abs_tol=1e-9),
            f"{where} returns {message.episode_return}, the sum is {episode.episode_return}",
        )
        stamp_ns = _stamp_ns(message)
        if stamp_ns:
            # One that was sent as a wrong one is believed where those before it bear it out.
            said_false = self._is_false(episode.reward_stamp_ns) or self._is_false(stamp_ns)
            self._hold(
                stamp_ns >= episode.reward_stamp_ns or said_false,
                f"{where}: its stamp goes back by {(episode.reward_stamp_ns - stamp_ns) / NS_PER_S:.3f} s",
            )
            episode.reward_stamp_ns = stamp_ns
        episode.rewards = message.step + 1
        episode.last_reward = bool(message.terminated or message.truncated)

    def progress(self, message: TaskProgress, now: float) -> None:
        """Judge progress, and note the state that it tells."""
        if message.state != self._state:
            if self._state not in (*LOOKING, TaskProgress.STALE):
                self._watched_since = now  # the next episode begins, by stamps that went back
            self._state, self._state_since = message.state, now
        where = f"progress of episode {message.episode_id!r}, {message.num_frames} frames"
        self._hold(isnan(message.progress) or 0.0 <= message.progress <= 1.0, f"{where}: {message.progress}")
        if message.stages:
            whole = (message.stage - 1 + message.stage_progress) / message.stages
            self._hold(
                isnan(message.progress) or isclose(message.progress, whole, abs_tol=1e-6),
                f"{where}: {message.progress} at {message.stage_progress} of stage {message.stage}",
            )
        if not message.num_frames:
            return
        self.scores += 1
        elapsed_ns = message.elapsed.sec * NS_PER_S + message.elapsed.nanosec
        self._hold(elapsed_ns >= 0, f"{where}: elapsed {elapsed_ns} ns")
        started_ns = self._episode(message.episode_id).started_ns
        stamp_ns = _stamp_ns(message)
        if started_ns is not None and not self._is_false(started_ns) and not self._is_false(stamp_ns):
            age_ns = stamp_ns - started_ns
            self._hold(elapsed_ns <= age_ns, f"{where}: elapsed {elapsed_ns} ns of {age_ns} ns")

    def _is_false(self, stamp_ns: int) -> bool:
        """Whether a stamp was sent as a wrong one, or stands in for one that was missing."""
        arrived = any(0 <= stamp_ns - sent_ns < _ARRIVES_NS for sent_ns in self.unstamped_ns)
        return arrived or stamp_ns in self.false_stamps

    # ---- what is looked at now and then -----------------------------------------------------------

    def look(self, now: float) -> None:
        """Judge the state beside the camera; to be called many times a second while the monitor runs.

        Whoever comes late has not heard yet what the monitor said meanwhile, and does not judge.
        """
        late, self._looked = now - self._looked > _LATE_S, now
        if late:
            return
        silent_s = now - max(self._usable, self._watched_since)
        if silent_s > self._stale_timeout + SLACK_S and self._state in LOOKING:
            self._once(f"no image that can be used for {silent_s:.1f} s, and the state is {self._state}")
        good_s = now - max(self._usable_since, self._watched_since)
        stale = self._state == TaskProgress.STALE
        if stale and now - self._good < 0.5 and min(good_s, now - self._state_since) > _RECOVERY_S:
            self._once(f"images that can be used for {good_s:.1f} s, and the state is STALE")

    def open_episodes(self) -> list[str]:
        """Episodes that have begun and have no end yet."""
        return [name for name, episode in self._of_this_life() if episode.began and not episode.ended]

    def finish(self) -> None:
        """Judge what must have come by now: the monitor was stopped in order."""
        for name in self.open_episodes():
            self.say(f"episode {name!r} has no end")
        for name, episode in self.episodes.items():
            if episode.ended:
                self._hold(episode.last_reward, f"episode {name!r} ended without a last reward")

    # ---- within -----------------------------------------------------------------------------------

    def _of_this_life(self) -> Iterable[tuple[str, Episode]]:
        return [item for item in self.episodes.items() if item[1].life == self._life]

    def _episode(self, name: str) -> Episode:
        self._hold(bool(name), "a message has no episode")
        episode = self.episodes.setdefault(name, Episode(self._life))
        self._hold(episode.life == self._life, f"episode {name!r} is of a monitor that was killed")
        return episode

    def _hold(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.say(otherwise)

    def _once(self, problem: str) -> None:
        """One sentence for a state that lasts."""
        if self._state_since not in self._said:
            self._said.add(self._state_since)
            self.say(problem)


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * NS_PER_S + int(message.header.stamp.nanosec)
