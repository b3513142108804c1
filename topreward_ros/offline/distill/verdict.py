"""Whether a student is any good as a judge yet: rules on the films that were held out, no model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

from topreward_ros.core.counted import counted
from topreward_ros.core.evaluation import ALL, EvaluatedEpisode, Measure, Mode
from topreward_ros.core.printable import printable

AUC_BELOW_TEACHER = 0.05  #: by which a student may stay below its teacher
AUC_OF_A_TASK = 0.6  #: at or below which a task is not known; 0.5 is chance
STATIC_VOC, STATIC_RANGE = 0.5, 0.3  #: above both, a picture that stands still is taken for progress
FEWEST_OF_AN_OUTCOME = 5  #: films, fewer of which tell little
_SHOWN = 5  # tasks


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks against a student: clauses without a full stop."""

    faults: tuple[str, ...]
    too_few: str  #: why the films that were held out tell little; empty: they are enough


def verdict(
    student: Sequence[Measure], teacher: Sequence[Measure], held_out: Sequence[EvaluatedEpisode]
) -> Verdict:
    """Judge a student by its measures and its teacher's, and by ``held_out``, as the student scored them."""
    own, theirs = _by_place(student), _by_place(teacher)
    faults = []
    auc, of_teacher = (it.get((ALL, "auc"), nan) for it in (own, theirs))
    if auc < of_teacher - AUC_BELOW_TEACHER:
        faults.append(f"its ROC-AUC is {auc:.2f}, its teacher's {of_teacher:.2f}")
    unknown = [
        f"'{printable(scope, 100)}' ({value:.2f})"
        for (scope, name), value in own.items()
        if name == "auc" and scope != ALL and value <= AUC_OF_A_TASK
    ]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        faults.append(
            f"it hardly tells success from failure (ROC-AUC, 0.5 is chance) of "
            f"{', '.join(unknown[:_SHOWN])}{more}"
        )
    elif auc <= AUC_OF_A_TASK:
        faults.append(f"it hardly tells success from failure (ROC-AUC {auc:.2f}, 0.5 is chance)")
    voc, moved = own.get((ALL, "static_voc"), nan), own.get((ALL, "static_range"), nan)
    if abs(voc) > STATIC_VOC and moved > STATIC_RANGE:
        faults.append(
            f"a picture that stands still {'rises' if voc > 0 else 'falls'} with time (static VOC {voc:.2f}, "
            f"range {moved:.2f} nat)"
        )
    successes = [it for it in held_out if it.succeeded]
    if successes and all(it.plain.success_s is None for it in successes):
        count = f"the {len(successes)} successes" if len(successes) > 1 else "the only success"
        faults.append(f"it said SUCCESS in none of {count}")
    failures = sum(it.succeeded is False for it in held_out)
    too_few = (
        f"{counted(len(successes), 'success', 'successes')} and {counted(failures, 'failure', 'failures')} "
        f"among the films that were held out are too few to tell: from {FEWEST_OF_AN_OUTCOME} of each on its "
        "ROC-AUC and SUCCESS say something"
    )
    enough = min(len(successes), failures) >= FEWEST_OF_AN_OUTCOME
    return Verdict(tuple(faults), "" if enough else too_few)


def _by_place(measures: Sequence[Measure]) -> Mapping[tuple[str, str], float]:
    """Values of log p, by scope and name."""
    return {(it.scope, it.name): it.value for it in measures if it.mode == Mode.LOG_PROB}
