"""The calibration of a task, and the setup that it holds for: what a monitor loads and decides by.

A calibration is worth nothing for another model, prompt, rate or camera. So it carries its `Setup`, and
whoever uses it compares the two; nothing is compared silently by halves. How it is made is told in fit.py,
how it lies in a file in mapping.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import nan
from typing import Any

from topreward_ros.core.calibration.comparison import Comparison
from topreward_ros.core.calibration.estimates import Estimates
from topreward_ros.core.calibration.probability import Kind, ProbabilityMap, surest
from topreward_ros.core.counted import counted
from topreward_ros.core.detectors.failure import ConformalBand
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.core.printable import printable
from topreward_ros.core.shapes import size_text


@dataclass(frozen=True, slots=True)
class Setup:
    """All that changes scores but the scene itself. The device does not."""

    model: str  #: as the user named it; the revision decides
    revision: str  #: of the model: hub revision, or a hash of the weights
    prompt_hash: str
    layout: str
    chat_template: bool
    contrastive: bool
    dtype: str
    max_pixels: int
    sample_rate: float  #: [Hz]
    max_frames: int
    window: str
    front_padding: int
    fixed_length: int
    camera_layout: str  #: primary or tile
    cameras: tuple[str, ...]  #: topics, the primary one first; empty: videos, which do not say

    def differences(self, here: Setup) -> list[tuple[str, Any, Any]]:
        """Each field in which the setup ``here`` is another one: its name, the value of this one, and there.

        A model is known by its revision, wherever it lies. Cameras are compared where both sides have names.
        """
        found = []
        for it in fields(self):
            mine, theirs = getattr(self, it.name), getattr(here, it.name)
            if it.name == "model" and self.revision == here.revision:
                continue
            if it.name == "cameras" and not (mine and theirs):
                continue
            if mine != theirs:
                found.append((it.name, mine, theirs))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCalibration:
    """What was learnt of one task."""

    task: str  #: the instruction, of one stage
    success: SuccessSettings  #: the detector with its threshold that was kept
    probability: ProbabilityMap
    successes: int  #: episodes that it was made from
    failures: int
    allowed_false_alarms: float  #: share of failures that may fire, as the user named it
    picture: tuple[int, int] | None = (
        None  #: [px] width and height of a frame as it was scored; None: several
    )
    nominal_duration: float = nan  #: [s]; NaN: not known
    #: Of successful runs, by the progress mode that its progress is of; none: too few successes.
    bands: Mapping[str, ConformalBand] = field(default_factory=dict)
    estimates: Estimates | None = None  #: None: a file that has none
    comparison: Comparison | None = None  #: with the parameters alone; None: a file of before there was one

    def __post_init__(self) -> None:
        # Whatever a file says, its few episodes make nothing certain.
        bounds = surest(self.successes, self.failures)
        object.__setattr__(self, "probability", replace(self.probability, bounds=bounds))

    @property
    def made_from(self) -> str:
        """Of how many episodes, for a human."""
        return f"{counted(self.successes, 'success', 'successes')} and {counted(self.failures, 'failure')}"

    @property
    def weak(self) -> bool:
        """Whether it was made from so few episodes that it is a sketch."""
        return self.probability.kind is Kind.ANCHORS

    @property
    def detector(self) -> SuccessSettings | None:
        """The detector that stands in place of the monitor's own; None: so few episodes cannot tell whether
        what was learnt is better, so that the monitor keeps its own."""
        return None if self.comparison and not self.comparison.tells else self.success

    @property
    def who_decides(self) -> str:
        """By what SUCCESS is judged where this one is weak; else empty."""
        if not self.weak:
            return ""
        if self.detector is None:
            return "SUCCESS is judged by the parameters success_* of the monitor"
        return "SUCCESS is judged by its threshold all the same"

    def why_not_for(self, height: int, width: int) -> str:
        """Why it does not hold for frames of this size; empty: it does."""
        if self.picture is None or self.picture == (width, height):
            return ""
        made_for = size_text((self.picture[1], self.picture[0]))
        return f"frames are {size_text((height, width))}, and its episodes had {made_for}"

    @property
    def weakness(self) -> str:
        """What to say of one that is weak; else empty."""
        if not self.weak:
            return ""
        return (
            f"the calibration of this task is weak (made from {self.made_from}), "
            "so that this counts as not calibrated"
        )


@dataclass(frozen=True, slots=True)
class Calibrations:
    """The calibrations of several tasks with one setup, as they stand in a file."""

    setup: Setup | None = None  #: None: there are none
    tasks: tuple[TaskCalibration, ...] = ()
    source: str = ""  #: for a human: the file
    accepted: bool = False  #: the user takes them for good with another setup, too

    def __bool__(self) -> bool:
        return self.setup is not None

    def of(self, instruction: str) -> TaskCalibration | None:
        """That of an instruction; case, white space and a full stop at its end do not count."""
        wanted = normalized_instruction(instruction)
        return next((it for it in self.tasks if normalized_instruction(it.task) == wanted), None)

    @property
    def text(self) -> str:
        """For the log: the file, its tasks, and which of them are weak."""
        tasks = [
            f"'{printable(it.task, 100)}'" + (f" (weak: {it.who_decides})" if it.weak else "")
            for it in self.tasks
        ]
        return f"loaded the calibration {printable(self.source, 300)}: {', '.join(tasks)}"

    def with_tasks(self, tasks: Sequence[TaskCalibration]) -> Calibrations:
        """These, with ``tasks`` added or in the place of those for the same instructions: one for each.

        Of several ``tasks`` that are spellings of one instruction, the last stays.
        """
        new = {normalized_instruction(it.task): it for it in tasks}
        kept = [it for it in self.tasks if normalized_instruction(it.task) not in new]
        return replace(self, tasks=(*kept, *new.values()))

    def without(self, instructions: Sequence[str]) -> Calibrations:
        """These, without those of some instructions."""
        out = set(map(normalized_instruction, instructions))
        return replace(
            self, tasks=tuple(it for it in self.tasks if normalized_instruction(it.task) not in out)
        )

    def why_not(self, instruction: str) -> str:
        """Why nothing here holds for an instruction; empty: something does, or there is nothing at all."""
        if not self or self.of(instruction) is not None:
            return ""
        known = ", ".join(f"'{printable(it.task, 60)}'" for it in self.tasks[:3]) or "no task"
        more = f" and {len(self.tasks) - 3} more" if len(self.tasks) > 3 else ""
        return (
            f"{printable(self.source, 200)} has no calibration of this task, which is watched without one: "
            f"it has {known}{more}"
        )


NO_CALIBRATIONS = Calibrations()
