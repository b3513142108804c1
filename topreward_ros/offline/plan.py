"""A model that generates text proposes the stages of a task, for a person to edit.

The model is an image-text-to-text checkpoint of transformers, loaded as those that score are; it writes the
answer that it finds most likely (greedy). Nothing here sets a task: the list is returned, and the command
prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topreward_ros.core.plan import PlanError, question, stages_of
from topreward_ros.core.printable import printable
from topreward_ros.offline.encoded_image import EncodedImageError, rgb8_of, samples_of
from topreward_ros.scoring.base import ScorerError, ScorerSettings, in_a_line
from topreward_ros.scoring.checkpoint.checkpoint import Checkpoint, open_checkpoint

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
    checkpoint = open_checkpoint(model)
    if checkpoint.notes.wordings:
        raise ScorerError(
            f"model '{checkpoint.name}' was trained to score a list of instructions and writes no text: give "
            "--model with a general one, such as Qwen/Qwen3-VL-8B-Instruct"
        )
    text = _generate(checkpoint, settings, question(task, sees=picture is not None), picture)
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


def _generate(
    checkpoint: Checkpoint, settings: ScorerSettings, asked: str, picture: np.ndarray | None
) -> str:
    """The most likely answer to a chat turn of ``asked``. Raises `ScorerError`, `PlanError`."""
    import torch

    from topreward_ros.scoring.checkpoint.load import (
        check_vocabulary_size,
        load_weights,
        quiet_transformers,
        resolve_device_and_dtype,
        use_threads,
    )

    device, dtype = resolve_device_and_dtype(settings, checkpoint)
    check_vocabulary_size(checkpoint)
    with quiet_transformers():
        inputs, tokenizer = _inputs(checkpoint, asked, picture)
    use_threads(settings.threads)
    model: Any = load_weights(checkpoint, device=device, dtype=dtype, quantization="none")
    given = {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }
    length = given["input_ids"].shape[1]
    ends = _ends(model, tokenizer)
    pad = tokenizer.pad_token_id
    try:
        with quiet_transformers(), torch.inference_mode():
            written = model.generate(
                **given,
                do_sample=False,
                num_beams=1,
                max_new_tokens=_MOST_TOKENS,
                eos_token_id=ends,
                pad_token_id=next(iter(ends), 0) if pad is None else pad,
            )[0, length:].tolist()
    except Exception as error:  # the library raises whatever the checkpoint makes it raise
        raise ScorerError(
            f"{checkpoint.folder} cannot write text ({in_a_line(error)}): use another model"
        ) from error
    text = str(tokenizer.decode(written, skip_special_tokens=True))
    if len(written) >= _MOST_TOKENS and written[-1] not in ends:
        raise PlanError(
            f"the model's answer has no end after {_MOST_TOKENS} tokens: "
            f"'{printable(' '.join(text.split()), 200)}'; use a model that follows instructions"
        )
    return text


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the checkpoint may name several."""
    named = model.generation_config.eos_token_id
    numbers = named if isinstance(named, list) else [named]
    return sorted({number for number in (*numbers, tokenizer.eos_token_id) if number is not None})


def _inputs(checkpoint: Checkpoint, asked: str, picture: np.ndarray | None) -> tuple[Any, Any]:
    """The model's inputs for a chat of one turn, and its tokenizer. Raises `ScorerError`."""
    from transformers import AutoTokenizer

    from topreward_ros.scoring.any_vlm.image_family import read_processor

    library: Any = AutoTokenizer  # without type hints of its own
    content: Any = asked
    if picture is not None:
        from PIL import Image

        reader = read_processor(checkpoint.folder, checkpoint.model_type)
        content = [{"type": "image", "image": Image.fromarray(picture)}, {"type": "text", "text": asked}]
    try:
        if picture is None:
            reader = library.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
        inputs = reader.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
    except Exception as error:  # a template may raise anything, and so may a tokenizer
        raise ScorerError(
            f"{checkpoint.folder} cannot be asked ({in_a_line(error)}): it needs tokenizer files that "
            "transformers can read, and a chat template, as models that follow instructions have them"
        ) from error
    return inputs, reader if picture is None else reader.tokenizer
