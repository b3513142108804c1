"""A loaded Qwen3-VL, its tokens and settings, and the passes of its two models: what all episodes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import patches
from topreward_ros.scoring.base import PrefixScore, ScorerSettings
from topreward_ros.scoring.device import send, send_image
from topreward_ros.scoring.patches import Preprocessing
from topreward_ros.scoring.question.answers import AnswerReader
from topreward_ros.scoring.question.prompts import PromptTokens
from topreward_ros.scoring.qwen3_vl.language import LanguageModel, Pass, PatchFeatures
from topreward_ros.scoring.qwen3_vl.vision import VisionModel


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model and its settings. It holds no state of any video."""

    vision: VisionModel
    language: LanguageModel
    tokens: PromptTokens
    reader: AnswerReader
    preprocessing: Preprocessing
    settings: ScorerSettings
    max_pixels: int  #: of one frame
    patch_side: int  #: [pixels] of a pixel patch, the vision model's unit of input
    merge_side: int  #: [pixel patches] of the block that makes one token

    def frame_size(self, first: Frame) -> tuple[int, int]:
        """(height, width) to which the frames of an episode are resized that begins with ``first``."""
        height, width = first.image.shape[:2]
        return patches.frame_size(height, width, self.patch_side * self.merge_side, self.max_pixels)

    def resize(self, frame: Frame, size: tuple[int, int]) -> torch.Tensor:
        """(3, height, width) uint8 on the model's device; of a GPU also resized there, see `patches`."""
        device = self.language.device
        if device.type == "cuda":
            return patches.resize_in_float(send_image(frame.image, device), size)
        return patches.resize(frame.image, size)

    def encode(self, pixels: torch.Tensor, size: tuple[int, int]) -> list[PatchFeatures]:
        """Features of a batch of patches, by the vision model.

        ``pixels`` (patches, rows * columns, values): of each patch what `patches.cut` makes of it; ``size``:
        (height, width) of the frames.
        """
        rows, columns = (side // self.patch_side for side in size)
        features = self.vision(send(pixels, self.language.device).to(self.language.dtype), rows, columns)
        return [
            # Copies, so that one patch that is kept does not keep the memory of the whole batch.
            PatchFeatures(
                rows // self.merge_side,
                columns // self.merge_side,
                features.embeddings[number].clone(),
                [layer[number].clone() for layer in features.deepstack],
            )
            for number in range(len(pixels))
        ]

    def answer(self, passes: Sequence[Pass]) -> list[torch.Tensor]:
        """Run the language model and wait for the device: a tick's only wait, unless it captures a graph.

        Returns for each pass the log-probabilities (prompts, answers) float32 of the answers.
        """
        logits = self.language.head(self.language.run(passes))  # (prompts of all, vocabulary)
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        answers = torch.stack([log_probs[:, token] for token in self.tokens.answers], dim=1).cpu()
        return list(torch.split(answers, [len(each.answer_positions) for each in passes]))

    def read(self, answers: torch.Tensor, patch_count: int) -> PrefixScore:
        """The score from what `answer` gave for a video of ``patch_count`` patches, without a baseline."""
        return self.reader.read(answers, f"{patch_count} patches", self.language.dtype)
