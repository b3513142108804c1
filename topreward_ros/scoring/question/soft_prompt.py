"""Soft prompts: learned vectors in the place of the question's tokens, in a file that ``prompts`` takes.

A soft prompt began as a template. Each token of it became a vector, the embedding of that token, and some of
the vectors were trained through the frozen model (prefix tuning). The instruction stays text, so that the
vectors serve any task:

    vectors before | tokens of the instruction | vectors after | the answer comes next

Vectors mean something to the model that they were trained with and to no other: the file tells the model's
revision and the framing, and is refused with another. Training is in qwen3_vl/soft_training.py.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.plain_files import PlainFileError, TooLargeError, read_plain
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import is_git_lfs_pointer, lfs_mend
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.question.templates import INSTRUCTION_PLACEHOLDER, asked_question, problem_with

SUFFIX = ".safetensors"  #: by which ``prompts`` is known to name a soft prompt
FORMAT = "topreward_soft_prompt/1"  #: raise the number when something changes its meaning or goes
MAX_VECTORS = 512  #: before the instruction, and behind it

_MOST_BYTES = 64 << 20
_MOST_HIDDEN = 16384
_LARGEST = 1e4  # of a number; embeddings are of about 0.02 to 1
_MARKS = ("format", "revision", "layout", "chat_template", "contrastive", "template")  # of the metadata
_LONGEST_MARK = 16_384  # characters; a template of twice MAX_VECTORS tokens is shorter


@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """Vectors, and what they are for."""

    before: np.ndarray  #: (n, hidden) float32, stand before the instruction
    after: np.ndarray  #: (m, hidden) float32, stand behind it
    revision: str  #: of the model, see `ScorerInfo`
    layout: str  #: see `prompts.Framing`
    chat_template: bool
    contrastive: bool  #: trained for True against False alone
    template: str  #: that it began as
    about: Mapping[str, str] = field(default_factory=dict)  #: for people: the model's name, what was found

    @property
    def lead(self) -> str:
        """What stands between the vectors and the instruction: a space where the template has one."""
        return " " if self.template.partition(INSTRUCTION_PLACEHOLDER)[0].endswith(" ") else ""

    @property
    def digest(self) -> str:
        """First 16 hex digits of a SHA-256 over all that decides the token stream."""
        content = hashlib.sha256(json.dumps([FORMAT, self.lead]).encode())
        for array in (self.before, self.after):
            content.update(str(array.shape).encode() + np.ascontiguousarray(array, "<f4").tobytes())
        return content.hexdigest()[:16]


def is_soft_prompt(name: str) -> bool:
    """Whether ``name``, as the parameter ``prompts`` has it, is that of a soft prompt."""
    return name.lower().endswith(SUFFIX)


def asked_of(settings: ScorerSettings) -> tuple[str, ...]:
    """What tells the question that ``settings`` ask for from others: the head of its file, and its templates
    or a soft prompt's digest. Raises `ScorerError`.
    """
    if is_soft_prompt(settings.prompts):
        return ("", f"soft prompt {read_soft_prompt(settings.prompts).digest}")
    question = asked_question(settings)
    return (question.head, *question.templates)


def soft_prompt_file(soft: SoftPrompt) -> bytes:
    """The content of a file of ``soft``."""
    from safetensors.numpy import save

    marks = {
        "format": FORMAT,
        "revision": soft.revision,
        "layout": soft.layout,
        "chat_template": json.dumps(soft.chat_template),
        "contrastive": json.dumps(soft.contrastive),
        "template": soft.template,
    }
    arrays = {name: np.ascontiguousarray(getattr(soft, name), np.float32) for name in ("before", "after")}
    return bytes(save(arrays, {**soft.about, **marks}))


def read_soft_prompt(name: str) -> SoftPrompt:
    """The soft prompt in the file ``name``. Raises `ScorerError`, which says what is wrong with it."""
    path = Path(name).expanduser()
    shown = f"prompts '{printable(str(path), 200)}'"
    try:
        content = read_plain(path, _MOST_BYTES)
    except TooLargeError as error:
        raise ScorerError(f"{shown} {error}: it is no soft prompt") from error
    except PlainFileError as error:
        raise ScorerError(f"{shown} {error}") from error
    except OSError as error:
        raise ScorerError(
            f"{shown}, a soft prompt, cannot be read ({error.strerror or error}): name one that `topreward "
            "prompts search --soft` wrote"
        ) from error
    if is_git_lfs_pointer(content):
        raise ScorerError(f"{shown} {lfs_mend(path.parent)}")
    return _parsed(content, shown)


def _parsed(content: bytes, shown: str) -> SoftPrompt:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        (length,) = struct.unpack_from("<Q", content)
        marks = parsed_json(content[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        said = printable(str(error), 100)
        raise ScorerError(f"{shown} is damaged, or cut short ({said}): copy it again") from error
    if (
        not isinstance(marks, dict)
        or marks.get("format") != FORMAT
        or not all(isinstance(text, str) for text in marks.values())
        or not set(_MARKS) <= set(marks)
        or not {marks["chat_template"], marks["contrastive"]} <= {"true", "false"}
    ):
        raise ScorerError(
            f"{shown} is no soft prompt of this version ({FORMAT}): name one that `topreward prompts search "
            "--soft` wrote"
        )
    if long := [name for name, text in marks.items() if len(text) > _LONGEST_MARK]:
        raise ScorerError(
            f"{shown} is no soft prompt that works: its {printable(long[0], 60)} has more than "
            f"{_LONGEST_MARK:,} characters; train it again"
        )
    if problem := _problem_with_arrays(arrays) or problem_with(marks["template"], {}):
        raise ScorerError(f"{shown} is no soft prompt that works: {printable(problem, 200)}; train it again")
    return SoftPrompt(
        arrays["before"],
        arrays["after"],
        marks["revision"],
        marks["layout"],
        marks["chat_template"] == "true",
        marks["contrastive"] == "true",
        marks["template"],
        {name: text for name, text in marks.items() if name not in _MARKS},
    )


def _problem_with_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    if set(arrays) != {"before", "after"}:
        return f"it holds {', '.join(sorted(arrays)) or 'nothing'}, and must hold before and after"
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] not in range(1, _MOST_HIDDEN + 1):
            return f"{name} is {array.dtype} of shape {array.shape}, and must be float32 (vectors, hidden)"
        if len(array) > MAX_VECTORS:
            return f"{name} has {len(array)} vectors, more than {MAX_VECTORS}"
        if not (np.abs(array) < _LARGEST).all():
            return f"{name} has numbers that are not finite, or larger than any embedding"
    before, after = arrays["before"], arrays["after"]
    if before.shape[1] != after.shape[1]:
        return f"before and after have vectors of {before.shape[1]} and {after.shape[1]} numbers"
    return "" if len(after) else "after has no vector, and the answer must follow one"


def check_fits(soft: SoftPrompt, name: str, *, model: str, revision: str, hidden: int) -> None:
    """Raise `ScorerError` where ``soft``, of the file ``name``, was trained with another model.

    ``model`` is what the user calls it, ``hidden`` the size of its embeddings.
    """
    shown = f"prompts '{printable(name, 200)}'"
    if soft.revision != revision:
        other = printable(soft.about.get("model", "a model"), 100)
        raise ScorerError(
            f"{shown} is a soft prompt of {other} (revision {printable(soft.revision, 60)}), and means "
            f"nothing to {model} (revision {revision}): train one with that, or leave prompts empty"
        )
    if soft.before.shape[1] != hidden:
        raise ScorerError(
            f"{shown} has vectors of {soft.before.shape[1]} numbers, and {model} takes {hidden}: train one "
            "anew"
        )
