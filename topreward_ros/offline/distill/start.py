"""What the training of a student starts from: the embedded model, an earlier student, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig

from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import normalized_instruction
from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.printable import printable
from topreward_ros.offline.distill.network import Size, Student, make_config
from topreward_ros.offline.distill.sizes import CANDIDATES, Candidate
from topreward_ros.scoring.base import EMBEDDED
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint, open_checkpoint
from topreward_ros.scoring.checkpoint.load import load_weights
from topreward_ros.scoring.checkpoint.quantization import NONE
from topreward_ros.scoring.checkpoint.weight_files import check_files

NOTHING = "nothing"  #: to start from

#: Highest learning rate: of drawn weights, of the embedded model's, of those of an earlier student.
#: With three times the last one a student forgets first, for hundreds of steps (bench/RESULTS.md).
_DRAWN_RATE, _EMBEDDED_RATE, _STUDENT_RATE = 8e-4, 5e-4, 1e-4

_STORED = ("F16", "BF16", "F32", "F64")
_PARTS = ("text_config", "vision_config")
_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
_NO_ARITHMETIC = {"dtype", "transformers_version", "architectures", "use_cache", "initializer_range"}


class StartError(UserError):
    """A student cannot go on from that model."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a student starts from."""

    given: str  #: as the user named it
    tokenizer: Tokenizer | None = None  #: None: it is made for the instructions
    weights: Mapping[str, torch.Tensor] | None = None  #: of `Student.model`, float32; None: they are drawn
    size: Size | None = None  #: of the weights
    name: str = ""  #: of whose they are, for sentences
    sha256: str = ""  #: of the file of an earlier student's weights
    instructions: tuple[str, ...] = ()  #: that an earlier student understands

    @property
    def is_student(self) -> bool:
        """Whether an earlier student is taught again."""
        return bool(self.sha256)

    @property
    def doubt(self) -> str:
        """What it makes doubtful of the films that are held out: a sentence; empty: nothing."""
        if not self.is_student:
            return ""
        return (
            f"{self.name} may have learnt from films that are held out now: judge the new one on films that "
            "neither has seen"
        )

    def given_up(self, own: Sequence[str]) -> str:
        """Which tasks of an earlier student are not among ``own``: a sentence; empty: none."""
        taught = set(map(normalized_instruction, own))
        left = [it for it in self.instructions if normalized_instruction(it) not in taught]
        if not left:
            return ""
        return (
            f"{self.name} understands '{printable(left[0], 100)}'"
            f"{f' and {len(left) - 1} more' if len(left) > 1 else ''}, of which there are no episodes here: "
            "the new one will not"
        )

    @property
    def able(self) -> list[Candidate]:
        """What a budget may choose from: of an earlier student's size; else of the embedded model's or below
        it; all where nothing is trained already."""
        if self.size is None:
            return list(CANDIDATES)
        return [
            it for it in CANDIDATES if it.size == self.size or (not self.is_student and it.size < self.size)
        ]

    def check_size(self, name: str) -> None:
        """Raise `StartError` where ``name``, if any, is no size, or not an earlier student's."""
        names = [it.name for it in (self.able if self.is_student else CANDIDATES)]
        if name and name not in names:
            whose = f"no size of {self.name}" if self.is_student else "none"
            raise StartError(
                f"--size '{printable(name, 100)}' is {whose}: take {', '.join(map(repr, names))}, or leave "
                "it out"
            )

    def rate_for(self, size: Size) -> float:
        """Highest learning rate of a student of ``size``."""
        if size != self.size:
            return _DRAWN_RATE
        return _STUDENT_RATE if self.is_student else _EMBEDDED_RATE

    def give(self, student: Student, size: Size) -> None:
        """Give ``student``, which is of ``size``, the weights, where these are of its size."""
        if self.weights is not None and size == self.size:
            student.model.load_state_dict(dict(self.weights))


def open_start(name: str) -> Start:
    """``name``: 'embedded', 'nothing', or the folder of an earlier student.

    Raises `StartError`, `ScorerError`.
    """
    if name == NOTHING:
        return Start(name)
    if name != EMBEDDED and (fault := _fault_of(name)):
        raise StartError(
            f"--start-from '{printable(name, 300)}' {fault}: name the folder of an earlier student, "
            f"'{EMBEDDED}' or '{NOTHING}'"
        )
    checkpoint = open_checkpoint(name)
    size = _size_of(checkpoint)
    if name != EMBEDDED:
        _check_stored(checkpoint)
        _check_tokenizer(checkpoint)
    model = load_weights(checkpoint, device=torch.device("cpu"), dtype=torch.float32, quantization=NONE)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    if name == EMBEDDED:
        return Start(name, checkpoint.tokenizer, weights, size, "the embedded model")
    whose = f"the student in {printable(str(checkpoint.folder), 300)}"
    digest = checkpoint.weights_hash
    return Start(name, checkpoint.tokenizer, weights, size, whose, digest, checkpoint.notes.wordings)


def _fault_of(name: str) -> str:
    """Why nothing at a path can be an earlier student; empty where something may be."""
    try:
        path = Path(name).expanduser()
        if name and path.is_file():
            return "is a file"
        if not (name and path.is_dir()):
            return "is no folder"
        return "" if (path / "config.json").exists() else "holds no model (no config.json)"
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null character
        return f"cannot be read ({type(error).__name__})"


def _size_of(checkpoint: Checkpoint) -> Size:
    """Which of the students' sizes a checkpoint has. Raises `StartError`.

    All that its network computes with must be as a student's is made: only the weights are taken over.
    """
    for size in {it.size for it in CANDIDATES}:
        try:
            made = make_config(checkpoint.tokenizer, size)
            told = Qwen3VLConfig(**checkpoint.config)
        except Exception:  # it lacks a token of the prompt, or a value is one that no model has
            break
        if _arithmetic(told) == _arithmetic(made):
            return size
    raise StartError(
        f"--start-from {printable(checkpoint.name, 300)}: {printable(str(checkpoint.folder), 300)} holds no "
        "student (its config.json is none that `topreward distill` makes): name the folder of one, "
        f"'{EMBEDDED}' or '{NOTHING}'"
    )


def _check_stored(checkpoint: Checkpoint) -> None:
    """Raise `StartError` for weights that are stored as something that no training writes: they would be
    taken for numbers that they are not, or that are rounded away."""
    strange = {it.dtype: it.name for it in check_files(checkpoint.folder).values() if it.dtype not in _STORED}
    for dtype, weight in strange.items():
        raise StartError(
            f"--start-from {_shown(checkpoint)}: the weight {printable(weight, 200)} is stored as "
            f"{printable(dtype, 40)}, and a student's are {', '.join(_STORED)}: name the folder as "
            "`topreward distill` wrote it"
        )


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    """Raise `StartError` for a tokenizer that no student was trained with: the words of a question would be
    others than its weights know, and nothing else would show it.

    A student has the tokenizer of the embedded model, or, where it began with nothing, one that was trained
    on its instructions in the same way.
    """
    own, theirs = (parsed_json(it.tokenizer.to_str()) for it in (checkpoint, open_checkpoint(EMBEDDED)))
    own_ids, their_ids = own["model"].pop("vocab"), theirs["model"].pop("vocab")
    own_merges, their_merges = own["model"].pop("merges"), theirs["model"].pop("merges")
    is_embeddeds = own_ids == their_ids and own_merges == their_merges
    is_trained = own_ids.keys() != their_ids.keys() and own_ids == _ids_by(own_ids, own_merges)
    if not ((is_embeddeds or is_trained) and _without_ids(own) == _without_ids(theirs)):
        raise StartError(
            f"--start-from {_shown(checkpoint)}: its tokenizer.json is none that a student was trained with "
            "(its tokens have other numbers, or text is cut otherwise): name the folder as `topreward "
            "distill` wrote it"
        )


def _ids_by(vocabulary: Iterable[str], merges: Iterable[Sequence[str]]) -> dict[str, int]:
    """The number of each token as a training gives it: single characters first, in their order, then what
    the merges make, in theirs."""
    tokens = dict.fromkeys([*sorted(it for it in vocabulary if len(it) == 1), *map("".join, merges)])
    return {token: number for number, token in enumerate(tokens)}


def _without_ids(told: dict[str, Any]) -> dict[str, Any]:
    """What a tokenizer's JSON tells beside its vocabulary; added tokens have the numbers behind that."""
    added = [{key: value for key, value in it.items() if key != "id"} for it in told["added_tokens"]]
    return {**told, "added_tokens": added}


def _shown(checkpoint: Checkpoint) -> str:
    return f"'{printable(str(checkpoint.folder), 300)}'"


def _arithmetic(config: Qwen3VLConfig) -> dict[str, Any]:
    """What a config.json says that a network computes with."""
    values = config.to_dict()
    parts = {
        part: {key: value for key, value in values[part].items() if key not in _NO_ARITHMETIC}
        for part in _PARTS
    }
    return {**parts, **{key: values[key] for key in (*_TOKENS, "tie_word_embeddings")}}
