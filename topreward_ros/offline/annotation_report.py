"""What is asked of the annotation of a bag, what was done, and the report of both that lies in the copy.

By its report an annotation is known again: of which bag it is, and with which settings it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from topreward_ros.core.calibration.mapping import calibrations_digest
from topreward_ros.core.calibration.task import NO_CALIBRATIONS, Calibrations
from topreward_ros.core.counted import counted
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.output_files import OutputFileError
from topreward_ros.core.outputs import Event, ProgressReport
from topreward_ros.core.printable import printable
from topreward_ros.offline.bag_layout import METADATA
from topreward_ros.offline.bag_watch import BagWatch
from topreward_ros.offline.bags import Bag
from topreward_ros.offline.json_values import json_value
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.scoring.checkpoint.vocabulary import task_warnings

REPORT = "topreward_annotation.json"
JSON_FORMAT = "topreward_annotation/1"  #: raise the number when a field changes its meaning or goes
_SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class AnnotationSettings:
    """How bags are annotated. It can be pickled, for other processes."""

    parameters: Mapping[str, Any]  #: the monitor's, by name
    namespace: str = ""  #: "" or "/NAME": of our topics, and where relative names are looked for first
    chosen: bool = False  #: image_topics were given, and are not the default
    layout_chosen: bool = False  #: the same of camera_layout
    whole: bool = False  #: the whole bag is scored, whatever it says of episodes
    calibrations: Calibrations = NO_CALIBRATIONS  #: that the parameter calibration names

    def to_json_value(self, task: str) -> dict[str, Any]:
        """All that the numbers depend on, but the bag."""
        left_out = ("task", "autostart", "heartbeat_rate", "diagnostics_rate", "scorer_threads")
        parameters = {name: value for name, value in self.parameters.items() if name not in left_out}
        value: dict[str, Any] = json_value(
            {"task": task, "namespace": self.namespace, "whole": self.whole, "parameters": parameters}
        )
        if self.calibrations:  # the file may be another one by now
            value["calibration_sha256"] = calibrations_digest(self.calibrations)
        return value


@dataclass(frozen=True, slots=True)
class BagJob:
    """A bag to be annotated."""

    source: Path
    target: Path  #: the folder to be made
    task: str = ""  #: the instruction; empty: the bag's topic says it


@dataclass(frozen=True, slots=True)
class Annotation:
    """What was done with a bag."""

    target: Path
    scores: int = 0
    duration_s: float = 0.0  #: of the bag
    progress: float = float("nan")  #: of the last score
    outcomes: tuple[str, ...] = ()  #: how its episodes ended: names of `EventType`
    notes: tuple[str, ...] = ()  #: for a human: what is worth knowing of the numbers
    other_settings: bool = False  #: than those of the live monitor beside which it was recorded
    done_before: bool = False  #: it was annotated with these settings already


def done_before(job: BagJob, settings: AnnotationSettings) -> bool:
    """Whether the target holds the annotation of this bag with these settings.

    Raises `OutputFileError` where it exists and is something else, `BagError` where the bag cannot be read.
    """
    target = printable(str(job.target))
    if not job.target.exists() and not job.target.is_symlink():
        return False
    try:
        report = parsed_json((job.target / REPORT).read_bytes())
        source, made = report["source"], report["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputFileError(
            f"{target} exists and is no annotation of {printable(str(job.source))}: remove it, or name "
            "another folder by --output"
        ) from None
    if source != _fingerprint(Bag(job.source)):
        raise OutputFileError(
            f"{target} exists and is the annotation of another bag, or of an earlier state of this one: "
            "remove it, or name another folder by --output"
        )
    wanted = settings.to_json_value(job.task)
    if made != wanted:
        raise OutputFileError(
            f"{target} exists and was made with other settings ({_difference(made, wanted)}): remove it, or "
            "name another folder by --output"
        )
    return True


def is_annotation(path: Path) -> bool:
    """Whether the bag ``path`` was made here."""
    return (path / REPORT).is_file()


@dataclass(frozen=True, slots=True)
class Report:
    """What the file `REPORT` of a copy holds, and what is told of it."""

    annotation: Annotation
    about: str  #: in a sentence
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        job: BagJob,
        bag: Bag,
        settings: AnnotationSettings,
        info: ScorerInfo,
        watch: BagWatch,
        notes: Sequence[str],
        differences: str = "",
    ) -> Report:
        """The report of what ``watch`` saw; ``notes``: what is to be told beside what follows from it;
        ``differences``: settings of the live monitor that was recorded, where they are others."""
        events = [(ns, it) for ns, it in watch.outputs if isinstance(it, Event)]
        reports = [it for _, it in watch.outputs if isinstance(it, ProgressReport) and it.num_frames]
        stamps = "time of receipt, as header.stamp was zero" if watch.unstamped else "header.stamp"
        warnings = [warning for task in watch.tasks for warning in task_warnings(task, info, "--model ")]
        others = [f"recorded beside a monitor with other settings: {differences}"] if differences else []
        said = [*notes, *others, *dict.fromkeys(warnings), *_notes(watch)]
        annotation = Annotation(
            target=job.target,
            scores=watch.scores,
            duration_s=bag.duration_ns / NS_PER_S,
            progress=reports[-1].progress if reports else float("nan"),
            outcomes=tuple(it.type.name for _, it in events if it.type.name in _OUTCOMES),
            notes=tuple(said),
            other_settings=bool(differences),
        )
        content = {
            "format": JSON_FORMAT,
            "bag": bag.path.resolve().name,
            "source": _fingerprint(bag),
            "settings": settings.to_json_value(job.task),
            "tasks": watch.tasks,
            "stamps": stamps,
            "model": {name: value for name, value in asdict(info).items() if name != "instructions"},
            "scores": watch.scores,
            "events": [
                {"time_ns": ns, "type": it.type.name, "episode_id": it.episode_id, "message": it.message}
                for ns, it in events
            ],
            "ignored": asdict(watch.monitor.ignored),
            "notes": said,
        }
        about = f"annotated by topreward_ros with the model {info.model_id}; stamps: {stamps}"
        return cls(annotation, printable(about), json_value(content))

    def to_json(self) -> str:
        """The file's text."""
        out = StringIO()
        json.dump(self.content, out, indent=2, ensure_ascii=True, allow_nan=False)
        return out.getvalue() + "\n"


_OUTCOMES = ("SUCCESS", "SUBTASK_SUCCESS", "TIMEOUT", "ABORTED", "FAILURE")


def _notes(watch: BagWatch) -> list[str]:
    """What a human should know of the numbers."""
    notes = []
    if watch.unstamped:
        notes.append("images carry no stamp: the time of receipt stands in for it")
    if not watch.scores:
        notes.append("no image could be scored")
    reasons = sorted(watch.bad.items(), key=lambda item: -item[1])
    notes += [f"{counted(count, 'time')}: {printable(why, 300)}" for why, count in reasons[:_SHOWN_REASONS]]
    notes += [
        f"{counted(count, 'image')} {reason}" for reason, count in watch.monitor.ignored.counts().items()
    ]
    return notes


def _fingerprint(bag: Bag) -> dict[str, Any]:
    """By which a bag is known again: the digest of its metadata, and the sizes of its files."""
    digest = hashlib.sha256((bag.path / METADATA).read_bytes()).hexdigest()
    return {"metadata_sha256": digest, "bytes": {file.name: file.stat().st_size for file in bag.files}}


def _difference(made: Any, wanted: dict[str, Any]) -> str:
    """The first setting that is another one, and both values."""
    made = made if isinstance(made, dict) else {}
    for name, value in wanted.items():
        if made.get(name) != value:
            if isinstance(value, dict) and isinstance(made.get(name), dict):
                return _difference(made[name], value)
            return printable(f"{name} was '{made.get(name)}', and '{value}' is asked for", 300)
    return "fewer are known now"
