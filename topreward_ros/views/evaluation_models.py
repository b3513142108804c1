"""Several evaluations of the same episodes side by side: a column for each, a row for each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topreward_ros.core.evaluation import ALL, DECISIONS, KINDS
from topreward_ros.core.evaluation_difference import Difference, common, differences
from topreward_ros.core.printable import printable
from topreward_ros.offline.evaluation_report import Evaluation
from topreward_ros.views.evaluation_tables import NOTHING, Table, value_text, verdict

_LONGEST_NAME = 40


def models_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """A column for each of ``evaluations``, by its name; the first is what the others are compared with.

    Curves are shown in the mode of the first one's monitor.
    """
    first, *others = evaluations.values()
    mode = first.mode.value
    verdicts = [{}, *(_verdicts(first, other) for other in others)]
    keys = [
        (kind, name)
        for kind in (DECISIONS, mode)
        for name in KINDS
        if any(it.measure(ALL, kind, name) for it in evaluations.values())
    ]
    rows = []
    for kind, name in keys:
        cells = []
        for evaluation, found in zip(evaluations.values(), verdicts, strict=True):
            measure = evaluation.measure(ALL, kind, name)
            value = NOTHING if measure is None else value_text(measure)
            cells.append(" ".join(filter(None, [value, found.get((kind, name), "")])))
        rows.append((KINDS[name].label, *cells))
    shared = min((common(first.episodes, it.episodes) for it in others), default=len(first.episodes))
    return Table(
        "Side by side",
        f"Curves in the mode {mode}. 'better' and 'worse' are against the first, where the 95 % interval of "
        f"the difference over the episodes that both have ({shared} at least) does not hold 0.",
        ("measure", *(printable(name, _LONGEST_NAME) for name in evaluations)),
        tuple(rows),
    )


def _verdicts(first: Evaluation, other: Evaluation) -> dict[tuple[str, str], str]:
    """'better' or 'worse', by mode and name of a measure of all episodes, where it is more than noise."""
    found: Sequence[Difference] = differences(
        first.measures,
        other.measures,
        (first.episodes, other.episodes),
        (first.threshold, other.threshold),
    )
    return {
        (it.mode, it.name): verdict(it.second - it.first, KINDS[it.name])
        for it in found
        if it.scope == ALL and it.name in KINDS and it.is_more_than_noise
    }
