"""What `topreward watch` remembers of a monitor and how it shows it: plain data in, something to print out.

No ROS 2, no clock, no output here: nodes/watch.py fills the log and owns the screen. Times called ``now_s``
are of any steady clock in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from math import inf, isnan, nan
from statistics import median

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outputs import State
from topreward_ros.core.printable import printable
from topreward_ros.core.stages import numbered
from topreward_ros.scoring.base import RANDOM_WEIGHTS
from topreward_ros.views.messages import Description, Happening, Sample
from topreward_ros.views.score_names import ScoreNames, score_names
from topreward_ros.views.terminal import RANDOM_WARNING, number, shown

_EVENTS_SHOWN = 6
_LONGEST_TEXT = 200  # characters of an instruction or message in the picture
_RATE_SCORES = 10  # the score rate is that of the newest scores
_MOST_SCORES = 1000  # of a curve that are kept; several per column of any terminal
_LATENCIES = 1000  # the median latency is that of the newest scores
_CHART_ROWS = 6
_LOWEST_CHART = 2
_HIGHEST_CHART = 20
_NUMBER_ROWS = 3
_CHART_SPANS_S = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_WAITS_S = 10.0  # for which it holds that a monitor said that it waits
_MOST_SHOWN = 10.0  # progress is at most 1; what claims more than this is not shown in full
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STATE_STYLES = {
    State.RUNNING: "bold black on cyan",
    State.SUCCEEDED: "bold black on green",
    State.FAILED: "bold white on red",
    State.STALE: "bold black on yellow",
    State.STALLED: "bold black on yellow",
}
_EVENT_STYLES = {
    "SUCCESS": "bold green",
    "SUBTASK_SUCCESS": "green",
    "FAILURE": "bold red",
    "EPISODE_STARTED": "cyan",
    "EPISODE_ENDED": "cyan",
}


@dataclass(slots=True)
class WatchLog:
    """What has arrived: the newest message, the scores of the present episode, the newest events."""

    topic: str  #: as resolved
    title: str = "topreward watch"
    waiting: str = "waiting for the first message ..."
    caption: str = ""  #: what a viewer is to look at; empty: nothing in particular
    #: id of the episode before, whose messages are ignored: heartbeats repeat its last state
    previous_episode_id: str = ""
    model: str = ""  #: from the monitor's info; empty before it came
    random_weights: bool = False
    answers: str = ""  #: of the model, as in `ScorerInfo`
    warnings: tuple[str, ...] = ()  #: what is wrong with what arrives
    advice: tuple[str, ...] = ()  #: what to check, while nothing arrives
    waits: str = ""  #: why the monitor has no scorer yet, see `add_waiting`
    newest: Sample | None = None
    #: of the present episode, in order: the first, the newest, and of the others every 2^n-th, see `_keep`
    scores: list[Sample] = field(default_factory=list)
    score_count: int = 0  #: of all episodes
    message_before: str = ""  #: of the score before the newest one; empty at the first of an episode
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    events: deque[Happening] = field(default_factory=lambda: deque(maxlen=100))
    last_arrival_s: float | None = None
    _waits_until_s: float = inf  # what a monitor that died waited for does not count any more
    _start_ns: int = 0  # stamp of the first frame of an episode
    _start_of: str | None = None  # that episode's id; None: no first frame was heard of
    _stride: int = 1  # of the scores that are kept
    _number: int = -1  # of the newest score in its episode, from 0
    _score_times_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_SCORES))

    def successor(self, caption: str, waiting: str) -> WatchLog:
        """An empty log for the next episode of the same monitor."""
        previous = self.newest.episode_id if self.newest else self.previous_episode_id
        return WatchLog(
            topic=self.topic,
            title=self.title,
            waiting=waiting,
            caption=caption,
            previous_episode_id=previous,
            model=self.model,
            random_weights=self.random_weights,
            answers=self.answers,
            warnings=self.warnings,
        )

    def add_progress(self, sample: Sample, now_s: float) -> bool:
        """Take a message; True when it carries a new score, False for a heartbeat or a change of state."""
        if self.previous_episode_id and sample.episode_id == self.previous_episode_id:
            return False
        self.last_arrival_s = now_s
        self.advice = ()
        before, self.newest = self.newest, sample
        if before is None or sample.episode_id != before.episode_id:
            self.scores.clear()
            self._stride, self._number = 1, -1
            self._score_times_s.clear()
        is_score = sample.num_frames > 0 and (not self.scores or sample.stamp_ns != self.scores[-1].stamp_ns)
        if is_score:
            self.message_before = self.scores[-1].message if self.scores else ""
            self._start_ns = sample.stamp_ns - round(sample.elapsed_s * NS_PER_S)
            self._start_of = sample.episode_id
            self._keep(sample)
            self.score_count += 1
            if not isnan(sample.latency_s):  # while the clock of the stamps does not run
                self.latencies_s.append(sample.latency_s)
            self._score_times_s.append(now_s)
        return is_score

    def add_waiting(self, why: str, now_s: float) -> bool:
        """Take why the monitor has no scorer yet, which it repeats; empty: it has one. True where it is news
        that it waits."""
        is_news = bool(why) and not self.waits_now(now_s)
        self.waits, self._waits_until_s = why, now_s + _WAITS_S
        if why:
            self.advice = ()
        return is_news

    def waits_now(self, now_s: float) -> str:
        """Why the monitor has no scorer; empty where it has one, or has not said so for a while."""
        return self.waits if now_s < self._waits_until_s else ""

    def _keep(self, score: Sample) -> None:
        """Add a score to the curve; a curve that gets too long is thinned to every second score."""
        if self._number % self._stride:  # the score before was kept only because it was the newest
            self.scores.pop()
        self.scores.append(score)
        self._number += 1
        if len(self.scores) > _MOST_SCORES:
            del self.scores[1:-1:2]
            self._stride *= 2

    def add_event(self, event: Happening) -> bool:
        """Take an event; False for one of the episode before, which is ignored."""
        if self.previous_episode_id and event.episode_id == self.previous_episode_id:
            return False
        if event.type == "EPISODE_STARTED":
            self._start_ns, self._start_of = event.stamp_ns, event.episode_id
        self.events.append(event)
        return True

    def add_description(self, description: Description) -> None:
        """Take what the monitor says of its model."""
        self.random_weights = description.random_weights
        self.answers = description.answers
        self.model = ", ".join([description.model_id, description.device, description.dtype])

    @property
    def names(self) -> ScoreNames:
        """What the scores are called."""
        return score_names(self.answers)

    def event_time_s(self, event: Happening) -> float:
        """When it happened, in seconds since its episode began; NaN where it had no frame by then."""
        if event.episode_id != self._start_of or event.stamp_ns <= 0:
            return nan
        return (event.stamp_ns - self._start_ns) / NS_PER_S

    def score_rate(self) -> float:
        """Rate of the newest scores [Hz]; NaN before there are two at different times."""
        times = self._score_times_s
        span_s = times[-1] - times[0] if times else 0.0
        return (len(times) - 1) / span_s if span_s > 0.0 else float("nan")

    def median_latency_s(self) -> float:
        """Median latency of the newest scores [s]; NaN before the first."""
        return median(self.latencies_s) if self.latencies_s else float("nan")

    def silence_s(self, now_s: float, since_s: float) -> float:
        """Time since the last message, or since ``since_s`` when there was none."""
        return now_s - (since_s if self.last_arrival_s is None else self.last_arrival_s)


def sample_line(sample: Sample, answers: str = "", message_before: str = "") -> str:
    """A score as one line, for where there is no terminal; ``answers`` of the model, as in `ScorerInfo`.

    A message that is the ``message_before`` is not repeated, but that weights are random is.
    """
    note = f"  ({_news(printable(sample.message), printable(message_before))})" if sample.message else ""
    note = f"  stage {sample.stage} of {sample.stages}{note}" if sample.stages > 1 else note
    names = score_names(answers)
    said = (
        f"{names.short} {number(sample.log_prob)} nat, first frame held {number(sample.log_prob_static)} nat"
    )
    if answer := names.on_own_scale(sample.log_prob):
        said = f"answer {answer}, {said}"
    if sample.states_success:
        said = f"probability of success {number(sample.success_probability)}"
    return (
        f"{sample.elapsed_s:8.2f} s  {sample.state_name:<9}  progress {number(sample.progress)}  {said}  "
        f"frames {sample.num_frames}  latency {number(sample.latency_s)} s{note}"
    )


def _news(message: str, before: str) -> str:
    if message != before or message == RANDOM_WEIGHTS:
        return message
    return f"{RANDOM_WEIGHTS}; as before" if message.startswith(RANDOM_WEIGHTS) else "as before"


def why_no_score(log: WatchLog) -> str:
    """What the monitor says in place of a score, as the end of a sentence; empty where it says nothing."""
    if log.newest is None:
        return ""
    return printable(": ".join(filter(None, (f"; it says {log.newest.state_name}", log.newest.message))))


def event_line(log: WatchLog, event: Happening) -> str:
    """An event as one line."""
    time_s = log.event_time_s(event)
    when = f"{'-':>8}  " if isnan(time_s) else f"{time_s:8.2f} s"
    return f"{when}  {printable(event.type)}: {printable(event.message)}"


def description_line(description: Description) -> str:
    """Where the numbers come from, as one line."""
    model = ", ".join([description.model_id, description.device, description.dtype])
    note = f" ({RANDOM_WEIGHTS})" if description.random_weights else ""
    return printable(f"model {model}{note}, cameras {', '.join(description.camera_names)}")


def view(log: WatchLog, now_s: float, width: int, height: int | None = None) -> RenderableType:
    """The whole picture, ``width`` columns wide.

    With ``height`` it takes that many rows at most. The curve grows where there is room; where there is too
    little, the older events are left out first, then the ends of long texts, then the curve, then the
    numbers. While there is no curve, its rows are left out before all that. Task, state, bar, the beginnings
    of texts and the newest event always stay.
    """
    inner = max(width - 4, 30)
    plan = _RowPlan(min(len(log.events), _EVENTS_SHOWN))
    picture = _picture(log, now_s, width, plan)
    if height is None:
        return picture
    spare = height - _rows(picture, width)
    if spare < 0:
        plan = _tight(log, now_s, inner, height)
    elif log.newest is not None:
        plan = replace(plan, chart=min(_CHART_ROWS + spare, _HIGHEST_CHART))
    return _picture(log, now_s, width, plan)


@dataclass(frozen=True, slots=True)
class _RowPlan:
    """How many rows each part of the picture gets."""

    events: int
    chart: int = _CHART_ROWS  #: without its axis; 0: no chart
    numbers: int = _NUMBER_ROWS
    gaps: bool = True  #: empty rows between the parts
    brief: bool = False  #: a task takes two rows at most, the text of an event one
    text: int | None = None  #: rows that any other text takes at most
    height: int | None = None  #: of the whole picture, which stays so while its parts change


def _tight(log: WatchLog, now_s: float, inner: int, height: int) -> _RowPlan:
    """Give the few rows that there are to the most important parts first."""
    plan = _RowPlan(events=min(len(log.events), 1), chart=0, numbers=0, gaps=False, brief=True, text=1)
    room = height - _rows(_picture(log, now_s, inner + 4, plan), inner + 4)
    if room < 0:
        return plan
    is_curve = any(not isnan(score.progress) for score in log.scores)
    if log.newest is not None:
        plan = replace(plan, numbers=min(room, _NUMBER_ROWS), height=height)
        room -= plan.numbers
        if is_curve:
            plan, room = _with_chart(plan, room)
    plan, room = _with_texts(plan, room, _texts(log, now_s), inner)
    gaps = replace(plan, gaps=True)
    needed = sum(isinstance(part, _Gap) for part in _parts(log, now_s, inner, gaps))
    if room >= needed:
        plan, room = gaps, room - needed
    older = min(room, min(len(log.events), _EVENTS_SHOWN) - plan.events)
    plan, room = replace(plan, events=plan.events + older), room - older
    if log.newest is not None and not is_curve:
        plan, room = _with_chart(plan, room - plan.gaps)
    return plan


def _with_chart(plan: _RowPlan, room: int) -> tuple[_RowPlan, int]:
    """A chart, where the ``room`` is enough for one; and the room that is left."""
    if room <= _LOWEST_CHART:  # one row is for the axis
        return plan, room
    plan = replace(plan, chart=min(room - 1, _CHART_ROWS))
    return plan, room - plan.chart - 1


def _with_texts(plan: _RowPlan, room: int, texts: Sequence[Text], width: int) -> tuple[_RowPlan, int]:
    """As many rows for each of ``texts``, which have one, as the ``room`` is enough for; and what is left."""
    lengths = [len(_wrapped(text, width)) for text in texts]
    for most in range(2, max(lengths, default=1) + 1):
        longer = sum(length >= most for length in lengths)
        if longer > room:
            break
        plan, room = replace(plan, text=most), room - longer
    return plan, room


def _rows(picture: RenderableType, width: int) -> int:
    console = Console(width=width, file=StringIO(), force_terminal=True)
    return len(console.render_lines(picture, pad=False))


class _Gap(Text):
    """An empty row between two parts."""


def _picture(log: WatchLog, now_s: float, width: int, plan: _RowPlan) -> RenderableType:
    sample = log.newest
    episode = f"episode {printable(sample.episode_id, _LONGEST_TEXT)}" if sample and sample.episode_id else ""
    model = f"model {printable(log.model, _LONGEST_TEXT)}" if log.model else ""
    return Panel(
        Group(*_parts(log, now_s, max(width - 4, 30), plan)),
        title=shown(f"{log.title}  {log.topic}", style="bold"), title_align="left",
        subtitle=shown("  ".join(filter(None, [episode, model])), style="dim"), subtitle_align="right",
        box=box.ROUNDED, border_style="blue", width=width, height=plan.height,
    )  # fmt: skip


def _parts(log: WatchLog, now_s: float, inner: int, plan: _RowPlan) -> list[RenderableType]:
    """The parts of the picture from top to bottom."""
    sample = log.newest
    groups: list[list[RenderableType]] = []
    if log.caption:
        groups.append([_cut(_caption(log), inner, plan.text)])
    if sample is None:
        groups.append([shown(log.waiting, style="dim")])
    else:
        groups += [[_headline(sample, inner, plan.brief)], [_bar(sample.progress, inner)]]
        if plan.chart:
            groups.append([_chart(log.scores, inner, plan.chart)])
        if plan.numbers:
            groups.append([_numbers(log, sample, now_s, plan.numbers)])
    random = [Text(RANDOM_WARNING, style="bold red")] if _is_random(log) else []
    groups.append([*random, *(_cut(note, inner, plan.text) for note in _notes(log, now_s))])
    if plan.events:
        groups.append([_events(log, plan)])
    parts: list[RenderableType] = []
    for group in filter(None, groups):
        parts += [_Gap(), *group] if parts and plan.gaps else group
    return parts


def _headline(sample: Sample, width: int, brief: bool) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(ratio=1, overflow="fold")
    line.add_column(justify="right", no_wrap=True)
    name = numbered(sample.instruction, sample.stage, sample.stages)
    task = shown(name, _LONGEST_TEXT, "bold") if sample.instruction else Text("no task", "dim")
    state = f" {sample.state_name}"
    if brief:
        task = _cut(task, width - len(state), 2)
    line.add_row(task, Text(sample.state_name, style=_state_style(sample.state)))
    return line


def _state_style(state: State | int) -> str:
    return _STATE_STYLES.get(state, "reverse") if isinstance(state, State) else "bold white on magenta"


def _wrapped(text: Text, width: int) -> list[Text]:
    """The rows of ``text``."""
    return list(text.wrap(Console(width=width, file=StringIO()), width, overflow="fold"))


def _cut(text: Text, width: int, most: int | None) -> Text:
    """As much of ``text`` as ``most`` rows hold; None: all of it."""
    rows = _wrapped(text, width)
    if most is None or len(rows) <= most:
        return text
    rows[most - 1] = Text(" ").join(rows[most - 1 :])
    rows[most - 1].truncate(width, overflow="ellipsis")
    return Text("\n").join(rows[:most])


def _bar(progress: float, width: int) -> Text:
    percent = "     -" if isnan(progress) else f" {_percent(progress)} %"
    cells = width - len(percent)
    eighths = round(_in_range(progress) * cells * 8)
    filled = "█" * (eighths // 8) + (_partial(eighths % 8) if eighths % 8 else "")
    return Text.assemble((filled, "green"), ("░" * (cells - len(filled)), "bright_black"), (percent, "bold"))


def _percent(progress: float) -> str:
    if abs(progress) < _MOST_SHOWN:
        return f"{100 * progress:3.0f}"
    return f"{'>' if progress > 0 else '< -'}{100 * _MOST_SHOWN:.0f}"


def _in_range(progress: float) -> float:
    """Progress as it can be drawn: 0 for NaN, which others draw nothing for."""
    return 0.0 if isnan(progress) else min(max(progress, 0.0), 1.0)


def _partial(eighths: int) -> str:
    """A cell that is filled from the left by 1 to 7 eighths."""
    return "▏▎▍▌▋▊▉"[eighths - 1]


def _chart(scores: Sequence[Sample], width: int, height: int) -> RenderableType:
    """Progress over the time of the episode, which grows to the right until the axis is made longer.

    ``height`` rows and one for the axis.
    """
    columns = width - 4
    elapsed_s = scores[-1].elapsed_s if scores else 0.0
    span_s = next((span for span in _CHART_SPANS_S if span >= elapsed_s), elapsed_s)
    # A progress of 0 is a line at the bottom, so that it differs from none at all.
    values = _resample(scores, span_s, columns)
    levels = [0 if isnan(value) else max(round(_in_range(value) * height * 8), 1) for value in values]
    rows = []
    for row in range(height):
        label = {0: "1.0 ", height - 1: "0.0 "}.get(row, "    ")
        floor = 8 * (height - 1 - row)
        cells = "".join(_BLOCKS[min(max(level - floor, 0), 8)] for level in levels)
        rows.append(Text.assemble((label, "dim"), (cells, "cyan")))
    end = f"{span_s:g} s"
    rows.append(Text("    0 s" + end.rjust(columns - 3), style="dim"))
    return Group(*rows)


def _resample(scores: Sequence[Sample], span_s: float, columns: int) -> list[float]:
    """Per column the progress as of its time, or NaN; nothing beyond the newest score."""
    values: list[float] = []
    newest, index = float("nan"), 0
    for column in range(columns):
        if not scores or column * span_s / columns > scores[-1].elapsed_s:
            break
        while index < len(scores) and scores[index].elapsed_s < (column + 1) * span_s / columns:
            newest = scores[index].progress
            index += 1
        values.append(newest)
    return values


def _numbers(log: WatchLog, sample: Sample, now_s: float, rows: int) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for style in ("dim", "", "dim", "", "dim", ""):
        table.add_column(style=style, no_wrap=True)
    latency = log.scores[-1].latency_s if log.scores else float("nan")
    stated = sample.success_probability
    answer = log.names.on_own_scale(sample.log_prob)
    cells = (
        (
            log.names.log_prob, number(sample.log_prob, 3, "nat"),
            "elapsed", number(sample.elapsed_s, 1, "s") if log.scores else "-",
            "latency", f"{number(latency, 2, 's')}, median {number(log.median_latency_s(), 2)}",
        ),
        (
            *(("answer", answer) if answer
              else (log.names.log_prob_false, number(sample.log_prob_false, 3, "nat"))),
            "frames", str(sample.num_frames),
            "scores", f"{log.score_count}, {number(log.score_rate(), 1)} per s",
        ),
        (
            "first frame", number(sample.log_prob_static, 3, "nat"),
            *(("success", f"p = {number(stated)}") if sample.states_success else ("", "")),
            "message", f"{log.silence_s(now_s, now_s):.1f} s ago",
        ),
    )  # fmt: skip
    for row in cells[:rows]:
        table.add_row(*row)
    return table


def _is_random(log: WatchLog) -> bool:
    return log.random_weights or (log.newest is not None and RANDOM_WEIGHTS in log.newest.message)


def _caption(log: WatchLog) -> Text:
    return shown(log.caption, style="italic")


def _notes(log: WatchLog, now_s: float) -> list[Text]:
    """What a reader of the numbers must see beside them."""
    message = log.newest.message if log.newest else ""
    if _is_random(log):  # said already
        message = message.removeprefix(RANDOM_WEIGHTS).removeprefix("; ")
    others = filter(None, (message, log.waits_now(now_s)))
    return [shown(line, style="yellow") for line in (*others, *log.warnings, *log.advice)]


def _texts(log: WatchLog, now_s: float) -> list[Text]:
    """All that may take more than one row, but for the task and the events."""
    return [*([_caption(log)] if log.caption else []), *_notes(log, now_s)]


def _events(log: WatchLog, plan: _RowPlan) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    for event in list(log.events)[-plan.events :]:
        at_hand = log.newest is None or event.episode_id == log.newest.episode_id
        text = shown(event.message, _LONGEST_TEXT)
        if plan.brief:
            text.no_wrap, text.overflow = True, "ellipsis"
        table.add_row(
            number(log.event_time_s(event), 1, "s") if at_hand else "before",
            shown(event.type, style=_EVENT_STYLES.get(event.type, "bold yellow")),
            text,
        )
    return table
