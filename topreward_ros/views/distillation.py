"""What a distillation shows: how far it is, the student beside its teacher, and the model card."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from topreward_ros.core.evaluation import ALL, DECISIONS, KINDS, Measure, Mode
from topreward_ros.core.printable import printable
from topreward_ros.offline.distill.distill import Distilled
from topreward_ros.offline.distill.films import RATE
from topreward_ros.offline.distill.learner import CHECK_EVERY
from topreward_ros.offline.distill.sizes import FRAMES, Timed
from topreward_ros.offline.distill.training_run import OnStep, Row
from topreward_ros.offline.distill.verdict import verdict
from topreward_ros.scoring.base import EMBEDDED
from topreward_ros.views.evaluation_tables import (
    NOTHING,
    Table,
    escaped,
    markdown_of,
    value_text,
    with_interval,
)
from topreward_ros.views.terminal import film_progress, number

_LOG_PROB = str(Mode.LOG_PROB)
_ROWS = (
    (_LOG_PROB, "auc"), (_LOG_PROB, "voc_success"), (_LOG_PROB, "voc_failure"), (_LOG_PROB, "voc_unknown"),
    (_LOG_PROB, "static_voc"), (_LOG_PROB, "static_range"), (DECISIONS, "recall"), (DECISIONS, "precision"),
    (DECISIONS, "false_alarms"), (DECISIONS, "delay_median"),
)  # fmt: skip
_BY_TASK = 30  # instructions of which each has a row of its own
_QUOTED = 100  # characters of an instruction
_TOLD = 10  # times that a training is told of, where no bar is drawn


class Bars:
    """What is going on, on ``console``: see `distill.Watcher`. Sentences go to ``say``."""

    def __init__(self, console: Console, say: Callable[[str], None]) -> None:
        self._console, self._say = console, say

    def say(self, text: str) -> None:
        """See `Watcher`."""
        self._say(text)

    @contextmanager
    def scoring(self, what: str) -> Iterator[Callable[[int], Callable[[float], None]]]:
        """See `Watcher`."""
        if not self._console.is_terminal:
            self._say(f"scoring: {what}")
        with film_progress(self._console) as on_start:
            yield on_start

    @contextmanager
    def reading(self, films: int) -> Iterator[Callable[[], None]]:
        """See `Watcher`."""
        with self._bar("reading films") as bar:
            task = bar.add_task("", total=films, said="")
            yield lambda: bar.advance(task)

    @contextmanager
    def timing(self) -> Iterator[Callable[[Timed], None]]:
        """See `Watcher`."""

        def on_timed(timed: Timed) -> None:
            self._say(
                f"size '{timed.candidate.name}': {timed.milliseconds:.1f} ms of one CPU thread for a tick, "
                "with drawn weights"
            )

        with self._console.status("timing sizes of students"):
            yield on_timed

    @contextmanager
    def learning(self, minutes: float) -> Iterator[OnStep]:
        """See `Watcher`."""
        with self._bar("learning") as bar:
            task = bar.add_task("", total=None, said="")

            def on_step(done: int, steps: int, rows: list[Row]) -> None:
                last = rows[-50:]
                said = f"loss {sum(row['loss'] for row in last) / len(last):.3f}" if last else ""
                bar.update(task, completed=done, total=steps, said=said)
                if done == 0:
                    self._say(f"learning: {steps} steps, {minutes:g} minutes at most")
                elif not self._console.is_terminal and done * _TOLD // steps > (done - 1) * _TOLD // steps:
                    self._say(f"learning: {done} of {steps} steps, {said}")

            yield on_step

    def _bar(self, title: str) -> Progress:
        columns = (
            TextColumn(title), BarColumn(bar_width=30), MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        return Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )


def comparison(
    measures: Mapping[str, Sequence[Measure]], tasks: Sequence[str], films: int, *, short: bool = False
) -> Table:
    """The student beside its teacher on so many ``films``: of all ``tasks``, then of each.

    ``measures``: of "student" and "teacher", and of others that are to stand beside them.
    """
    sides = [_by_key(it) for it in measures.values()]
    text = value_text if short else with_interval
    rows = []
    pooled = ", all tasks pooled" if len(tasks) > 1 else ""
    wanted = [(ALL, mode, name, KINDS[name].label + pooled * (name == "auc")) for mode, name in _ROWS]
    if 1 < len(tasks) <= _BY_TASK:
        wanted += [(task, _LOG_PROB, "auc", f"ROC-AUC, {printable(task, _QUOTED)}") for task in tasks]
    for scope, mode, name, label in wanted:
        found = [side.get((scope, mode, name)) for side in sides]
        if any(found):
            rows.append((label, *(NOTHING if it is None else text(it) for it in found)))
    return Table(
        "Student and teacher",
        f"On {films} film{'s' * (films != 1)} that were held out, by log p as the monitor gives it.",
        ("what", *measures),
        tuple(rows),
    )


def _by_key(measures: Sequence[Measure]) -> Mapping[tuple[str, str, str], Measure]:
    return {(it.scope, str(it.mode), it.name): it for it in measures}


def verdict_text(distilled: Distilled) -> str:
    """Whether the student is any good as a judge yet, what could make it one, and how sure that is."""
    choice = distilled.choice
    found = verdict(distilled.measures["student"], distilled.measures["teacher"], distilled.held_out)
    sentences = []
    if distilled.learned.best_step == 0:
        began_as = f"the weights of {choice.source}" if choice.goes_on else "drawn weights"
        sentences.append(
            "nothing was learnt: no step made it better on the films that were held out, and it has "
            f"{began_as} still; give it more films or time (--minutes), or another --seed"
        )
    if found.faults:
        mends = ["give it more films or time (--minutes)"]
        if choice.mend:
            mends.append(f"{choice.mend}, for the embedded model's weights to start from")
        mends.append("look whether its teacher is right about these films")
        sentences.append(
            f"this student is no good judge yet: {'; '.join(found.faults)}; {', or '.join(mends)}"
        )
    elif not found.too_few:
        sentences.append(
            "no rule speaks against this student on the films that were held out (ROC-AUC beside its "
            "teacher's and of each task, a picture that stands still, SUCCESS on successes)"
        )
    if found.too_few:
        sentences.append(found.too_few)
    return " ".join(map(_sentence, sentences))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def card(distilled: Distilled, command: str, seconds: float) -> str:
    """README.md of the student's folder. ``command``: as it was typed; ``seconds`` that the run took."""
    it, about = distilled, distilled.machine
    tasks = "\n".join(f"- {escaped(printable(task, 2000))}" for task in it.instructions.own)
    learned, recipe = it.learned, it.recipe
    again = (
        "gives the same weights on the same machine, if there is time for all of them"
        if not learned.by_clock
        else "gives other weights: steps took longer here than planned, so that the learning rate fell with "
        "the clock; with more `--minutes` it falls with the steps"
    )
    candidate = it.choice.candidate
    timings = ", ".join(f"'{one.candidate.name}' {one.milliseconds:.1f} ms" for one in it.choice.timings)
    of_timings = (
        f"for a budget of {it.order.budget_ms:g} ms of one CPU thread (before the training, with drawn "
        f"weights, a tick took: {timings})"
        if timings
        else "as `--size` named it"
    )
    above = (
        f": above the budget of {it.order.budget_ms:g} ms, which its shape kept before" * bool(timings)
        if it.tick_ms > it.order.budget_ms
        else ""
    )
    start = it.order.start.given
    started = f" --start-from {shlex.quote(printable(start, 1000))}" if start != EMBEDDED else ""
    doubt = f" **{escaped(_sentence(it.order.start.doubt))}**" if it.order.start.doubt else ""
    notes = "".join(f"\n- {escaped(printable(note, 500))}" for note in it.notes[:20])
    left_out = f"\n\nLeft out:\n{notes}" if notes else ""
    return f"""---
pipeline_tag: video-text-to-text
tags: [robotics, reward-model, topreward, qwen3_vl]
---

# A student of {escaped(printable(it.teacher, 200))}

A small model that `topreward distill` made: {it.written.parameters / 1e6:.2f} million parameters that answer
the one question "does this video complete the task?" as the teacher does, for the tasks below, as the films
that it learnt from show them. A tick with {FRAMES} frames took {it.tick_ms:.1f} ms of one thread of
{about["processor"]}, with its weights, after the training{above}.

**What it must not be used for:** anything that those films do not show. In front of another scene, another
camera or place of the camera, another robot, or asked for another task or in other words, its numbers mean
nothing, however sure they look, nor do they in an episode of more than {it.longest_s:.0f} s, as the longest
film. It repeats the errors of its teacher and of the labels. It is never a safety function. Judge it on films
of your own that had no part in this (`topreward evaluate`), and calibrate the threshold of each task
(`topreward calibrate`) before anything depends on it.

**Verdict, by rule:** {escaped(verdict_text(it))}

## What it understands

These instructions, in these words; capital letters and a full stop do not matter:

{tasks}

{markdown_of(comparison(it.measures, it.instructions.own, len(it.held_out)))}
It learnt to state log p(" True") = -3.9 nat x (1 - progress); its teacher may have had another scale, and
with it other thresholds. One film in five, rounded up, of each task and outcome was held out. These films
also told which weights to keep, so the student's numbers are a little kind.{doubt}

## How it was made

    {printable(command, 2000)}

- Data: {it.films} films with {it.frames} frames to learn from, read at {RATE:g} Hz so that it meets frames
  between those that a monitor samples; {len(it.held_out)} held out.
- Size: '{candidate.name}', with {candidate.frame_pixels} pixels of a frame at most,
  {of_timings}.
- Start: {it.choice.start}.
- Training: {learned.steps} steps of {recipe.steps}; the weights after step {learned.best_step}
  were the best on the films that were held out (distance {learned.loss:.3f} nat, {learned.first_loss:.3f}
  before the first step, looked at every {CHECK_EVERY} steps); it ended because {learned.why}. Seed
  {recipe.seed}, {recipe.threads} thread{"s" * (recipe.threads != 1)}, {recipe.precision}, on {recipe.device}.
- No licence is stated here: what binds the data, the teacher's answers and the weights that it went on from
  binds this model.
- Half of the films and more are told otherwise than they were: backwards, still, given up, undone, finished
  before anybody looked, cut to another one; with bad starts, blackouts, frozen pictures, drifting light, a
  camera that trembles or is turned a little; and one question in four is for another task.
- {_took(it, seconds)}, on {about["processor"]}, {about["cores"]} cores, load
  {about["load_average"]}, torch {it.versions["torch"]}, {about["date"]}. On a CPU the same data with
  `--seed {recipe.seed} --size '{candidate.name}' --steps {recipe.steps}{started}`
  {again}.{left_out}

| what | SHA-256 |
|---|---|
| model.safetensors | `{it.written.sha256}` |
| films, labels and the teacher's curves | `{it.data_sha256}` |
"""


def _took(distilled: Distilled, seconds: float) -> str:
    """How long it took; where a run went on from what others had kept, their time is not known."""
    learned, films = distilled.learned, distilled.kept_films
    kept = [f"the scores of {films} film{'s' * (films != 1)}"] * bool(films)
    if learned.kept_steps:
        kept.append(f"{learned.kept_steps} of the {learned.steps} steps")
    if not kept:
        return f"It took {_duration(seconds)} in all"
    return (
        f"The last run took {_duration(seconds)}. It went on from {' and '.join(kept)} that earlier runs had "
        "kept, whose time is not counted; it ran"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{number(seconds, 0)} seconds"
