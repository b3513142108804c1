"""The family of all types that are not in video_families.py: the checkpoint's processor makes the inputs.

Each frame is an image to that processor, which runs again for every question. Where it needs a package that
is not installed, torchvision above all, its error says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch

from topreward_ros.scoring import patches
from topreward_ros.scoring.any_vlm.family import Family, Inputs, Video, chw_tensor
from topreward_ros.scoring.any_vlm.video_families import FAMILIES
from topreward_ros.scoring.base import ScorerError, in_a_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_RENDER_S = 10.0  # [s] that a chat template may take; a healthy one takes milliseconds
_MARK = "THE-QUESTION"  # replaces the question while the chat template runs


class ImageFamily(Family):
    """The stream that the processor's chat template makes, cut after the question."""

    uses_times = False

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(config.model_type, tokenizer, max_pixels)
        self._processor = read_processor(folder, self.model_type)
        self._render = lru_cache(maxsize=256)(self._make_render)

    def prompt_skeleton(self) -> str:
        """See `Family.prompt_skeleton`; the processor later expands the token of each image into many."""
        return self._render(2)[0]

    def chat_suffix(self) -> str:
        """See `Family.chat_suffix`."""
        chat_suffix = self._render(2)[1]
        if not chat_suffix:
            raise ScorerError(
                f"chat_template is true, and the model of type {self.model_type!r} has no chat template: set "
                "it to false, or put the checkpoint's chat_template.jinja into its folder"
            )
        return chat_suffix

    def encode(self, text: str) -> list[int]:
        """See `Family.encode`; the processor's tokenizer may differ from tokenizer.json in details."""
        return list(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        """See `Family.inputs`."""
        images = [self._bounded(image).permute(1, 2, 0).numpy() for image in map(chw_tensor, video.frames)]
        before, _ = self._render(len(video.frames))
        begin = getattr(self._processor.tokenizer, "bos_token", None)
        for question in questions:
            text = before + question
            made = self._processor(
                text=[text],
                images=[images],
                return_tensors="pt",
                input_data_format="channels_last",  # else it guesses, wrongly for an image of three rows
                add_special_tokens=not (begin and text.startswith(begin)),
            )
            inputs = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
            if lists := [name for name in made if name.startswith("pixel") and name not in inputs]:
                raise ScorerError(
                    f"the processor of the model of type {self.model_type!r} gives {lists[0]} as no tensor: "
                    "models of this type are not supported"
                )
            if inputs["input_ids"][0, -1] != self.encode(question)[-1]:
                raise ScorerError(
                    f"the processor of the model of type {self.model_type!r} adds text after the question, "
                    "where the answer must come: models of this type are not supported"
                )
            yield inputs

    def _bounded(self, image: torch.Tensor) -> torch.Tensor:
        """A frame (3, height, width) shrunk to ``max_pixels``; the processor does any other resizing."""
        height, width = image.shape[1:]
        if height * width <= self.max_pixels:
            return image
        return patches.resize_tensor(image, patches.frame_size(height, width, 1, self.max_pixels))

    def _make_render(self, count: int) -> tuple[str, str]:
        """The texts before and after the question in a chat about ``count`` images. Raises `ScorerError`."""
        image, processor = {"type": "image"}, self._processor
        if not getattr(processor, "chat_template", None):
            token = getattr(processor, "image_token", None)
            if not token:
                raise ScorerError(
                    f"the processor of the model of type {self.model_type!r} has neither a chat template nor "
                    "an image token, which tell how to show it a video: such models are not supported"
                )
            return token * count, ""
        chat = [{"role": "user", "content": [*[image] * count, {"type": "text", "text": _MARK}]}]
        try:
            with _time_limit(_RENDER_S):
                text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template may raise anything
            raise ScorerError(
                f"the chat template of the model of type {self.model_type!r} fails on several images "
                f"({in_a_line(error)}): models of this type are not supported"
            ) from error
        before, found, after = text.partition(_MARK)
        if not found:
            raise ScorerError(
                f"the chat template of the model of type {self.model_type!r} leaves out the question: "
                "restore it from the checkpoint"
            )
        return before, after


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in Python code that runs longer in this thread; a template may have no end."""
    deadline, before = monotonic() + seconds, sys.gettrace()

    def look(*_: object) -> Any:
        if monotonic() > deadline:
            raise TimeoutError(f"it was not done after {seconds:g} s")
        return look

    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


def read_processor(folder: Path, model_type: str) -> Any:
    """The processor of a checkpoint, for text and images. Raises `ScorerError`."""
    from transformers import AutoProcessor

    library: Any = AutoProcessor  # without type hints of its own
    try:
        made = library.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ScorerError(
            f"the processor of {folder}, a model of type {model_type!r}, cannot be made "
            f"({in_a_line(error)}): install the Python package that it names, or restore the checkpoint's "
            f"processor files; models of type {', '.join(FAMILIES)} and qwen3_vl need no processor"
        ) from error
    if not hasattr(made, "image_processor") or not hasattr(made, "tokenizer"):
        raise ScorerError(
            f"{folder}, a model of type {model_type!r}, has no processor for text and images: copy all files "
            "of the checkpoint there, preprocessor_config.json among them"
        )
    return made
