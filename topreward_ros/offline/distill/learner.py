"""A student learns: steps until it is enough, judged by held-out films; the best weights are kept."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch

from topreward_ros.core.errors import UserError
from topreward_ros.offline.distill.pupil import Batch, Pupil, total_loss
from topreward_ros.offline.distill.steps import Steps
from topreward_ros.offline.distill.training_run import (
    BETAS,
    OnStep,
    Row,
    Run,
    learning_rate,
    weight_groups,
)

STEPS = 6000  #: at most, where time allows
FEWEST_STEPS = 20
CHECK_EVERY = 40  #: steps, after which films that are held out are looked at
#: Checks without a better one, after which it is enough; of long trainings three quarters: while the rate is
#: high, what is looked at goes to and fro.
PATIENCE = 8
#: Share of the averaged weights that a step leaves, once there were some. They are what is looked at and
#: kept: at a high rate the weights themselves go to and fro between one batch and the next.
AVERAGED = 0.99
ALL_STEPS = "all steps were taken"
_WARM_UP = 30
_AHEAD = 4  # batches that are prepared ahead, of each thread
_TRIED = 12  # steps by which the pace is told
_RESERVE = 0.8  # share of the time that steps may be planned for


class LearnError(UserError):
    """A student could not be trained."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the weights depend on beside the data, the machine, and the versions of libraries."""

    steps: int
    seed: int
    threads: int
    precision: str  #: float32 or bfloat16
    device: str  #: cpu or cuda
    rate: float  #: highest learning rate
    averaged: float  #: share of the averaged weights that a step leaves


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of a training."""

    steps: int  #: that were taken
    kept_steps: int  #: of these, by earlier runs
    best_step: int  #: after which the weights are those that are kept
    loss: float  #: of the films that are held out, then
    first_loss: float  #: before the first step
    why: str  #: it ended
    by_clock: bool  #: the rate fell with the time that was left, as steps took longer than planned


def steps_for(
    student: Pupil,
    steps: Steps,
    recipe: Recipe,
    minutes: float,
    workers: int,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """How many steps there is time for, by some that are tried and forgotten; `STEPS` at most."""
    torch.set_num_threads(recipe.threads)
    student.to(recipe.device)
    tried = range(max(0, len(steps) - _TRIED), len(steps))
    began = 0.0
    for number, batch in enumerate(_loaded(steps, tried, recipe, workers)):
        total_loss(student.losses(batch), 0.0).backward()
        if number == 0:  # libraries choose kernels, and processes start
            began = clock()
    student.zero_grad(set_to_none=True)
    pace = (clock() - began) / max(1, len(tried) - 1)
    return max(FEWEST_STEPS, min(STEPS, int(_RESERVE * 60 * minutes / max(pace, 1e-9))))


def _loaded(steps: Steps, numbers: range, recipe: Recipe, workers: int) -> Iterator[Batch]:
    """The batches of steps in order, prepared by so many threads ahead, or by this one.

    Threads and no processes: most of the work is done by libraries that let others run meanwhile, and what
    ends or stops this process ends them.
    """
    device = torch.device(recipe.device)
    if not workers:
        yield from (steps[number].to(device) for number in numbers)
        return
    left, ahead = iter(numbers), deque[Future[Batch]]()
    pool = ThreadPoolExecutor(workers, "batches")
    try:
        ahead += (pool.submit(steps.__getitem__, number) for number in islice(left, _AHEAD * workers))
        while ahead:
            batch = ahead.popleft().result()
            ahead += (pool.submit(steps.__getitem__, number) for number in islice(left, 1))
            yield batch.to(device)
    finally:
        pool.shutdown(cancel_futures=True)


def learn(
    student: Pupil,
    steps: Steps,
    held_out: Sequence[Batch],
    recipe: Recipe,
    run: Run,
    minutes: float,
    workers: int,
    on_step: OnStep,
    clock: Callable[[], float] = time.monotonic,
) -> Learned:
    """Train ``student``; at the end it has the averaged weights that were best on ``held_out``.

    ``minutes``: after which it is enough in any case; where steps take longer than planned, the rate falls
    with the time that is left. ``workers``: threads that prepare batches, which change nothing else.
    Raises `LearnError` where nothing can be learnt, `OutputFileError`.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    device = torch.device(recipe.device)
    run.resume(student)
    student.to(device)
    optimizer = torch.optim.AdamW(weight_groups(student), lr=recipe.rate, betas=BETAS)
    began, notes = clock(), run.notes
    held = [batch.to(device) for batch in held_out]
    average = copy.deepcopy(student)
    if "checks" not in notes:
        notes["checks"] = [(0, held_out_loss(average, held))]
        notes["best"] = _weights(average)
    else:
        average.load_state_dict(notes["average"])
    notes["average"] = average.state_dict()  # as they are when it is saved
    checks: list[tuple[int, float]] = notes["checks"]
    patience = max(PATIENCE, 3 * recipe.steps // (4 * CHECK_EVERY))

    def drawn(first: int) -> Iterator[Batch]:
        return _loaded(steps, range(first, recipe.steps), recipe, workers)

    def take(step: int, batch: Batch) -> Row:
        spent = min(1.0, (clock() - began) / (60 * minutes)) * recipe.steps
        notes["by_clock"] = notes.get("by_clock", False) or (spent > step and step > _WARM_UP)
        now = recipe.rate * learning_rate(
            step if step <= _WARM_UP else max(step, round(spent)), recipe.steps, _WARM_UP
        )
        for group in optimizer.param_groups:
            group["lr"] = now
        losses = student.losses(batch)
        loss = total_loss(losses, step / recipe.steps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        _follow(average, student, min(recipe.averaged, (step + 1) / (step + 10)))
        terms = {name: value.item() for name, value in losses.items()}
        return {"rate": now, "patches": batch.ends.shape[1], "loss": loss.item(), **terms}

    def is_enough(done: int) -> bool:
        over = clock() - began > 60 * minutes
        if done % CHECK_EVERY and done != recipe.steps and not over:
            return False
        loss = held_out_loss(average, held)
        if not loss < float("inf"):
            raise LearnError(
                f"the loss of the films that are held out is no number after {done} steps: train again with "
                "another --seed; if it stays so, report it"
            )
        if loss < min(value for _, value in checks):
            notes["best"] = _weights(average)
        checks.append((done, loss))
        notes["why"] = _why(checks, clock() - began, minutes, patience)
        if done == recipe.steps:
            notes["why"] = ALL_STEPS
        return bool(notes["why"])

    kept_steps = run.taken("steps")
    rows = run.learn("steps", student, optimizer, recipe.steps, drawn, take, on_step, is_enough)
    student.load_state_dict(notes["best"])
    best_step, best = min(checks, key=lambda check: check[1])
    # Why it ended may be of a run before, which this one goes on from.
    why, by_clock = notes["why"], notes.get("by_clock", False)
    return Learned(len(rows), kept_steps, best_step, best, checks[0][1], why, by_clock)


def _why(checks: Sequence[tuple[int, float]], seconds: float, minutes: float, patience: int) -> str:
    """Why it is enough; empty: it is not."""
    best = min(range(len(checks)), key=lambda number: checks[number][1])
    if len(checks) - 1 - best >= patience:
        return f"{patience * CHECK_EVERY} steps made it no better on the films that are held out"
    if seconds > 60 * minutes:
        return f"{minutes:g} minutes had passed"
    return ""


def _follow(average: Pupil, student: Pupil, kept: float) -> None:
    """Move averaged weights towards those of ``student``: ``kept`` is the share of them that stays."""
    with torch.no_grad():
        for mean, now in zip(average.parameters(), student.parameters(), strict=True):
            mean.lerp_(now, 1 - kept)


def _weights(student: Pupil) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in student.state_dict().items()}


def held_out_loss(student: Pupil, batches: Sequence[Batch]) -> float:
    """Mean over films of the distance of the log-odds [nat], as the loss counts it."""
    student.eval()
    with torch.no_grad():
        losses = [float(student.losses(batch)["odds"]) for batch in batches]
    student.train()
    return sum(losses) / len(losses)
