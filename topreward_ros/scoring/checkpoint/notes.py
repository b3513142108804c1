"""`topreward.json`: notes on a model that was made for this package, beside the files of its checkpoint.

They are read and checked here. The frame size and the hash are used in checkpoint.py, the instructions in
vocabulary.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.json_files import read_json

NOTES_FILE = "topreward.json"
_MEND = "restore it, or remove it"


@dataclass(frozen=True, slots=True)
class ModelNotes:
    """The content of `topreward.json`; every part of it may be missing."""

    frame_pixels: int | None = None  #: pixels of one frame as the model was trained to see it
    summary: str = ""  #: what the model is, as a short phrase
    sha256: str = ""  #: of model.safetensors, hex
    #: instructions that the model was trained on, each with all its wordings; empty: it knows any
    instructions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def wordings(self) -> tuple[str, ...]:
        """All wordings of all instructions."""
        return tuple(dict.fromkeys(text for wordings in self.instructions.values() for text in wordings))


def read_model_notes(folder: Path) -> ModelNotes:
    """Read the notes in ``folder``; no file, no notes. Raises `ScorerError` for one that is invalid."""
    path = folder / NOTES_FILE
    if not path.is_file():
        if os.path.lexists(path):
            raise ScorerError(f"{path} is no file, or a link to none: {_MEND}")
        return ModelNotes()
    content = read_json(path, _MEND)
    try:
        return _notes(content)
    except ValueError as error:
        raise ScorerError(f"{path} cannot be used ({error}): {_MEND}") from error


def _notes(content: dict[str, Any]) -> ModelNotes:
    frame_pixels = content.get("frame_pixels")
    if frame_pixels is not None and (type(frame_pixels) is not int or frame_pixels < 1):
        raise ValueError(f"frame_pixels is {frame_pixels!r} and must be a whole number above 0")
    summary, sha256 = content.get("model_summary", ""), content.get("sha256", "")
    if not isinstance(summary, str):
        raise ValueError(f"model_summary is {summary!r} and must be text")
    if not isinstance(sha256, str) or not re.fullmatch(r"([0-9a-fA-F]{64})?", sha256):
        raise ValueError(f"sha256 is {sha256!r} and must be 64 hex digits")
    return ModelNotes(
        frame_pixels=frame_pixels,
        summary=summary,
        sha256=sha256.lower(),
        instructions=_instructions(content.get("instructions", {})),
    )


def _instructions(content: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(content, dict):
        raise ValueError("instructions must be an object: each instruction with a list of its wordings")
    instructions = {}
    for instruction, wordings in content.items():
        if not isinstance(wordings, list) or not all(isinstance(text, str) for text in wordings):
            raise ValueError(f"the wordings of {instruction!r} must be a list of texts")
        instructions[instruction] = tuple(dict.fromkeys([instruction, *wordings]))
    return instructions
