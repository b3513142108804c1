"""When a bag of an episode begins and ends, what belongs into it, and what it is called.

What a monitor says goes in (its events, its reports, and whether it is there at all), and what comes out is
when to begin a bag and when to finish it with which outcome. An episode whose end is never said, because its
monitor was killed or hangs, ends here all the same. Nothing is read or written here; times are those of a
clock that never jumps.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outcome import Outcome
from topreward_ros.core.outputs import State

_GRACE_NS = NS_PER_S  # for messages of another topic, which may come in another order
_HOLD_UP_NS = NS_PER_S  # without a turn; less is the ordinary life of a busy machine
_HALF_NS = 30 * NS_PER_S  # half of the time for which the least delay of a topic counts
_LAST_REWARD_NS = NS_PER_S // 5  # after EPISODE_ENDED, for the reward that ends the episode
_ENDED_REMEMBERED = 1000  # episodes
_LONGEST_TASK_IN_NAME = 80  # bytes; a file's name may have 255
_WATCHED = (State.RUNNING, State.STALLED)


_BY_EVENT = {
    EventType.SUCCESS: Outcome.SUCCESS,
    EventType.SUBTASK_SUCCESS: Outcome.SUBTASK_SUCCESS,
    EventType.FAILURE: Outcome.FAILURE,
    EventType.TIMEOUT: Outcome.TIMEOUT,
    EventType.ABORTED: Outcome.ABORTED,
}
_DECIDED = (
    Outcome.SUCCESS,
    Outcome.SUBTASK_SUCCESS,
    Outcome.FAILURE,
)  # what comes later in the episode does not change these


def outcome_after(before: Outcome | None, kind: EventType) -> Outcome | None:
    """The outcome of an episode that had the outcome ``before``, if any, after another event of it.

    >>> outcome_after(outcome_after(None, EventType.SUCCESS), EventType.ABORTED).value
    'success'
    """
    return before if before in _DECIDED else _BY_EVENT.get(kind, before)


@dataclass(frozen=True, slots=True)
class Begin:
    """A bag is to begin, with what was received shortly before."""

    episode_id: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Finish:
    """A bag is to be finished."""

    episode_id: str
    outcome: Outcome
    from_the_start: bool  #: the beginning of the episode was seen, and not only what came later
    why: str = ""  #: for a human, where the outcome is not what the monitor said


@dataclass(slots=True)
class _Episode:
    seen_from_start: bool
    outcome: Outcome | None = None
    until_ns: int | None = None  # of what comes its bag takes no more from then on
    ended_ns: int | None = None  # when EPISODE_ENDED came
    has_last_reward: bool = False
    lost_ns: int | None = None  # once something else than its end has come
    lost_why: str = ""


class EpisodeBags:
    """Follows the episodes of one monitor.

    >>> bags = EpisodeBags(after_s=1.0, monitor_timeout_s=10.0)
    >>> bags.event(0, EventType.EPISODE_STARTED, "e1", "open the drawer")
    [Begin(episode_id='e1', instruction='open the drawer')]
    >>> for kind in (EventType.SUCCESS, EventType.EPISODE_ENDED):
    ...     assert not bags.event(5 * NS_PER_S, kind, "e1")
    >>> [finish.outcome.value for finish in bags.clock(6 * NS_PER_S, monitor_there=True)]
    ['success']
    """

    def __init__(self, *, after_s: float, monitor_timeout_s: float) -> None:
        """``after_s``: what comes for so long after the end of an episode belongs to it as well.
        ``monitor_timeout_s``: a monitor that says nothing for so long is lost."""
        self._after_ns = round(after_s * NS_PER_S)
        self._timeout_ns = round(monitor_timeout_s * NS_PER_S)
        self._open: dict[str, _Episode] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED_REMEMBERED)
        self._heard_ns = 0
        self._gone_ns: int | None = None  # since when nobody publishes the events

    @property
    def open(self) -> tuple[str, ...]:
        """The episodes whose bags are open, in the order in which they began."""
        return tuple(self._open)

    def event(
        self,
        now_ns: int,
        kind: EventType,
        episode_id: str,
        instruction: str = "",
        arrival_ns: int | None = None,
    ) -> list[Begin]:
        """Take a TaskEvent. The same one again changes nothing.

        ``arrival_ns``: when it came, where the recorder was held up since then, see `HoldUps`.
        """
        self._heard_ns = now_ns
        begun = []
        if kind is EventType.EPISODE_STARTED:
            if episode_id in self._open:
                self._open[episode_id].seen_from_start = True
            elif episode_id not in self._ended:
                begun = [self._begin(episode_id, instruction, seen_from_start=True)]
            self._other_is_watched(now_ns, episode_id)
        episode = self._open.get(episode_id)
        if episode is None or episode.ended_ns is not None:
            return begun
        episode.outcome = outcome_after(episode.outcome, kind)
        if kind is EventType.EPISODE_ENDED:
            episode.until_ns = (now_ns if arrival_ns is None else arrival_ns) + self._after_ns
            episode.ended_ns = now_ns
        return begun

    def report(self, now_ns: int, state: State, episode_id: str, instruction: str) -> list[Begin]:
        """Take a TaskProgress, of task_progress or of the latched task_state."""
        self._heard_ns = now_ns
        self._other_is_watched(now_ns, episode_id)
        is_new = episode_id and episode_id not in self._open and episode_id not in self._ended
        if is_new and state in _WATCHED:  # its EPISODE_STARTED is missed, or on its way
            return [self._begin(episode_id, instruction, seen_from_start=False)]
        return []

    def last_reward(self, episode_id: str) -> None:
        """Take the TaskReward that ends an episode, terminated or truncated."""
        if episode := self._open.get(episode_id):
            episode.has_last_reward = True

    def awaits_end(self, now_ns: int) -> bool:
        """Whether a monitor that is about to end would still say something of an open episode: that it has
        ended, and its last reward, of which an episode without images has none."""
        return any(
            episode.ended_ns is None
            or (not episode.has_last_reward and now_ns < episode.ended_ns + _LAST_REWARD_NS)
            for episode in self._open.values()
        )

    def clock(self, now_ns: int, *, monitor_there: bool) -> list[Finish]:
        """Say which bags are to be finished now. To be asked several times a second.

        ``monitor_there``: somebody publishes the events.
        """
        self._gone_ns = None if monitor_there else self._gone_ns or now_ns
        found = []
        for episode_id, episode in list(self._open.items()):
            if episode.ended_ns is not None:
                if now_ns >= episode.ended_ns + self._after_ns:
                    found.append(self._finish(episode_id, episode.outcome or Outcome.ENDED))
            elif why := self._why_lost(episode, now_ns):
                found.append(self._finish(episode_id, Outcome.MONITOR_LOST, why))
        return found

    def held_up(self, span_ns: int) -> None:
        """The recorder itself was held up for so long: that was no silence of the monitor, and what belongs
        into a bag may still wait to be taken."""
        self._heard_ns += span_ns
        if self._gone_ns is not None:
            self._gone_ns += span_ns
        for episode in self._open.values():
            if episode.ended_ns is not None:
                episode.ended_ns += span_ns
            if episode.lost_ns is not None:
                episode.lost_ns += span_ns

    def stop(self) -> list[Finish]:
        """Say how every bag that is open is to be finished because the recorder ends."""
        found = []
        for episode_id, episode in list(self._open.items()):
            if episode.ended_ns is not None:
                found.append(self._finish(episode_id, episode.outcome or Outcome.ENDED))
            else:
                found.append(self._finish(episode_id, Outcome.STOPPED, "the recorder was ended"))
        return found

    def takers(self, named: str | None, arrival_ns: int = 0) -> tuple[str, ...]:
        """The episodes into whose bags a message belongs that names the episode ``named``.

        A message that names none (None, or empty) belongs into all that were open at ``arrival_ns``.
        """
        if not named:
            return tuple(
                name
                for name, episode in self._open.items()
                if episode.until_ns is None or arrival_ns <= episode.until_ns
            )
        return (named,) if named in self._open else ()

    def _begin(self, episode_id: str, instruction: str, *, seen_from_start: bool) -> Begin:
        self._open[episode_id] = _Episode(seen_from_start)
        return Begin(episode_id, instruction)

    def _other_is_watched(self, now_ns: int, episode_id: str) -> None:
        for name, episode in self._open.items():
            if name == episode_id:
                episode.lost_ns = None
            elif episode.lost_ns is None:
                episode.lost_ns = now_ns + _GRACE_NS
                episode.lost_why = "the monitor went on without saying that it ended"

    def _why_lost(self, episode: _Episode, now_ns: int) -> str:
        if episode.lost_ns is not None and now_ns >= episode.lost_ns:
            return episode.lost_why
        if self._gone_ns is not None and now_ns - self._gone_ns >= _GRACE_NS:
            return "the monitor is gone"
        if now_ns - self._heard_ns >= self._timeout_ns:
            return f"the monitor has said nothing for {(now_ns - self._heard_ns) / NS_PER_S:.0f} s"
        return ""

    def _finish(self, episode_id: str, outcome: Outcome, why: str = "") -> Finish:
        episode = self._open.pop(episode_id)
        if outcome is not Outcome.MONITOR_LOST:  # one that was only silent may go on
            self._ended.append(episode_id)
        return Finish(episode_id, outcome, episode.seen_from_start, why)


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it was received."""

    topic: str
    type_name: str
    data: bytes  #: serialized
    time_ns: int  #: since 1970: what a bag says of when it was received
    arrival_ns: int  #: by the clock that never jumps
    episode_id: str | None = None  #: that it names; None: it is of a kind that names none


class RecentMessages:
    """What was received lately, within bounds of time and memory."""

    def __init__(self, span_s: float, most_bytes: int) -> None:
        self._span_ns = round(span_s * NS_PER_S)
        self._most_bytes = most_bytes
        self._messages: deque[Received] = deque()
        self._bytes = 0
        self.cut_short_bytes = 0  #: that were still within the time when memory was needed

    def add(self, message: Received) -> None:
        """Take a message and forget those that are too old, or too many."""
        self._messages.append(message)
        self._bytes += len(message.data)
        while self._messages and message.arrival_ns - self._messages[0].arrival_ns > self._span_ns:
            self._forget_first()
        while self._bytes > self._most_bytes:
            self.cut_short_bytes += self._forget_first()

    def messages(self) -> tuple[Received, ...]:
        """What is still known, oldest first."""
        return tuple(self._messages)

    def _forget_first(self) -> int:
        size = len(self._messages.popleft().data)
        self._bytes -= size
        return size


@dataclass(slots=True)
class _Least:
    """The least of what was given in the last half minute to minute."""

    since_ns: int  # of ``newest``
    newest_ns: int
    older_ns: int

    def of(self, clock_ns: int, value_ns: int) -> int:
        """Take a value, and give the least of those that count, this one among them."""
        if clock_ns - self.since_ns >= _HALF_NS:
            self.since_ns, self.older_ns, self.newest_ns = clock_ns, self.newest_ns, value_ns
        self.newest_ns = min(self.newest_ns, value_ns)
        return min(self.newest_ns, self.older_ns)


class HoldUps:
    """When messages came that waited while this process was held up: stopped, or without a turn.

    How long one waited is told by its publisher's clock: by how much more it is late than the least late one
    of its topic in the last half minute to minute, not counting hold-ups. So that clock may go wrong by any
    amount, and may drift; a jump of it is forgotten after two messages that are half a minute apart.

    >>> holdups = HoldUps()
    >>> for second in (1, 2):
    ...     _ = holdups.turn(second * NS_PER_S)
    ...     _ = holdups.arrival_ns("a", second * NS_PER_S, late_ns=7000)
    >>> holdups.turn(9 * NS_PER_S) // NS_PER_S
    7
    >>> holdups.arrival_ns("a", 9 * NS_PER_S, late_ns=6 * NS_PER_S + 7000) // NS_PER_S
    3
    """

    def __init__(self) -> None:
        self._turn_ns: int | None = None
        self._since_ns, self._until_ns = 0, 0  # the newest one
        self._held_ns = 0  # all of them so far
        self._least_late: dict[str, _Least] = {}  # by topic

    def turn(self, now_ns: int) -> int:
        """The process has a turn, as it has many times a second; for how long it was held up before it."""
        last_ns, self._turn_ns = self._turn_ns, now_ns
        if last_ns is None or now_ns - last_ns < _HOLD_UP_NS:
            return 0
        self._since_ns, self._until_ns = last_ns, now_ns
        self._held_ns += now_ns - last_ns
        return now_ns - last_ns

    def arrival_ns(self, topic: str, now_ns: int, late_ns: int) -> int:
        """When a message came that is looked at now.

        ``late_ns``: the time at which it is looked at, by the system's clock, minus that at which it was
        sent, by its publisher's clock.
        """
        clock_ns = now_ns - self._held_ns
        least_ns = self._least_late.setdefault(topic, _Least(clock_ns, late_ns, late_ns)).of(
            clock_ns, late_ns
        )
        if late_ns <= least_ns:
            return now_ns
        came_ns = now_ns - (late_ns - least_ns)
        # What is older was latched, and came after it was asked for.
        return came_ns if self._since_ns <= came_ns < self._until_ns else now_ns


class LatchedMessages:
    """The messages of topics that a late subscriber would be given, to be repeated in every bag."""

    def __init__(self) -> None:
        self._by_topic: dict[tuple[str, str], deque[Received]] = {}

    def add(self, message: Received, most: int) -> None:
        """Keep ``message``; of its topic the newest ``most`` are kept, as many as its publishers hold."""
        kept = self._by_topic.setdefault((message.topic, message.type_name), deque())
        kept.append(message)
        while len(kept) > max(1, most):
            kept.popleft()

    def before(self, messages: Iterable[Received]) -> list[Received]:
        """What is kept and is not among ``messages``, oldest first."""
        known = {id(message) for message in messages}
        kept = [message for some in self._by_topic.values() for message in some if id(message) not in known]
        return sorted(kept, key=lambda message: message.arrival_ns)


class SequenceGaps:
    """How many messages of a topic were lost on the way, by the numbers that its publisher gives them.

    It can be told while one publisher is there alone.

    >>> gaps = SequenceGaps()
    >>> for number in (7, 8, 11, 1, 2):
    ...     gaps.take(number, publishers=1)
    >>> gaps.lost
    2
    """

    def __init__(self) -> None:
        self.lost = 0
        self._last: int | None = None

    def take(self, number: int, publishers: int) -> None:
        """A message of this number has come; ``publishers``: that are there now."""
        if publishers != 1:
            self._last = None
            return
        if self._last is not None and number > self._last:
            self.lost += number - self._last - 1
        self._last = number


def bag_name(when: str, instruction: str, outcome: str = "") -> str:
    """The name of a bag: ``when``, the task and the outcome, fit for a file whatever the task says.

    >>> bag_name("2026-11-27_12-34-56", "Open the drawer!", "success")
    '2026-11-27_12-34-56_open_the_drawer_success'
    >>> bag_name("2026-11-27_12-34-56", "../../etc/\\x00 öffne", "aborted")
    '2026-11-27_12-34-56_etc_öffne_aborted'
    """
    words = re.findall(r"\w+", instruction.replace("\x00", " ").casefold())
    task = ""
    for word in words:
        longer = f"{task}_{word}" if task else word
        if len(longer.encode(errors="replace")) > _LONGEST_TASK_IN_NAME:
            cut = word.encode(errors="ignore")[:_LONGEST_TASK_IN_NAME].decode(errors="ignore")
            task = task or cut
            break
        task = longer
    task = "".join(character for character in task if character.isprintable()).strip("_")
    return "_".join(part for part in (when, task or "no_task", outcome) if part)
