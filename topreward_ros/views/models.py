"""How `topreward models` shows what offline/models.py found: data in, something that rich can print out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from topreward_ros.core.counted import counted
from topreward_ros.core.printable import printable
from topreward_ros.defaults import DEMO_TASK
from topreward_ros.offline.models import CheckResult, ListedModel, ModelFacts, Presence
from topreward_ros.scoring.openai_api.load import SERVED
from topreward_ros.views.score_names import score_names
from topreward_ros.views.terminal import RANDOM_WARNING, number, shown

_PRESENCE_STYLES = {
    Presence.HERE: "green",
    Presence.INCOMPLETE: "yellow",
    Presence.NOT_HERE: "dim",
    Presence.BROKEN: "red",
}


def size_text(size: int) -> str:
    """Bytes as people read them.

    >>> size_text(5_512_345), size_text(17_534_000_000)
    ('5.5 MB', '17.53 GB')
    """
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def model_table(models: Sequence[ListedModel]) -> RenderableType:
    """What `topreward models list` shows."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("on this machine", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("")
    for model in models:
        table.add_row(
            shown(model.name),
            Text(model.presence.value, style=_PRESENCE_STYLES[model.presence]),
            size_text(model.size) if model.size else "-",
            Text(RANDOM_WARNING, style="bold red") if model.random_weights else shown(model.summary),
        )
    return Group(table, Text(), Text("Get one, or the rest of one, with `topreward models download NAME`."))


def facts_view(facts: ModelFacts, *, wordings: bool = False) -> RenderableType:
    """What `topreward models info` shows; ``wordings``: with those of each instruction."""
    table = _pairs()
    table.add_row("model", shown(facts.name))
    if facts.notes.summary:
        table.add_row("", shown(facts.notes.summary))
    if facts.random_weights:
        table.add_row("", Text(RANDOM_WARNING, style="bold red"))
    table.add_row("folder", shown(str(facts.folder)))
    table.add_row("revision", shown(facts.revision))
    if facts.hash_matches is not None:
        table.add_row("SHA-256", _hash_text(facts))
    parameters = f"{facts.parameters / 1e6:,.2f} million" if facts.parameters is not None else "unknown"
    files = f" in {facts.weight_files} files" if facts.weight_files > 1 else ""
    table.add_row("parameters", shown(f"{parameters}, {' and '.join(facts.dtypes) or '-'}", 400))
    table.add_row("weights", f"{size_text(facts.size)}{files}")
    table.add_row("prompt", shown(facts.prompt_hash))
    if facts.question.answers is not None:
        table.add_row("answers", shown(str(facts.question.answers), 1000))
    if facts.advice:
        table.add_row("", shown(facts.advice, 400, style="yellow"))
    table.add_row("frame", f"at most {facts.frame_pixels} pixels, with the shipped settings")
    if facts.most_frames is not None:
        table.add_row("says", "progress and success, by heads of its own; no log p")
        table.add_row("scoring", f"a full forward pass over at most {facts.most_frames} frames per prefix")
    else:
        ways = ("a full forward pass per prefix: slower", "incremental: only what is new is computed")
        table.add_row("scoring", ways[facts.incremental])
    table.add_row("model card", shown(str(facts.card or "-")))
    if not facts.notes.instructions:
        table.add_row("instructions", "any")
        return table
    return Group(table, Text(), _wordings(facts) if wordings else _instructions(facts))


def _hash_text(facts: ModelFacts) -> Text:
    if facts.hash_matches:
        return shown(f"{facts.notes.sha256} (matches)")
    return shown(f"does NOT match {facts.notes.sha256}: damaged, or of another version", style="bold red")


def _instructions(facts: ModelFacts) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("instruction")
    table.add_column("wordings", justify="right")
    for instruction, wordings in facts.notes.instructions.items():
        table.add_row(shown(instruction, style="bold"), str(len({instruction, *wordings})))
    return Group(
        Text("It understands these instructions only, each in some wordings (--wordings lists them):"), table
    )


def _wordings(facts: ModelFacts) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title_style="")
    table.title = "It understands these instructions only, in these wordings:"
    table.add_column("instruction")
    table.add_column("wordings", overflow="fold")
    for instruction, wordings in facts.notes.instructions.items():
        others = [printable(wording) for wording in wordings if wording != instruction]
        table.add_row(shown(instruction, style="bold"), shown("; ".join(others) or "-"))
    return table


def check_view(result: CheckResult) -> RenderableType:
    """What `topreward models check` shows."""
    info, points = result.info, result.curve.points
    table = _pairs()
    table.add_row("model", shown(f"{info.model_id} ({info.revision})"))
    if info.random_weights:
        table.add_row("", Text(RANDOM_WARNING, style="bold red"))
    table.add_row("runs on", shown(f"{info.device} in {info.dtype}"))
    table.add_row("loading", number(result.load_s, 2, "s"))
    start, end = points[0].score, points[-1].score
    answers = result.question.answers
    if answers is not None:
        table.add_row("answers", shown(f"one token each: {answers}", 1000))
    elif not start.states_progress:
        table.add_row("answer", "one token" if info.dtype == SERVED else 'one token, " True"')
    table.add_row("scoring", f"{number(result.score_s, 3, 's')} per score, {counted(len(points), 'score')}")
    if start.states_progress:
        said = f"{number(start.stated_progress)} at the start, {number(end.stated_progress)} at the end"
        table.add_row("progress", f"stated by the model: {said}")
    else:
        said = f"{number(start.log_prob)} at the start, {number(end.log_prob)} nat at the end"
        table.add_row(score_names(info.answers).log_prob, said)
        if answers is not None:
            share = f"{number(100.0 * end.answer_share, 1)} % of the probability at the end"
            table.add_row("answers' share", share)
    table.add_row("of", shown(f"{result.curve.video}: {DEMO_TASK}"))
    return table


class DownloadBar:
    """Says what a download is about and follows it, on a terminal with a bar. Use it as a context manager."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, files: int, size: int, folder: Path) -> None:
        """See `DownloadProgress`."""
        line = f"{self._name}: {files} files, {size_text(size)}, to {folder}"
        self._console.print(shown(line), soft_wrap=True)
        self._bar.start()
        self._task = self._bar.add_task(self._name, total=size)

    def advance(self, size: int) -> None:
        """See `DownloadProgress`."""
        self._bar.advance(self._task, size)


def _pairs() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
