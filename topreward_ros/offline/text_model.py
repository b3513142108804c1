"""A model that writes: an image-text-to-text checkpoint of transformers, asked in one chat turn.

It is loaded as those that score are, and writes what it finds most likely (greedy), so that the same question
has the same answer. What is asked, and what becomes of the answer, is the matter of who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, ScorerSettings, in_a_line
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint


class AnswerError(UserError):
    """An answer has no end."""


class TextModel:
    """A checkpoint that is loaded for writing."""

    def __init__(self, checkpoint: Checkpoint, settings: ScorerSettings, *, sees: bool) -> None:
        """``sees``: whether it is to be shown pictures. Raises `ScorerError`."""
        from topreward_ros.scoring.checkpoint.load import (
            check_vocabulary_size,
            load_weights,
            quiet_transformers,
            resolve_precision,
            use_threads,
        )

        if checkpoint.notes.wordings:
            raise ScorerError(
                f"model '{checkpoint.name}' was trained to score a list of instructions and writes no text: "
                "give --model with a general one, such as Qwen/Qwen3-VL-8B-Instruct"
            )
        if checkpoint.reward is not None:
            raise ScorerError(
                f"model '{checkpoint.name}' states progress by heads of its own and writes no text: give "
                "--model with one that answers, such as Qwen/Qwen3-VL-8B-Instruct"
            )
        self.checkpoint = checkpoint
        self._device, self._dtype, *_ = resolve_precision(settings, checkpoint)
        check_vocabulary_size(checkpoint)
        with quiet_transformers():
            self._reader = _reader(checkpoint, sees)
        self._tokenizer = self._reader.tokenizer if sees else self._reader
        use_threads(settings.threads)
        self._model: Any = load_weights(
            checkpoint, device=self._device, dtype=self._dtype, quantization="none"
        )
        self._ends = _ends(self._model, self._tokenizer)

    @property
    def place(self) -> tuple[str, str]:
        """Device and precision."""
        return str(self._model.device), str(self._model.dtype).removeprefix("torch.")

    def write(self, parts: Sequence[str | np.ndarray], most_tokens: int) -> str:
        """The answer to texts and pictures, (H, W, 3) uint8 RGB, in their order. Raises `ScorerError`, and
        `AnswerError` for one that has no end after ``most_tokens``."""
        import torch

        from topreward_ros.scoring.checkpoint.load import quiet_transformers

        with quiet_transformers():
            inputs = self._inputs(parts)
        given = {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }
        length = given["input_ids"].shape[1]
        pad = self._tokenizer.pad_token_id
        try:
            with quiet_transformers(), torch.inference_mode():
                written = self._model.generate(
                    **given,
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=most_tokens,
                    eos_token_id=self._ends,
                    pad_token_id=next(iter(self._ends), 0) if pad is None else pad,
                )[0, length:].tolist()
        except Exception as error:  # the library raises whatever the checkpoint makes it raise
            raise ScorerError(
                f"{self.checkpoint.folder} cannot write text ({in_a_line(error)}): use another model"
            ) from error
        text = str(self._tokenizer.decode(written, skip_special_tokens=True))
        if len(written) >= most_tokens and written[-1] not in self._ends:
            raise AnswerError(
                f"the model's answer has no end after {most_tokens} tokens: "
                f"'{printable(' '.join(text.split()), 200)}'; use a model that follows instructions"
            )
        return text

    def _inputs(self, parts: Sequence[str | np.ndarray]) -> Any:
        """The model's inputs for a chat of one turn. Raises `ScorerError`."""
        content: Any = "".join(part for part in parts if isinstance(part, str))
        if any(isinstance(part, np.ndarray) for part in parts):
            content = [_item(part) for part in parts]
        try:
            return self._reader.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            )
        except Exception as error:  # a template may raise anything, and so may a tokenizer
            raise _cannot_be_asked(self.checkpoint, error) from error


def _item(part: str | np.ndarray) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    from PIL import Image

    return {"type": "image", "image": Image.fromarray(part)}


def _reader(checkpoint: Checkpoint, sees: bool) -> Any:
    """The processor of a model that is shown pictures, else its tokenizer. Raises `ScorerError`."""
    from transformers import AutoTokenizer

    from topreward_ros.scoring.any_vlm.image_family import read_processor

    if sees:
        return read_processor(checkpoint.folder, checkpoint.model_type)
    library: Any = AutoTokenizer  # without type hints of its own
    try:
        return library.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _cannot_be_asked(checkpoint, error) from error


def _cannot_be_asked(checkpoint: Checkpoint, error: Exception) -> ScorerError:
    return ScorerError(
        f"{checkpoint.folder} cannot be asked ({in_a_line(error)}): it needs tokenizer files that "
        "transformers can read, and a chat template, as models that follow instructions have them"
    )


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the checkpoint may name several."""
    named = model.generation_config.eos_token_id
    numbers = named if isinstance(named, list) else [named]
    return sorted({number for number in (*numbers, tokenizer.eos_token_id) if number is not None})
