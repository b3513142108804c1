"""What a supervisor does next: events, states and answers in; calls, tasks and words for the log out.

Pure: it reads no clock, calls nothing and knows no ROS. Whoever owns it tells it what was heard and when, and
carries out what it returns, in that order (retry_words.py). Rules and calls are read in rules.py.

How an episode runs: it is *begun* (the monitor is given a task under a new name) and watched. The first
reason whose rule is not `nothing` *decides* it, once: whatever is heard of that episode afterwards changes
nothing. A decision is carried out in steps, one after the other: calls that end the policy, calls that reset
the scene, a pause, the next begin. A call is made again after a refusal, and never when it may have been
carried out: one that was not answered in time, or whose answer was lost with this process, is reported
instead. Nothing is waited for without a limit. Where the process ends, every call that is left has a share of
the time that remains, and one that fails holds up no other.

Which events count: those of the episode that is watched, each sequence number once, no older than
`event_max_age` since their publication, which hearing.py judges. Image stamps say nothing about that age:
they may be of simulated time, and that of STALE_IMAGES is old by its nature. A SUCCESS without calibration
counts only where that is allowed; where it is not, the EPISODE_ENDED behind it does not count either.

That the monitor lost the episode is told by its reports, twice in a row: a sequence that begins anew or
another publisher only says why.

Whether the monitor lives, and how long anything lasts, goes by the steady clock alone: clocks that people
read are set while a robot works. An end of which no event was heard is known by the reports, and only OVERDUE
acts upon it: what it was the end of is not known.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.hearing import Hearing
from topreward_ros.core.outputs import State
from topreward_ros.core.printable import printable
from topreward_ros.core.retry_settings import RetrySettings
from topreward_ros.core.retry_state import SavedState, StateError
from topreward_ros.core.retry_steps import Kind, Step, Try
from topreward_ros.core.retry_words import (
    Command,
    Decision,
    Heard,
    Level,
    Log,
    MakeCall,
    Moment,
    Outcome,
    Phase,
    Save,
    Seen,
    SetTask,
)
from topreward_ros.core.rules import (
    Action,
    Call,
    Condition,
    Rule,
)
from topreward_ros.core.watched_episode import WatchedEpisode

HISTORY = 50  #: decisions that are remembered

_LOOK_AGAIN_NS = NS_PER_S // 10  # for a service that is not there
_REFUSED_AGAIN_NS = NS_PER_S // 2  # until a service that refused is called again
_TASK_ANSWER_NS = 5 * NS_PER_S  # for the monitor's answer
_TASK_AGAIN_NS = NS_PER_S  # until a monitor that refused is asked again
_RELEASE_NS = NS_PER_S // 20  # for EPISODE_ENDED to come by itself
_GAP_NS = NS_PER_S // 5  # for an event that is missing before EPISODE_ENDED
_LOST_NS = NS_PER_S  # between two reports that do not name the episode
_OVER_NS = NS_PER_S  # between two reports of an end of which no event was heard
_LEAST_SHARE_NS = NS_PER_S // 10  # for a call, however little time remains
_ABSENT_AT_END_NS = 3 * NS_PER_S // 10  # for one that is not there when the process ends: it has gone


class RetryPolicy:
    """One supervisor. Not thread-safe: one thread owns it."""

    def __init__(self, settings: RetrySettings, new_name: Callable[[], str]) -> None:
        """``new_name``: a name for an episode, which no monitor has been given before."""
        self.settings = settings
        self.phase = Phase.STOPPED
        self.message = "not started"  #: why it is in this phase
        self.problem = ""  #: what a person should look at; empty: nothing
        self.task_index = 0
        self.stage = 0  #: of the task that the next episode begins with, where it goes on; 0: the first
        self.episodes = 0  #: begun so far
        self.retries: Counter[str] = Counter()  #: of this task, by reason
        self.history: deque[Decision] = deque(maxlen=HISTORY)
        self.counts: Counter[str] = Counter()  #: events by what became of them
        self._new_name = new_name
        self._watch: WatchedEpisode | None = None  # until it is decided
        self._released: str = ""  # the decided episode that the monitor may still watch
        self._release_ns: int | None = None  # when to end it
        self._steps: deque[Step] = deque()
        self._try: Try | None = None
        self._pause_until_ns: int | None = None
        self._end_until_ns: int | None = None
        self._asked = ""  # the name under which a begin is under way
        self._asked_ns = 0
        self._tokens = 0
        self._past: deque[str] = deque(maxlen=1000)  # episodes that were decided
        self._hearing = Hearing()
        self._reports_are_old = False  # which was said
        self._missing: dict[int, str] = {}  # sequence numbers that were skipped, and the episode
        self._ends_ns: int | None = None  # when the process ends; None: not yet
        self._failed_at_end: list[str] = []  # calls, and why

    # ---- what can be asked ----------------------------------------------------------------------

    @property
    def episode_id(self) -> str:
        """The episode that is watched, or decided and not yet followed by another."""
        return self._watch.episode_id if self._watch is not None else self._released

    @property
    def instruction(self) -> str:
        """The task at hand."""
        if self._watch is not None and self._watch.instruction:
            return self._watch.instruction
        tasks = self.settings.tasks
        return tasks[self.task_index] if self.task_index < len(tasks) else ""

    @property
    def missing(self) -> int:
        """Events that a monitor numbered and that never came."""
        return len(self._missing)

    # ---- people -----------------------------------------------------------------------------------

    def start(self, now: Moment) -> list[Command]:
        """Begin, or begin again after a stop; at the first task when the list was over."""
        if self.phase not in (Phase.STOPPED, Phase.DONE):
            return [Log(Level.WARNING, "already started: this changes nothing")]
        if self.phase is Phase.DONE:
            self.task_index, self.episodes = 0, 0
        self.retries.clear()
        self.stage = 0
        self.problem = ""
        self.phase, self.message = Phase.ACTING, "started"
        resets = self._calls("reset") if self.settings.reset_first else []
        self._steps = deque([*resets, Step(Kind.BEGIN)])
        return self._run(now)

    def stop(self, now: Moment, why: str, within_s: float | None = None) -> list[Command]:
        """End the episode and stop, whatever is under way; ``why``: for people.

        ``within_s``: the process ends so soon, and the calls share that time; None: each has its own.
        """
        if within_s is not None:
            self._ends_ns = now.steady_ns + round(within_s * NS_PER_S)
        if self.phase in (Phase.STOPPED, Phase.DONE):
            return []
        was_sent = self._try is not None and self._try.limit_ns is not None
        begun = self._asked if was_sent else ""
        ends, stops = self._unmade("end"), self._unmade("stop")
        if self._watch is not None and not self._watch.ending:
            ends = self._calls("end")
        if not any(step.purpose == "stop" for step in self._steps):
            stops = self._calls("stop")
        kept = self._try if was_sent and self._steps[0].purpose == "stop" else None
        if kept is not None:  # a stop call is under way: nothing comes before it, and its answer counts
            stops = [self._steps[0], *stops]
        said = [] if kept is not None else self._abandon()
        self._note(now, why, Action.STOP.value, "")
        self._leave_episode()
        if self.settings.dry_run:
            self._steps.clear()
            self._released = ""
            self.phase, self.message = Phase.STOPPED, why
            return [*said, Log(Level.INFO, why)]
        if begun:  # the monitor may have begun it
            self._released = begun
        rest = Step(Kind.REST, phase=Phase.STOPPED, why=why)
        if kept is not None:
            self._steps, self._try = deque([*stops, Step(Kind.RELEASE), rest]), kept
            if (share_ns := self._share_until_ns(now)) is not None:
                kept.share_until_ns, kept.limit_ns = share_ns, min(kept.limit_ns or share_ns, share_ns)
            self.phase, self.message = Phase.ACTING, why
            return said
        return [*said, *self._take([*ends, Step(Kind.RELEASE), *stops, rest], now)]

    @property
    def resting(self) -> bool:
        """Whether nothing is under way: neither an episode, nor steps, nor the end of an episode."""
        return self.phase in (Phase.STOPPED, Phase.DONE) and self._release_ns is None

    @property
    def not_made(self) -> list[str]:
        """Where the process ends: the calls that were not made, or without success, and why."""
        left = [f"{self._call_of(step)}: not made" for step in self._unmade("end") + self._unmade("stop")]
        return self._failed_at_end + left

    def release_now(self, now: Moment) -> list[Command]:
        """End a decided episode at the monitor at once, if it still watches it."""
        return self._release(now) if self._release_ns is not None else []

    # ---- the monitor ------------------------------------------------------------------------------

    def on_event(self, event: Heard, now: Moment) -> list[Command]:
        """Take an event of a monitor."""
        is_old = self._hearing.is_old(event.age_s, self.settings.event_max_age, now)
        self._hearing.follow(event, now, is_old=is_old)
        if is_old:
            self.counts["too old"] += 1
            what = f"{event.type.name} of episode '{event.episode_id}'"
            return [self._old(what, event.age_s, "Where this is so for every event")]
        said = self._adopt(event.episode_id, event.instruction, now)
        watch = self._watch
        part = watch.part(event.episode_id) if watch is not None else 0
        if watch is None or not part:
            if event.episode_id.startswith(self._missing.get(event.sequence, "\0")):
                del self._missing[event.sequence]  # it only came late
            over = event.episode_id in self._past or event.episode_id == self._released
            self.counts["of an episode that is decided" if over else "of other episodes"] += 1
            if event.type is EventType.EPISODE_ENDED and event.episode_id == self._released:
                self._release_ns, self._released = None, ""
                return [*said, *self._run(now)]
            return said
        if event.sequence in watch.heard:
            self.counts["repeated"] += 1
            return said
        watch.heard.add(event.sequence)
        if part < watch.number:
            self.counts["of an episode that is decided"] += 1
            return said
        self._go_to_part(watch, event.episode_id, part)
        watch.stage = event.stage or watch.stage
        self.counts["heard"] += 1
        return [*said, *self._consider(watch, event, now)]

    def on_report(self, report: Seen, now: Moment) -> list[Command]:
        """Take a report of a monitor: what it watches, and whether it has images."""
        if self._watch is not None:
            self._watch.reported_ns = now.steady_ns  # whatever clocks of publishers say
        was_old = self._reports_are_old
        self._reports_are_old = self._hearing.is_old(report.age_s, self.settings.event_max_age, now)
        if self._reports_are_old:
            what = "a report on task_progress"
            return [] if was_old else [self._old(what, report.age_s, "Where this is so for every report")]
        if self._hearing.is_overtaken(report, now):
            return []
        idle = report.state in (State.UNKNOWN, State.IDLE, State.SUCCEEDED, State.FAILED)
        said = [] if idle else self._adopt(report.episode_id, report.instruction, now)
        watch = self._watch
        if watch is None:
            return said
        part = watch.part(report.episode_id)
        if watch.ending:
            return said if part else [*said, *self._end_seen(watch, now)]
        if part < watch.number:
            return [*said, *self._maybe_lost(watch, report, now)]
        watch.lost_ns = None
        self._hearing.is_anew = False
        self._go_to_part(watch, report.episode_id, part)
        watch.stage = report.stage or watch.stage
        if watch.resumed:
            watch.resumed = False
            if report.state in (State.SUCCEEDED, State.FAILED):
                detail = f"the episode ended with {report.state.name} while no supervisor listened"
                return [*said, *self._decide(Condition.SUPERVISOR_RESTARTED.name, detail, now)]
            said.append(Log(Level.INFO, f"episode '{watch.episode_id}' is still under way: watching on"))
        silent = report.state in (State.STALE, State.WAITING_FOR_IMAGES)
        watch.silent_ns = (watch.silent_ns or now.steady_ns) if silent else None
        return [*said, *self._maybe_over(watch, report.state, now)]

    def on_publishers(self, identities: frozenset[str]) -> None:
        """Take who publishes events at present, by any name that no other publisher ever has."""
        self._hearing.follow_publishers(identities)

    def answer(
        self, token: int, outcome: Outcome, message: str, now: Moment, episode_id: str = ""
    ) -> list[Command]:
        """Take what became of a `MakeCall` or a `SetTask`; ``episode_id``: that the monitor gave back."""
        trying = self._try
        if trying is None or token != trying.token or not self._steps:
            if outcome is Outcome.DONE or token >= 0:
                return []
            return [Log(Level.WARNING, f"the monitor did not end the episode: {printable(message, 200)}")]
        if self._steps[0].kind is Kind.BEGIN:
            return self._task_answered(trying, outcome, message, episode_id, now)
        return self._call_answered(trying, outcome, message, now)

    def sending(self, token: int, now: Moment) -> None:
        """Take that a call is made now; its time for an answer begins."""
        trying = self._try
        if trying is not None and token == trying.token:
            limit_ns = now.steady_ns + round(self._call_of(self._steps[0]).timeout_s * NS_PER_S)
            if trying.share_until_ns is not None:
                limit_ns = min(limit_ns, max(trying.share_until_ns, now.steady_ns + _LEAST_SHARE_NS))
            trying.limit_ns = limit_ns

    def tick(self, now: Moment) -> list[Command]:
        """Take that time has passed; to be called several times a second."""
        self._excuse(self._hearing.tick(now), now)
        said: list[Command] = []
        if self._release_ns is not None and now.steady_ns >= self._release_ns:
            said += self._release(now)
        if self._try is not None:
            said += self._look_at_try(self._try, now)
        elif self._steps:
            said += self._run(now)
        if (watch := self._watch) is not None and self._hearing.has_caught_up(now):
            said += self._look_at_watch(watch, now)
        return said

    # ---- files ------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All that the next process needs to go on, as JSON has it."""
        watch, tasks = self._watch, self.settings.tasks
        return SavedState(
            phase=self.phase,
            message=self.message,
            task_index=self.task_index,
            task=tasks[self.task_index] if self.task_index < len(tasks) else "",
            stage=watch.stage if watch is not None else self.stage,
            episodes=self.episodes,
            retries=self.retries,
            watch=None if watch is None else (watch.base, watch.episode_id, watch.number),
            steps=tuple(self._steps),
            sent=self._try is not None and self._try.limit_ns is not None,
            history=tuple(self.history),
        ).to_json()

    def restore(self, saved: Any, now: Moment) -> list[Command]:
        """Go on where `snapshot` was taken; for a policy to which nothing has happened yet.

        Raises `StateError`, and changes nothing then.
        """
        state = SavedState.from_json(saved)
        if any(it.kind is Kind.CALL and it.index >= len(self._calls(it.purpose)) for it in state.steps):
            raise StateError("it speaks of calls that are no longer set")
        self.task_index = self._index_of(state.task_index, state.task)
        self.stage, self.episodes, self.retries = state.stage, state.episodes, Counter(state.retries)
        self.history.extend(state.history)
        if state.phase in (Phase.STOPPED, Phase.DONE) and not state.steps:
            self.phase, self.message = state.phase, state.message
            return []
        self._steps = deque(state.steps)
        if state.watch is not None:
            self._watch_on(*state.watch, now)
            self.phase, self.message = Phase.WATCHING, "started again: is the episode still under way?"
        else:
            self.phase, self.message = Phase.ACTING, "started again in the middle of a decision"
        said: list[Command] = [Log(Level.INFO, self.message)]
        if state.sent and state.steps and state.steps[0].kind is Kind.CALL:
            first = state.steps[0]
            self._try = Try(self._next_token(), 0)
            why = "was called before this process started; whether it was done is not known"
            return [*said, *self._call_failed(self.settings.calls[first.purpose][first.index], why, now)]
        return [*said, *self._run(now)]

    def _watch_on(self, base: str, episode_id: str, number: int, now: Moment) -> None:
        """Watch an episode that was watched before this process started."""
        self._watch = WatchedEpisode(
            base,
            now.steady_ns,
            now.steady_ns,
            episode_id=episode_id,
            number=number,
            instruction=self.instruction,
            stage=self.stage,
            resumed=True,
            ending=any(step.kind is Kind.AWAIT_END for step in self._steps),
            reported_ns=now.steady_ns,
        )

    def _index_of(self, index: int, task: str) -> int:
        tasks = self.settings.tasks
        if index < len(tasks) and tasks[index] == task:
            return index
        return tasks.index(task) if task in tasks else 0

    # ---- what was heard ---------------------------------------------------------------------------

    def _old(self, what: str, age_s: float, where: str) -> Log:
        text = (
            f"{what} was published {age_s:.1f} s ago, and event_max_age is "
            f"{self.settings.event_max_age:g} s: ignored. {where}, the clocks of two computers differ; once, "
            "it was long on its way, a clock was set, or this process was stopped or too busy to hear it"
        )
        return Log(Level.WARNING, text)

    def _adopt(self, episode_id: str, instruction: str, now: Moment) -> list[Command]:
        """Take an episode as ours: that which was asked for, or, in a dry run, that of anybody."""
        if self._watch is not None or not episode_id:
            return []
        if self._asked and episode_id == self._asked:
            return self._begun(episode_id, now)
        if not self.settings.dry_run or self.phase is not Phase.BEGINNING or episode_id in self._past:
            return []
        self._asked_ns = now.steady_ns
        return self._begun(episode_id, now, instruction)

    def _go_to_part(self, watch: WatchedEpisode, episode_id: str, part: int) -> None:
        """Follow an episode that goes on as NAME.2."""
        if part > watch.number:
            watch.go_to(part, episode_id)
            if self.phase is Phase.UNDECIDED:
                self.phase = Phase.WATCHING
            self.message = f"episode '{printable(episode_id, 60)}' goes on"

    def _consider(self, watch: WatchedEpisode, event: Heard, now: Moment) -> list[Command]:
        """Ask the rule for an event of the episode that is watched."""
        if event.type is EventType.EPISODE_STARTED:
            return []
        if watch.ending:
            return self._end_seen(watch, now) if event.type is EventType.EPISODE_ENDED else []
        if event.type is EventType.EPISODE_ENDED:
            watch.ended_ns, watch.ended_by, watch.ended_unheard = now.steady_ns, event.message, False
            if self.phase is Phase.WATCHING:
                self.phase = Phase.UNDECIDED
                self.message = watch.held or "the episode is over, and no rule has acted"
            watch.end_due_ns = now.steady_ns + (_GAP_NS if watch.missing() else 0)
            return self._end_considered(watch, now)
        is_success = event.type.name.endswith("SUCCESS")
        watch.succeeded |= event.type is EventType.SUCCESS
        rule = self.settings.rules[event.type.name]
        if (
            is_success
            and rule.action is not Action.NOTHING
            and not event.calibrated
            and not self.settings.act_on_uncalibrated
        ):
            self.counts["not calibrated"] += 1
            watch.held = f"{event.type.name} is not calibrated, and act_on_uncalibrated is false"
            text = (
                f"{watch.held}: '{rule}' is not done. A person decides: call ~/stop and ~/start; after "
                f"{self.settings.undecided_wait:g} s OVERDUE comes"
            )
            return [Log(Level.WARNING, text)]
        return self._decide(event.type.name, event.message, now)

    def _end_seen(self, watch: WatchedEpisode, now: Moment) -> list[Command]:
        """The episode that was told to end is over."""
        watch.ended_ns = now.steady_ns
        self._release_ns, self._released = None, ""
        return self._run(now) if self._try is None else []

    def _end_considered(self, watch: WatchedEpisode, now: Moment) -> list[Command]:
        """Ask the rule of EPISODE_ENDED, once what came before it is known."""
        if watch.end_due_ns is None or now.steady_ns < watch.end_due_ns:
            return []
        watch.end_due_ns = None
        if watch.held:
            return []
        return self._decide(EventType.EPISODE_ENDED.name, watch.ended_by, now)

    def _maybe_over(self, watch: WatchedEpisode, state: State, now: Moment) -> list[Command]:
        """Take what a report says of an end: two of them mean that its events were not heard."""
        is_over = state in (State.FAILED, State.IDLE) or (state is State.SUCCEEDED and not watch.succeeded)
        if not is_over:
            watch.over_ns = None
            if watch.ended_unheard:
                watch.ended_ns, watch.ended_unheard = None, False
                if self.phase is Phase.UNDECIDED:
                    self.phase, self.message = Phase.WATCHING, "watches the episode"
            return []
        if watch.over_ns is None:
            watch.over_ns = now.steady_ns
        if watch.ended_ns is not None or now.steady_ns - watch.over_ns < _OVER_NS:
            return []
        watch.ended_ns, watch.ended_unheard = now.steady_ns, True
        watch.ended_by = f"the monitor reports {state.name}, and no event of that end was heard"
        if self.phase is Phase.WATCHING:
            self.phase, self.message = Phase.UNDECIDED, watch.ended_by
        text = (
            f"episode '{watch.episode_id}' is over: {watch.ended_by}. A person decides: call ~/stop and "
            f"~/start; after {self.settings.undecided_wait:g} s OVERDUE comes"
        )
        return [Log(Level.WARNING, text)]

    def _maybe_lost(self, watch: WatchedEpisode, report: Seen, now: Moment) -> list[Command]:
        """Take a report that does not name the episode: two of them mean that the monitor lost it."""
        if report.age_s * NS_PER_S > now.steady_ns - watch.asked_ns:
            return []  # it was published before the task was set
        if watch.lost_ns is None:
            watch.lost_ns = now.steady_ns
            return []
        if now.steady_ns - watch.lost_ns < _LOST_NS:
            return []
        now_watched = f"'{report.episode_id}'" if report.episode_id else "nothing"
        detail = f"the monitor watches {now_watched} ({report.state.name})"
        if watch.resumed:
            return self._decide(Condition.SUPERVISOR_RESTARTED.name, detail, now, watched=False)
        if self._hearing.is_anew:
            return self._decide(Condition.MONITOR_RESTARTED.name, detail, now, watched=False)
        if self.settings.dry_run:
            self._leave_episode()
            said = Log(Level.INFO, f"no rule acted on the last episode: {detail}")
            return [said, *self._take([Step(Kind.BEGIN)], now)]
        return self._decide(Condition.TAKEN_OVER.name, detail, now, watched=False)

    def _look_at_watch(self, watch: WatchedEpisode, now: Moment) -> list[Command]:
        """Notice what does not come."""
        if watch.ending:
            return []
        if said := self._end_considered(watch, now):
            return said
        age_s = (now.steady_ns - watch.reported_ns) / NS_PER_S
        if age_s > self.settings.monitor_timeout:
            detail = f"no report on task_progress for more than {self.settings.monitor_timeout:g} s"
            if said := self._notice(watch, Condition.MONITOR_VANISHED, detail, now, watched=False):
                return said
        if watch.silent_ns is not None and watch.ended_ns is None:
            silent_s = (now.steady_ns - watch.silent_ns) / NS_PER_S
            if silent_s > self.settings.images_timeout:
                detail = f"STALE, or waiting for images, for more than {self.settings.images_timeout:g} s"
                if said := self._notice(watch, Condition.IMAGES_SILENT, detail, now):
                    return said
        open_s = (now.steady_ns - watch.begun_ns) / NS_PER_S
        over_s = 0.0 if watch.ended_ns is None else (now.steady_ns - watch.ended_ns) / NS_PER_S
        if open_s > self.settings.episode_limit or over_s > self.settings.undecided_wait:
            unknown = watch.held or (watch.ended_by if watch.ended_unheard else "")
            why = f"; {unknown}" if unknown else ""
            return self._decide(Condition.OVERDUE.name, f"no rule acted for {open_s:.1f} s{why}", now)
        return []

    def _notice(
        self, watch: WatchedEpisode, condition: Condition, detail: str, now: Moment, *, watched: bool = True
    ) -> list[Command]:
        if condition.name in watch.fired:
            return []
        watch.fired.add(condition.name)
        return self._decide(condition.name, detail, now, watched=watched)

    def _excuse(self, stopped_ns: int, now: Moment) -> None:
        """A process that was stopped has heard nothing, which says nothing about the others."""
        if self._watch is not None:
            self._watch.excuse(stopped_ns, now.steady_ns)
        if self._try is not None and self._try.limit_ns is not None:
            self._try.limit_ns += stopped_ns

    # ---- decisions --------------------------------------------------------------------------------

    def _decide(self, reason: str, detail: str, now: Moment, *, watched: bool = True) -> list[Command]:
        """Ask the rule for ``reason``. ``watched``: whether the monitor may still watch the episode."""
        watch = self._watch
        assert watch is not None, "only what is watched is decided"
        rule = self.settings.rules[reason]
        heard = f"{reason} in episode '{watch.episode_id}': {printable(detail, 300)}"
        if rule.action is Action.NOTHING:
            return [Log(Level.INFO, f"{heard}: nothing is done")]
        action, used = self._counted(reason, rule)
        self.counts["acted on"] += 1
        abandoned = self._abandon()
        self._note(now, reason, action.value + used, detail)
        said: list[Command] = [*abandoned, Log(Level.INFO, f"{heard}: {self._would()}{action.value}{used}")]
        if action is Action.END:
            steps = [*self._calls("end"), Step(Kind.RELEASE), Step(Kind.AWAIT_END)]
            self._steps, self._try, self._pause_until_ns = deque(steps), None, None
            self.phase, self.message = Phase.ACTING, f"{reason}: end"
            watch.ending = True
            self._released = watch.episode_id if watched and watch.ended_ns is None else ""
            return [*said, *self._run(now)]
        ended = watch.ended_ns is not None
        episode_id = watch.episode_id
        self.stage = watch.stage if action is Action.RETRY else 0
        self._leave_episode()
        self._released = episode_id if watched and not ended else ""
        steps = [*self._calls("end"), Step(Kind.RELEASE), *self._after_end(action, reason, rule.delay_s)]
        return [*said, *self._take(steps, now)]

    def _counted(self, reason: str, rule: Rule) -> tuple[Action, str]:
        """What a rule comes to once retries are counted, and which of them it is."""
        if rule.action is not Action.RETRY:
            return rule.action, ""
        if self.retries[reason] >= rule.limit:
            return rule.then, f" (all {rule.limit} retries are used up)"
        self.retries[reason] += 1
        return rule.action, f" ({self.retries[reason]} of {rule.limit})"

    def _after_end(self, action: Action, reason: str, delay_s: float) -> list[Step]:
        """The steps from an episode that has ended to the next one, or to rest."""
        if action in (Action.NOTHING, Action.END):
            return [Step(Kind.REST, phase=Phase.STOPPED, why=f"ended by the rule for {reason}")]
        if action is Action.STOP:
            return self._halt(f"stopped by the rule for {reason}")
        if action is not Action.RETRY:
            self.retries.clear()
        resets = self._calls("reset")
        if action is Action.NEXT:
            self.task_index += 1
            if self.task_index >= len(self.settings.tasks):
                self.task_index = 0
                if not self.settings.repeat_tasks:
                    return [*resets, *self._halt("the list of tasks is over", Phase.DONE)]
        if self.settings.max_episodes and self.episodes >= self.settings.max_episodes:
            return [*resets, *self._halt(f"max_episodes = {self.settings.max_episodes}", Phase.DONE)]
        pause = [Step(Kind.PAUSE, ns=round(delay_s * NS_PER_S))] if delay_s else []
        return [*resets, *pause, Step(Kind.BEGIN)]

    def _halt(self, why: str, phase: Phase = Phase.STOPPED) -> list[Step]:
        return [*self._calls("stop"), Step(Kind.REST, phase=phase, why=why)]

    def _calls(self, purpose: str) -> list[Step]:
        calls = self.settings.calls.get(purpose, ())
        return [Step(Kind.CALL, purpose=purpose, index=k) for k in range(len(calls))]

    def _call_of(self, step: Step) -> Call:
        return self.settings.calls[step.purpose][step.index]

    def _unmade(self, purpose: str) -> list[Step]:
        """The calls under way of this purpose that were not sent so far."""
        was_sent = self._try is not None and self._try.limit_ns is not None
        return [
            step
            for place, step in enumerate(self._steps)
            if step.kind is Kind.CALL and step.purpose == purpose and not (was_sent and place == 0)
        ]

    def _share_until_ns(self, now: Moment) -> int | None:
        """Until when the call at hand may take: where the process ends, those that are left share it."""
        if self._ends_ns is None:
            return None
        left = sum(step.kind is Kind.CALL for step in self._steps)
        return now.steady_ns + max(_LEAST_SHARE_NS, (self._ends_ns - now.steady_ns) // left)

    def _leave_episode(self) -> None:
        """Watch it no more."""
        if self._watch is not None:
            self._past.append(self._watch.episode_id)
            self._missing |= dict.fromkeys(self._watch.missing(), self._watch.base)
            self._released = "" if self._watch.ended_ns is not None else self._watch.episode_id
        self._watch, self._asked, self._try, self._pause_until_ns = None, "", None, None
        self._hearing.is_anew = False

    def _abandon(self) -> list[Command]:
        """Say that a call which is under way is waited for no longer."""
        if self._try is None or self._try.limit_ns is None or self._steps[0].kind is not Kind.CALL:
            return []
        call = self.settings.calls[self._steps[0].purpose][self._steps[0].index]
        text = f"{call}: its answer was not waited for; whether it was done is not known"
        self._add_outcome(text)
        if self._ends_ns is not None:
            self._failed_at_end.append(text)
        return [Log(Level.WARNING, text)]

    def _note(self, now: Moment, reason: str, action: str, detail: str) -> None:
        self.history.append(
            Decision(
                now.stamp_ns,
                printable(self.episode_id, 300),
                printable(self.instruction, 300),
                printable(reason, 200),
                self._would() + action,
                printable(detail, 300),
            )
        )

    def _add_outcome(self, text: str) -> None:
        if self.history:
            newest = self.history[-1]
            newest.outcome = f"{newest.outcome}; {text}" if newest.outcome else text

    def _would(self) -> str:
        return "dry run, would " if self.settings.dry_run else ""

    # ---- steps ------------------------------------------------------------------------------------

    def _take(self, steps: list[Step], now: Moment) -> list[Command]:
        """Carry out ``steps`` from now on."""
        self._steps, self._try, self._pause_until_ns = deque(steps), None, None
        self.phase = Phase.ACTING
        self.message = f"{self.history[-1].reason}: {self.history[-1].action}" if self.history else "begins"
        return self._run(now)

    def _run(self, now: Moment) -> list[Command]:
        """Carry out steps until one has to wait."""
        said: list[Command] = []
        while self._steps and self._try is None:
            step = self._steps[0]
            if step.kind is Kind.CALL:
                said += self._run_call(step, now)
            elif step.kind is Kind.RELEASE:
                self._steps.popleft()
                if self._released and not self.settings.dry_run:
                    self._release_ns = now.steady_ns + _RELEASE_NS
                else:
                    self._released = ""
            elif step.kind is Kind.PAUSE:
                if self._pause_until_ns is None:
                    self._pause_until_ns = now.steady_ns + (0 if self.settings.dry_run else step.ns)
                    self.message = f"waits {step.ns / NS_PER_S:g} s before the next episode"
                    said.append(Save())
                if now.steady_ns < self._pause_until_ns:
                    break
                self._pause_until_ns = None
                self._steps.popleft()
            elif step.kind is Kind.AWAIT_END:
                if not self._has_ended(now):
                    break
                said += self._end_awaited(now)
            elif step.kind is Kind.BEGIN:
                said += self._run_begin(now)
                if self.settings.dry_run:
                    break
            else:
                self._steps.popleft()
                said += self._rest(step, now)
        return said

    def _run_call(self, step: Step, now: Moment) -> list[Command]:
        call = self._call_of(step)
        if self.settings.dry_run:
            self._steps.popleft()
            self._add_outcome(f"would call {call}")
            return [Log(Level.INFO, f"dry run: would call {call} to {step.purpose}")]
        self._try = Try(self._next_token(), 0, share_until_ns=self._share_until_ns(now))
        self._try.give_up_ns = self._wait_until_ns(self._try, call, now)
        self.message = f"calls {call} to {step.purpose}"
        return [MakeCall(self._try.token, step.purpose, call)]

    @staticmethod
    def _wait_until_ns(trying: Try, call: Call, now: Moment) -> int:
        """Until when a call that is not there is waited for."""
        wait_ns = now.steady_ns + round(call.wait_s * NS_PER_S)
        if trying.share_until_ns is None:
            return wait_ns
        return min(wait_ns, trying.share_until_ns, now.steady_ns + _ABSENT_AT_END_NS)

    def _call_answered(self, trying: Try, outcome: Outcome, message: str, now: Moment) -> list[Command]:
        step = self._steps[0]
        call = self._call_of(step)
        text = printable(message, 200)
        if outcome is Outcome.DONE:
            self._try = None
            self._steps.popleft()
            self._add_outcome(f"{call}: done")
            said = Log(Level.INFO, f"{call}: done{': ' + text if text else ''}")
            return [said, Save(), *self._run(now)]
        if outcome is Outcome.ABSENT and now.steady_ns < trying.give_up_ns:
            trying.again_ns, trying.limit_ns = now.steady_ns + _LOOK_AGAIN_NS, None
            self.message = f"{call} is not there yet"
            if trying.why:
                return []
            trying.why = "is not there"
            longest_s = (trying.give_up_ns - now.steady_ns) / NS_PER_S
            return [Log(Level.WARNING, f"{call} is not there: waiting up to {longest_s:.3g} s")]
        share_ns = trying.share_until_ns
        may_again = share_ns is None or now.steady_ns + _REFUSED_AGAIN_NS < share_ns
        if outcome is Outcome.REFUSED and trying.refusals < call.retries and may_again:
            trying.refusals += 1
            trying.again_ns, trying.limit_ns = now.steady_ns + _REFUSED_AGAIN_NS, None
            trying.give_up_ns = self._wait_until_ns(trying, call, now)
            self.message = f"{call} refused: {text}"
            again = f"{call} refused ('{text}'): retry {trying.refusals} of {call.retries}"
            return [Save(), Log(Level.WARNING, again)]
        missing = "is not there" if call.is_service else "has no subscriber"
        why = {
            Outcome.ABSENT: missing + (f", after {call.wait_s:g} s" if share_ns is None else ""),
            Outcome.REFUSED: f"refused ('{text}')",
            Outcome.WRONG_TYPE: text,
        }[outcome]
        return self._call_failed(call, why, now)

    def _call_failed(self, call: Call, why: str, now: Moment) -> list[Command]:
        """Go on without a call, or stop, as its 'else' says; a failure while stopping changes nothing."""
        step = self._steps.popleft()
        self._try = None
        self.counts["calls failed"] += 1
        self._add_outcome(f"{call}: {why}")
        text = f"{step.purpose}: {call} {why}"
        if self._ends_ns is not None:
            self._failed_at_end.append(f"{call}: {why}")
        if call.goes_on or step.purpose == "stop" or self._ends_ns is not None:
            return [Log(Level.ERROR, f"{text}; going on"), Save(), *self._run(now)]
        self.problem = text
        self._leave_episode()
        said = Log(Level.ERROR, f"{text}; stopping. Mend it and call ~/start, or write 'else go_on'")
        self._steps = deque([Step(Kind.RELEASE), *self._halt(text)])
        self.phase = Phase.ACTING
        return [said, *self._run(now)]

    def _look_at_try(self, trying: Try, now: Moment) -> list[Command]:
        """Try again when it is time, or give up on an answer."""
        step = self._steps[0]
        if trying.again_ns is not None:
            if now.steady_ns < trying.again_ns:
                return []
            if step.kind is Kind.BEGIN:
                return self._ask_for_task(trying, now)
            call = self._call_of(step)
            trying.again_ns = None
            return [MakeCall(trying.token, step.purpose, call)]
        if trying.limit_ns is None or now.steady_ns < trying.limit_ns:
            return []
        if step.kind is Kind.BEGIN:
            return self._task_unanswered(trying, now)
        call = self._call_of(step)
        for_s = f" for {call.timeout_s:g} s" if trying.share_until_ns is None else ""
        why = f"has not answered{for_s}; it may have been done, so it is not called again"
        return self._call_failed(call, why, now)

    # ---- beginning and ending episodes --------------------------------------------------------------

    def _run_begin(self, now: Moment) -> list[Command]:
        if self.settings.dry_run:
            if self.phase is Phase.BEGINNING:
                return []
            self.phase, self.message = Phase.BEGINNING, "dry run: waits for an episode that somebody begins"
            return [Log(Level.INFO, self.message)]
        self._release_ns, self._released = None, ""  # the new task ends it
        self.phase, self.message = Phase.BEGINNING, "gives the monitor a task"
        self._try = Try(self._next_token(), now.steady_ns + round(self.settings.monitor_wait * NS_PER_S))
        return [Save(), *self._ask_for_task(self._try, now)]

    def _ask_for_task(self, trying: Try, now: Moment) -> list[Command]:
        trying.again_ns = None
        trying.limit_ns = now.steady_ns + _TASK_ANSWER_NS
        if not self._asked:
            self._asked = self._new_name()
        self._asked_ns = now.steady_ns
        return [SetTask(trying.token, self.instruction, self._asked, self.stage)]

    def _task_answered(
        self, trying: Try, outcome: Outcome, message: str, episode_id: str, now: Moment
    ) -> list[Command]:
        if outcome is Outcome.DONE and episode_id:
            return self._begun(episode_id, now)
        text = printable(message, 300)
        why = {
            Outcome.ABSENT: "monitor/set_task is not there (does the monitor run, or still load its model?)",
            Outcome.WRONG_TYPE: text,
            Outcome.REFUSED: f"the monitor refuses the task: {text}",
            Outcome.DONE: f"the monitor took the task, but is idle: {text}",
        }[outcome]
        if outcome is Outcome.ABSENT:
            trying.limit_ns = None
            return self._task_again(trying, why, _LOOK_AGAIN_NS, now)
        self._asked, trying.limit_ns = "", None
        return self._task_again(trying, why, _TASK_AGAIN_NS, now)

    def _task_unanswered(self, trying: Try, now: Moment) -> list[Command]:
        """A task may be set again: the newest one is what the monitor watches."""
        self._asked = ""
        trying.token, trying.limit_ns = self._next_token(), None
        return self._task_again(trying, "the monitor does not answer", 0, now)

    def _task_again(self, trying: Try, why: str, pause_ns: int, now: Moment) -> list[Command]:
        if now.steady_ns < trying.give_up_ns:
            trying.again_ns = now.steady_ns + pause_ns
            self.message = why
            if why == trying.why:
                return []
            trying.why = why
            return [Log(Level.WARNING, f"{why}: trying for up to {self.settings.monitor_wait:g} s")]
        self.problem = f"{why}, for {self.settings.monitor_wait:g} s"
        self._try, self._asked = None, ""
        said = Log(Level.ERROR, f"{self.problem}; stopping. Call ~/start when the monitor is ready")
        return [said, *self._take(self._halt(self.problem), now)]

    def _begun(self, episode_id: str, now: Moment, instruction: str = "") -> list[Command]:
        """Watch the episode that the monitor has begun."""
        self._watch = WatchedEpisode(
            episode_id,
            now.steady_ns,
            self._asked_ns,
            episode_id=episode_id,
            instruction=instruction or self.instruction,
            stage=self.stage,
            reported_ns=now.steady_ns,
        )
        self._asked, self._try, self._hearing.is_anew, self.problem = "", None, False, ""
        self.episodes += 1
        self.phase, self.message = Phase.ACTING, "the episode begins"
        self._steps = deque([*self._calls("start"), Step(Kind.REST, phase=Phase.WATCHING)])
        said = Log(Level.INFO, f"episode '{episode_id}': watching '{self.instruction}'")
        return [said, Save(), *self._run(now)]

    def _has_ended(self, now: Moment) -> bool:
        """Whether the episode that was told to end has, or enough time for that has passed."""
        if self._end_until_ns is None:
            self._end_until_ns = now.steady_ns + round(self.settings.monitor_timeout * NS_PER_S)
        ended = self._watch is None or self._watch.ended_ns is not None or self.settings.dry_run
        return ended or now.steady_ns >= self._end_until_ns

    def _end_awaited(self, now: Moment) -> list[Command]:
        """The episode is over: the rule of EPISODE_ENDED says how it goes on."""
        self._end_until_ns = None
        reason = EventType.EPISODE_ENDED.name
        rule = self.settings.rules[reason]
        action, _ = self._counted(reason, rule)
        self.stage = self._watch.stage if self._watch is not None and action is Action.RETRY else 0
        if action is not Action.NOTHING:
            self._add_outcome(f"then {action.value}, by the rule for {reason}")
        self._leave_episode()
        self._released = ""
        self._steps = deque(self._after_end(action, reason, rule.delay_s))
        return [Save()]

    def _release(self, now: Moment) -> list[Command]:
        """End the decided episode at the monitor."""
        self._release_ns = None
        if not self._released:
            return []
        if self._watch is None:
            self._released = ""
        return [SetTask(-1, "", "")]

    def _rest(self, step: Step, now: Moment) -> list[Command]:
        if step.phase is Phase.WATCHING:
            ended = self._watch is not None and self._watch.ended_ns is not None
            self.phase = Phase.UNDECIDED if ended else Phase.WATCHING
            self.message = "watches the episode"
            return [Save()]
        if self.settings.dry_run:
            self._steps.append(Step(Kind.BEGIN))
            return [Log(Level.INFO, f"{step.why}; as this is a dry run, the next episode is followed")]
        self.phase, self.message = step.phase, step.why
        level = Level.ERROR if self.problem else Level.INFO
        return [Log(level, f"{step.why}; call ~/start to go on"), Save()]

    def _next_token(self) -> int:
        self._tokens += 1
        return self._tokens
