"""A teacher's judgement of somebody's tasks, distilled into a small model that runs on a robot's own CPU.

    labelled episodes -> the teacher's curves -> films and targets -> steps -> a folder that `model:=` takes

The order here is: everything that can be wrong with the data is said before the student is trained; nothing
stands under the output's name before all of it is written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer

from topreward_ros.core.counted import counted
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation import EvaluatedEpisode, Measure, Mode, evaluate
from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.core.output_files import kept_folder, temporary_folder
from topreward_ros.core.printable import printable
from topreward_ros.offline.distill.films import Film, read_films
from topreward_ros.offline.distill.learner import (
    AVERAGED,
    STEPS,
    Learned,
    Recipe,
    learn,
    steps_for,
)
from topreward_ros.offline.distill.model_folder import Written, write_model
from topreward_ros.offline.distill.network import (
    Stream,
    draw_weights,
    make_config,
    make_tokenizer,
)
from topreward_ros.offline.distill.pupil import Pupil
from topreward_ros.offline.distill.sizes import (
    CANDIDATES,
    Candidate,
    Choice,
    Timed,
    chosen,
    tick_milliseconds,
    timed,
    warm_start,
)
from topreward_ros.offline.distill.start import Start
from topreward_ros.offline.distill.steps import (
    Instructions,
    Lesson,
    Steps,
    held_out_batches,
    instructions_for,
)
from topreward_ros.offline.distill.targets import TargetError, baselines, check_targets, footage
from topreward_ros.offline.distill.teacher import read_curves, teacher_name
from topreward_ros.offline.distill.training_run import OnStep, Run
from topreward_ros.offline.engine_bench import machine
from topreward_ros.offline.evaluation_runs import EvaluationSettings, score_episodes
from topreward_ros.offline.job_processes import OnNote
from topreward_ros.offline.label_checks import by_task, class_problems, generic_task_problem
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.workers import HERE, Workers
from topreward_ros.scoring.base import RANDOM_WEIGHTS, ScorerInfo
from topreward_ros.scoring.checkpoint.vocabulary import task_warnings
from topreward_ros.scoring.registry import load_scorer

FEWEST_FILMS, FEWEST_FRAMES = 8, 120  #: in all
MOST_INSTRUCTIONS = 1000
_HELD_OUT = 5  # one film of so many is held out
_SHOWN = 3  # names in a sentence


class DistillError(UserError):
    """A student cannot be made of these data."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for."""

    scoring: EvaluationSettings  #: how the teacher and then the student are asked
    curves: tuple[Path, ...]  #: files of the teacher's curves; none: its model is asked
    budget_ms: float  #: of a tick of the student
    minutes: float  #: for the training
    start: Start  #: what it goes on from
    steps: int = 0  #: of the training, at most; 0: as many as there is time for
    seed: int = 0
    size: str = ""  #: name of a candidate; empty: the largest within the budget
    device: str = "cpu"  #: of the training
    workers: Workers = HERE  #: who asks the teacher


class Watcher(Protocol):
    """Who is told how far a distillation is."""

    def say(self, text: str) -> None:
        """A sentence for the user."""

    def scoring(self, what: str) -> AbstractContextManager[Callable[[int], Callable[[float], None]]]:
        """While films are scored: gives the ``on_start`` of `score_episodes`."""

    def reading(self, films: int) -> AbstractContextManager[Callable[[], None]]:
        """While films are read: gives what is called after each."""

    def timing(self) -> AbstractContextManager[Callable[[Timed], None]]:
        """While shapes are timed: gives what is told of each."""

    def learning(self, minutes: float) -> AbstractContextManager[OnStep]:
        """While the student learns."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """What the card tells."""

    order: Order
    teacher: str
    instructions: Instructions
    choice: Choice  #: of its size
    tick_ms: float  #: of the student, as it is
    written: Written
    recipe: Recipe
    learned: Learned
    kept_films: int  #: whose scores an earlier run had kept: of the teacher, and of the student
    films: int  #: that were learnt from
    frames: int  #: of these
    longest_s: float  #: duration of the longest of these [s]
    held_out: tuple[EvaluatedEpisode, ...]  #: as the student scored them
    measures: Mapping[str, tuple[Measure, ...]]  #: of the films that are held out: of "student", "teacher"
    data_sha256: str  #: of frames, labels and the teacher's curves
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: tuple[str, ...]


def usable(episodes: Sequence[LabelledEpisode]) -> tuple[list[LabelledEpisode], list[str]]:
    """The episodes that can serve, and what to know of them. Raises `DistillError`."""
    if generic := generic_task_problem(episodes):
        raise DistillError(generic)
    notes = []
    staged = [it.name for it in episodes if "\n" in it.task]
    if staged:
        notes.append(
            f"the task of {_names(staged)} has several stages, of which a student learns each by itself: "
            "left out; cut the recordings where a stage ends"
        )
    used = [it for it in episodes if "\n" not in it.task]
    tasks = by_task(used)
    if len(tasks) > MOST_INSTRUCTIONS:
        raise DistillError(
            f"there are {len(tasks)} instructions, and a student takes {MOST_INSTRUCTIONS} at most: it is "
            "made for the tasks of one robot; take those that matter"
        )
    if len(used) < FEWEST_FILMS:
        raise DistillError(
            f"{len(used)} episode{'s' * (len(used) != 1)} can be used, and a student needs at least "
            f"{FEWEST_FILMS}, some forty of each task for a good one: record more"
        )
    if any(it.succeeded is not None for it in used):
        notes += class_problems([it for it in used if it.succeeded is not None])
    few = [task for task, group in tasks.items() if len(group) < FEWEST_FILMS]
    if few:
        notes.append(
            f"{len(few)} of {len(tasks)} instructions have fewer than {FEWEST_FILMS} episodes, "
            f"'{printable(few[0], 100)}' among them: do not expect the student to know them well"
        )
    notes += _alike(list(tasks))
    return used, notes


def _alike(tasks: Sequence[str]) -> list[str]:
    """Instructions that might be one, misspelt: those that differ in one character."""
    seen: dict[str, str] = {}  # each text with one character left out, to the task
    notes: list[str] = []
    for task in tasks:
        text = normalized_instruction(task)
        keys = {text[:k] + "\0" + text[k + 1 :] for k in range(len(text))}
        keys |= {text[:k] + "\0" + text[k:] for k in range(len(text) + 1)}
        other = next((seen[key] for key in keys if key in seen), None)
        if other is not None and len(notes) < _SHOWN:
            notes.append(
                f"'{printable(other, 100)}' and '{printable(task, 100)}' differ in one character: they are "
                "two tasks to the student; if one is misspelt, correct its label"
            )
        seen |= dict.fromkeys(keys, task)
    return notes


def held_out(episodes: Sequence[LabelledEpisode]) -> set[int]:
    """Places of the episodes that are held out: one in five attempts, rounded up, of each task and outcome.

    Their frames' hashes choose, wherever they lie and in whatever order they come. Films of one attempt stay
    together.
    """
    attempts: dict[str, set[str]] = {}  # by name: identities of its films
    for episode in episodes:
        attempts.setdefault(_attempt_of(episode), set()).add(episode.identity)
    groups: dict[tuple[str, bool | None], set[str]] = {}
    for episode in episodes:
        groups.setdefault((episode.task, episode.succeeded), set()).add(_attempt_of(episode))
    several = [group for group in groups.values() if len(group) > 1]
    alone = set().union(*(group for group in groups.values() if len(group) == 1))
    chosen: set[str] = set()
    for group in several or [alone]:  # an attempt is ranked by the least of its hashes, as names may change
        ranked = sorted(group, key=lambda it: sha256(min(attempts[it]).encode()).hexdigest())
        chosen |= set(ranked[: ceil(len(group) / _HELD_OUT)])
    places = {place for place, episode in enumerate(episodes) if _attempt_of(episode) in chosen}
    held = {episodes[place].identity for place in places}  # the same film may have another task as well
    same = {place for place, episode in enumerate(episodes) if episode.identity in held}
    return same if len(same) < len(episodes) else places


def _one_sided(episodes: Sequence[LabelledEpisode], apart: Collection[int]) -> list[str]:
    """A sentence for each outcome of a task all of whose films are held out, as they are of one attempt."""
    names = {True: "successes", False: "failures"}
    counts = Counter((it.task, it.succeeded) for it in episodes if it.succeeded is not None)
    left = {(it.task, it.succeeded) for place, it in enumerate(episodes) if place not in apart}
    return [
        f"all {count} {names[outcome]} of '{printable(task, 100)}' are held out, as they are of one attempt "
        "by their labels: the student learns from none"
        for (task, outcome), count in counts.items()
        if count > 1 and (task, outcome) not in left
    ]


def _attempt_of(episode: LabelledEpisode) -> str:
    return episode.attempt or episode.identity


def distill(
    episodes: Sequence[LabelledEpisode],
    order: Order,
    folder: Path,
    kept: Path | None,
    watcher: Watcher,
) -> Distilled:
    """Make a student of usable ``episodes`` in ``folder``, which is there, but for its card.

    ``kept``: where the teacher's scores and the state of the training are kept for a later run; None:
    nowhere. Raises `UserError`.
    """
    with ExitStack() as stack:
        place = stack.enter_context(
            kept_folder(kept) if kept is not None else temporary_folder("topreward-distill-")
        )
        return _distill(episodes, order, folder, place, watcher)


def _distill(
    episodes: Sequence[LabelledEpisode], order: Order, folder: Path, place: Path, watcher: Watcher
) -> Distilled:
    curves, teacher, problems, resumed = _curves(episodes, order, place, watcher)
    for text in problems[:_SHOWN]:
        watcher.say(text)
    if len(problems) > _SHOWN:
        watcher.say(f"and {len(problems) - _SHOWN} more episodes without a curve that can be used")
    episodes = [it for number, it in enumerate(episodes) if number in curves]
    runs = [curves[number] for number in sorted(curves)]
    instructions = instructions_for(list(by_task(episodes)))
    start = order.start
    tokenizer = start.tokenizer or make_tokenizer([*instructions.own, *instructions.strange])
    choice = _choice(order, tokenizer, episodes[0], instructions, watcher)
    candidate = choice.candidate
    watcher.say(f"size '{candidate.name}' is taken: {choice.start}")
    for text in filter(None, [start.doubt, start.given_up(instructions.own)]):
        watcher.say(text)
    with watcher.reading(len(episodes)) as on_film:
        films, unread = read_films(episodes, candidate.frame_pixels, on_film)
    if not films:
        raise DistillError(f"no film can be learnt from; the first: {unread[0]}")
    lessons, used, untold = _lessons(films, runs, instructions)
    for text in (*unread, *untold)[:_SHOWN]:
        watcher.say(text)
    apart = held_out([it.episode for it in used])
    learnt = [it for number, it in enumerate(lessons) if number not in apart]
    judged = [it for number, it in enumerate(lessons) if number in apart]
    _check_enough(used, learnt, judged)
    for text in _one_sided([it.episode for it in used], apart):
        watcher.say(text)
    student = _student(tokenizer, candidate, order, lessons, len(instructions.own))
    stream = Stream(tokenizer)
    recipe = _recipe(order, start.rate_for(candidate.size))
    torch.set_num_threads(recipe.threads)
    workers = _loaders(order.device)
    batches = held_out_batches(judged, instructions, stream)
    steps = Steps(learnt, instructions, stream, order.steps or STEPS, order.seed)
    data = _data_hash(used, [_run_of(it, runs) for it in used])
    made_from: dict[str, object] = {
        "data_sha256": data,
        "candidate": candidate.name,
        "torch": str(torch.__version__),
        **asdict(recipe),
    }
    if start.is_student:
        made_from["start"] = start.sha256
    if order.steps == 0:
        made_from.pop("steps")  # by the clock: what is kept of an interrupted run says how many
    run = Run(place / "training", made_from)
    if "steps" not in run.notes:
        number = order.steps or steps_for(student, steps, recipe, order.minutes, workers)
        run.notes["steps"] = number
    recipe = replace(recipe, steps=run.notes["steps"])
    if ended := run.notes.get("why"):
        watcher.say(
            f"the training in --scores had ended, as {ended}: its student is written again; to train longer, "
            "take another folder for --scores"
        )
    with watcher.learning(order.minutes) as on_step:
        learned = learn(student, steps, batches, recipe, run, order.minutes, workers, on_step)
    written = write_model(
        folder,
        student.cpu().state_dict(),
        make_config(tokenizer, candidate.size),
        tokenizer,
        candidate.frame_pixels,
        f"a student of {teacher}, for {len(instructions.own)} task{'s' * (len(instructions.own) != 1)}"[:200],
        {task: [task] for task in instructions.own},
    )
    tested = [it.episode for number, it in enumerate(used) if number in apart]
    settings = replace(order.scoring, model=str(folder.absolute()), controls=())
    with watcher.scoring("the student on films that were held out") as on_start:
        scored = score_episodes(tested, settings, place / "student", on_start, on_note=watcher.say)
    theirs = [_run_of(it, runs) for number, it in enumerate(used) if number in apart]
    threshold = order.scoring.monitor.success.threshold
    picture = tested[0].open().info
    with closing(load_scorer(settings.model, replace(settings.scorer, device="cpu", threads=1))) as scorer:
        tick = tick_milliseconds(scorer, picture.height, picture.width, instructions.own[0])
    return Distilled(
        order,
        teacher,
        instructions,
        choice,
        tick,
        written,
        recipe,
        learned,
        resumed + scored.resumed,
        len(learnt),
        sum(len(it.footage.frames) for it in learnt),
        max(float(it.times_s[-1]) for number, it in enumerate(used) if number not in apart),
        scored.episodes,
        {
            "student": tuple(evaluate(scored.episodes, threshold, (Mode.LOG_PROB,), order.seed)),
            "teacher": tuple(evaluate(theirs, threshold, (Mode.LOG_PROB,), order.seed)),
        },
        data,
        machine(),
        {"torch": str(torch.__version__)},
        tuple([*problems, *unread, *untold, *scored.problems]),
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return printable(", ".join(names[:_SHOWN]), 400) + more


def _curves(
    episodes: Sequence[LabelledEpisode], order: Order, place: Path, watcher: Watcher
) -> tuple[dict[int, EvaluatedEpisode], str, list[str], int]:
    """The teacher's curves, by the place of the episode; its name; why other episodes have none; and how many
    an earlier run had kept."""
    if order.curves:
        return *read_curves(order.curves, episodes), 0
    note: OnNote = watcher.say

    def on_model(info: ScorerInfo) -> None:
        if info.random_weights:
            watcher.say(f"the teacher has {RANDOM_WEIGHTS}: its numbers mean nothing, nor will its student's")
        for task in by_task(episodes):
            for warning in task_warnings(task, info, "--teacher "):
                watcher.say(warning)

    with watcher.scoring(f"the teacher {order.scoring.model}") as on_start:
        scored = score_episodes(
            episodes,
            order.scoring,
            place / "teacher",
            on_start,
            on_model,
            workers=order.workers,
            on_note=note,
        )
    if scored.unreached:
        raise DistillError(
            f"{scored.unreached} of {counted(len(episodes), 'episode')} have no score of the teacher, which "
            f"cannot be reached ({scored.problems[0]}): run it again once it can; what was scored is kept in "
            "--scores FOLDER, where one is given"
        )
    by_key = {(it.identity, it.task): it for it in scored.episodes}
    found = {
        number: by_key[it.identity, it.task]
        for number, it in enumerate(episodes)
        if (it.identity, it.task) in by_key
    }
    name = teacher_name(scored.model) or printable(order.scoring.model, 200)
    return found, name, [*scored.problems], scored.resumed


def _choice(
    order: Order,
    tokenizer: Tokenizer,
    episode: LabelledEpisode,
    instructions: Instructions,
    watcher: Watcher,
) -> Choice:
    """The size that is named, or the largest that keeps the budget. Raises `BudgetError`."""
    start = order.start
    if order.size:
        named = next(it for it in CANDIDATES if it.name == order.size)
        return Choice(named, (), warm_start(named, (), start.size), start.name)
    picture = episode.open().info
    with watcher.timing() as on_timed:
        found = timed(
            start.able, tokenizer, order.scoring.scorer, (picture.height, picture.width), instructions.own[0]
        )
        with closing(found):
            timings = chosen(found, order.budget_ms, on_timed)
    taken = timings[-1].candidate
    return Choice(taken, tuple(timings), warm_start(taken, timings, start.size), start.name)


def _lessons(
    films: Sequence[Film], runs: Sequence[EvaluatedEpisode], instructions: Instructions
) -> tuple[list[Lesson], list[Film], list[str]]:
    """What is learnt of each film, these films, and why others are left out. Raises `TargetError`."""
    by_instruction = baselines([it.plain for it in runs])
    lessons, used, problems = [], [], []
    for film in films:
        run = _run_of(film, runs)
        try:
            made = footage(film, run, by_instruction.get(run.plain.instruction, 0.0))
        except TargetError as error:
            problems.append(str(error))
            continue
        lessons.append(Lesson(made, instructions.own.index(film.episode.task), film.size))
        used.append(film)
    if not lessons:
        raise TargetError(problems[0])
    check_targets({film.episode.name: it.footage for film, it in zip(used, lessons, strict=True)})
    return lessons, used, problems


def _run_of(film: Film, runs: Sequence[EvaluatedEpisode]) -> EvaluatedEpisode:
    episode = film.episode
    return next(it for it in runs if (it.identity, it.task) == (episode.identity, episode.task))


def _check_enough(films: Sequence[Film], learnt: Sequence[Lesson], judged: Sequence[Lesson]) -> None:
    """Raise `DistillError` where too little is left to learn from, or to judge by."""
    frames = sum(len(it.frames) for it in films)
    if len(films) < FEWEST_FILMS or frames < FEWEST_FRAMES:
        raise DistillError(
            f"{counted(len(films), 'film')} with {counted(frames, 'frame')} in all, at 4 Hz, can be learnt "
            f"from, and at least {FEWEST_FILMS} films with {FEWEST_FRAMES} frames are needed: record more"
        )
    if not learnt or not judged:
        raise DistillError(
            f"all {len(films)} films are held out together, as they are of one attempt by their labels: give "
            "each attempt a name of its own in the column attempt"
        )


def _student(
    tokenizer: Tokenizer, candidate: Candidate, order: Order, lessons: Sequence[Lesson], tasks: int
) -> Pupil:
    """A student with the weights that it starts from."""
    config = make_config(tokenizer, candidate.size)
    sizes = [it.size for it in lessons]
    student = Pupil(tokenizer, config, tasks, sizes, _precision(order.device) == "bfloat16")
    draw_weights(student, order.seed)
    order.start.give(student, candidate.size)
    return student


def _precision(device: str) -> str:
    return "bfloat16" if device.startswith("cuda") else "float32"


def _recipe(order: Order, rate: float) -> Recipe:
    threads = os.cpu_count() or 1  # what prepares batches needs little of one
    steps = order.steps or STEPS
    precision = _precision(order.device)
    return Recipe(steps, order.seed, threads, precision, order.device, rate, AVERAGED)


def _loaders(device: str) -> int:
    """How many threads prepare batches: one beside those that learn on a CPU, more for a GPU that waits."""
    others = (os.cpu_count() or 1) - 1
    return min(others, 8 if device.startswith("cuda") else 1)


def _data_hash(films: Sequence[Film], runs: Sequence[EvaluatedEpisode]) -> str:
    """SHA-256 of frames, tasks, labels and curves, whatever order they come in."""
    lines = sorted(
        repr(
            (
                film.episode.identity,
                film.episode.task,
                film.episode.succeeded,
                film.episode.done_s,
                [
                    (time_s, score.log_prob, score.log_prob_static, score.stated_progress)
                    for time_s, score in zip(run.plain.times_s, run.plain.scores, strict=True)
                ],
            )
        )
        for film, run in zip(films, runs, strict=True)
    )
    return sha256("\n".join(lines).encode()).hexdigest()
