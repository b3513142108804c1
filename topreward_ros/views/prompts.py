"""How `topreward prompts` shows what was found: a table of the templates, the best ensembles, the
verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from topreward_ros.core.counted import counted
from topreward_ros.core.printable import printable
from topreward_ros.core.prompt_choice import Choice, Rated
from topreward_ros.offline.prompt_search import Found
from topreward_ros.offline.prompt_sweep import Templates, verdict_text
from topreward_ros.offline.soft_prompt_search import SoftResult
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.views.terminal import RANDOM_WARNING, number, shown

_SCORING = "scoring"
_SHOWN_ENSEMBLES = 5
_SHOWN_FOUND = 12  # of the wordings of a search
_FEW_PARTS = 5  # from which on an interval over tasks says something of other tasks


class SweepBar(Progress):
    """A progress bar over ``expected`` scores, with the time left; silent where there is no terminal."""

    def __init__(self, console: Console, expected: int) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self.add_task(_SCORING, total=expected)

    def expect(self, count: int) -> None:
        """So many more are expected."""
        self.update(self._task, total=(self.tasks[0].total or 0) + count)

    def more(self, count: int) -> None:
        """So many more scores are done."""
        self.advance(self._task, count)

    @contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Say that a model is loaded."""
        self.doing(f"loading model {printable(model, 60)}")
        yield
        self.doing(_SCORING)

    def doing(self, what: str) -> None:
        """Say what is done now."""
        self.update(self._task, description=escape(what))


def sweep_view(choice: Choice, templates: Templates, info: ScorerInfo, episodes: int) -> RenderableType:
    """What `topreward prompts sweep` prints."""
    places = range(len(templates.texts))
    return _view(choice, templates, info, places, f"{counted(episodes, 'episode')}, {_compared(choice)}")


def search_view(choice: Choice, found: Found, laid_aside: int) -> RenderableType:
    """What `topreward prompts search` prints; ``laid_aside``: episodes that judged."""
    templates = found.templates
    by_value = sorted(range(len(templates.texts)), key=lambda place: -choice.singles[place].value)
    shown_places = by_value[:_SHOWN_FOUND]
    shown_places += [place for place in choice.default.members if place not in shown_places]
    about = (
        f"searched on {counted(len(found.used), 'episode')}, judged on {laid_aside} of other tasks; "
        f"{len(templates.texts)} wordings in {counted(len(found.rounds), 'round')}, "
        f"{_compared(choice)}"
    )
    if not choice.of_tasks:
        about = about.replace(" of other tasks", " others")
    data = "the training tasks" if choice.of_tasks else "the training half"
    return _view(choice, templates, found.info, shown_places, about, data)


def _compared(choice: Choice) -> str:
    return f"{choice.candidates} wordings and ensembles compared"


def soft_view(result: SoftResult) -> RenderableType:
    """What `topreward prompts search --soft` prints."""
    choice, trained = result.choice, result.epochs
    best, first = trained[trained[-1].best], trained[0]
    loss = (
        f"validation loss {first.validation:.3f} at the start, {best.validation:.3f} after epoch "
        f"{best.number} of {trained[-1].number}"
    )
    used = counted(len(result.used) - result.tested, "episode")
    about = f"trained on {used}, judged on {result.tested}; {loss}"
    return _view(choice, result.templates, result.info, range(len(result.templates.texts)), about)


def _view(
    choice: Choice,
    templates: Templates,
    info: ScorerInfo,
    places: Sequence[int],
    about: str,
    data: str = "all data",
) -> RenderableType:
    """``places``: of the templates that are shown; ``data``: by which was chosen."""
    parts: list[RenderableType] = [_table(choice, templates, places, data)]
    ensembles = [rated for rated in choice.leading if len(rated.members) > 1][:_SHOWN_ENSEMBLES]
    if ensembles:
        parts += [Text(), _ensembles(ensembles, templates, data)]
    held = "task" if choice.of_tasks else "part"
    parts.append(Text())
    for part, members, value, usual in zip(
        choice.parts, choice.chosen, choice.held_out, choice.held_out_default, strict=True
    ):
        name = templates.name_of(members)
        line = f"{held} held out: {part}: {name} {number(value)}, default {number(usual)}"
        parts.append(shown(line, 300, "dim"))
    parts += [Text(), shown(verdict_text(choice, templates), style="bold")]
    parts += [shown(note, style="yellow") for note in _notes(choice)]
    model = f"{about}; model {info.model_id} ({info.revision}), {info.device}"
    parts.append(shown(model, 400, "dim"))
    if info.random_weights:
        parts.append(Text(RANDOM_WARNING, style="bold red"))
    return Group(*parts)


def _table(choice: Choice, templates: Templates, places: Sequence[int], data: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("", "AUC", "VOC", "static VOC", "range"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"template, on {data}", overflow="fold")
    for place in places:
        rated = choice.singles[place]
        style = "bold" if rated.members in (choice.default.members, choice.best.members) else ""
        table.add_row(str(place + 1), *_numbers(rated), shown(templates.texts[place], 400), style=style)
    return table


def _ensembles(ensembles: list[Rated], templates: Templates, data: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("AUC", "VOC", "static VOC", "range"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"best ensembles, on {data}", overflow="fold")
    for rated in ensembles:
        table.add_row(*_numbers(rated), shown(templates.name_of(rated.members)))
    return table


def _numbers(rated: Rated) -> list[str]:
    return [number(value) for value in (rated.auc, rated.voc, rated.static_voc, rated.static_share)]


def _notes(choice: Choice) -> list[str]:
    """What to know of the verdict."""
    notes = []
    if not choice.of_tasks:
        notes.append("One task alone judged: nothing is known of the wording for other tasks.")
    elif len(choice.parts) < _FEW_PARTS:
        notes.append(f"{len(choice.parts)} tasks are few: other tasks may have another best wording.")
    if np.mean(choice.held_out_default) > 0.999:
        notes.append("The default makes no mistake on these episodes: harder ones would tell more.")
    return notes
