"""A model that generates text proposes the stages of a task, for a person to edit.

The model is an image-text-to-text checkpoint of transformers, loaded as those that score are; it writes the
answer that it finds most likely (greedy). Nothing here sets a task: the list is returned, and the command
prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topreward_ros.core.plan import PlanError, question, stages_of
from topreward_ros.core.printable import printable
from topreward_ros.offline.encoded_image import EncodedImageError, rgb8_of, samples_of
from topreward_ros.offline.text_model import AnswerError, TextModel
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.served_models import refuse_served

_MOST_TOKENS = 400  # of an answer: 20 short lines


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model proposes."""

    stages: tuple[str, ...]
    model: str  #: as the user named it
    random_weights: bool  #: it was never trained, and the list means nothing


def propose(task: str, model: str, settings: ScorerSettings, image: Path | None = None) -> Plan:
    """Ask ``model`` for the stages of ``task``, and show it the picture ``image`` where there is one.

    Raises `ScorerError` for a model that cannot be used, `PlanError` for an answer or a picture that cannot.
    """
    picture = None if image is None else _read(image)
    refuse_served(model, "a plan, which a model writes,")
    checkpoint = open_checkpoint(model, settings.adapter)
    asked = question(task, sees=picture is not None)
    writer = TextModel(checkpoint, settings, sees=picture is not None)
    try:
        text = writer.write([asked] if picture is None else [picture, asked], _MOST_TOKENS)
    except AnswerError as error:
        raise PlanError(str(error)) from error
    return Plan(tuple(stages_of(text)), checkpoint.name, checkpoint.has_random_weights)


def _read(image: Path) -> np.ndarray:
    """A picture (H, W, 3) RGB."""
    name = printable(str(image))
    try:
        return rgb8_of(samples_of(image.read_bytes(), name))
    except EncodedImageError as error:
        raise PlanError(str(error)) from error
    except OSError as error:
        raise PlanError(f"{name} cannot be read ({error.strerror}): name a picture") from error
