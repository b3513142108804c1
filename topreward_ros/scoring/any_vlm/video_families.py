"""Families whose token stream and pixels are made here, with PyTorch alone.

Text and pixels are those of their processors in transformers, given tensors. The processors themselves need
torchvision for videos, and SmolVLM's needs num2words.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import interpolate

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import patches
from topreward_ros.scoring.any_vlm.family import Family, Inputs, Video, chw_tensor
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.json_files import read_json
from topreward_ros.scoring.patches import read_preprocessing

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class VideoFamily(Family):
    """What these families have in common.

    A part of a video is what has placeholders of its own: a frame, or in `Qwen2Family` a pair of frames.
    """

    placeholder: ClassVar[str]  #: token whose embeddings the model replaces by features of the video
    tokens: ClassVar[tuple[str, ...]]  #: the other added tokens of the stream
    chat_suffix_text = "<|im_end|>\n<|im_start|>assistant\n"

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(config.model_type, tokenizer, max_pixels)
        self._tokenizer = tokenizer
        self._preprocessing = read_preprocessing(folder, required=True)
        self._resized: dict[Frame, torch.Tensor] = {}  # of the newest video, (3, height, width) uint8 each
        for token in (*self.tokens, self.placeholder):
            if tokenizer.token_to_id(token) is None:
                raise ScorerError(
                    f"{folder}: the tokenizer has no token {token!r}, with which a model of type "
                    f"{self.model_type!r} reads a video: restore the checkpoint's own tokenizer.json"
                )

    @abstractmethod
    def before(self, seconds: Sequence[float], placeholders: int) -> str:
        """The text before the question, with ``placeholders`` placeholders for each part of the video."""

    @abstractmethod
    def placeholders(self, frame: Frame) -> int:
        """How many placeholders each part has, in a video with the first frame ``frame``."""

    @abstractmethod
    def pixel_inputs(self, video: Video) -> Inputs:
        """The model's inputs for the pixels of ``video``."""

    @abstractmethod
    def resize(self, image: torch.Tensor) -> torch.Tensor:
        """A frame (3, height, width) uint8 at the size at which the model sees it."""

    def inputs_from_ids(self, ids: torch.Tensor) -> Inputs:
        """Further inputs that follow from the token ids (1, tokens)."""
        return {}

    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        """See `Family.inputs`."""
        pixels = self.pixel_inputs(video)
        before = self.before(video.seconds, self.placeholders(video.frames[0]))
        for question in questions:
            ids = torch.tensor([self.encode(before + question)])
            yield {"input_ids": ids, **pixels, **self.inputs_from_ids(ids)}

    def encode(self, text: str) -> list[int]:
        """See `Family.encode`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt_skeleton(self) -> str:
        """See `Family.prompt_skeleton`."""
        return self.before((0.0, 0.5), 1)

    def chat_suffix(self) -> str:
        """See `Family.chat_suffix`."""
        return self.chat_suffix_text

    def forget(self) -> None:
        """See `Family.forget`."""
        self._resized.clear()

    def _id(self, token: str) -> int:
        return self._tokenizer.token_to_id(token) or 0  # `__init__` has checked that it is there

    def _check_placeholder(self, folder: Path, configured: int) -> None:
        """Raise `ScorerError` where config.json has another id for `placeholder` than the tokenizer."""
        if self._id(self.placeholder) != configured:
            raise ScorerError(
                f"{folder}: config.json has {configured} for the token of the video, the tokenizer has "
                f"{self._id(self.placeholder)} for {self.placeholder!r}: they belong to different models"
            )

    def _pixels_of(self, video: Video) -> torch.Tensor:
        """All frames at the size at which the model sees them, (frames, 3, height, width) uint8."""
        resized = {}
        for frame in video.frames:
            if frame not in resized:
                cached = self._resized.get(frame)
                resized[frame] = cached if cached is not None else self.resize(chw_tensor(frame))
        if len(resized) > 1:  # not for a static video: the next one has the frames of the episode again
            self._resized = resized
        return torch.stack([resized[frame] for frame in video.frames])

    def _normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        return patches.normalized(pixels, self._preprocessing)


class Qwen2Family(VideoFamily):
    """Qwen2-VL and Qwen2.5-VL: each pair of frames is read as one; their size keeps the camera's aspect."""

    placeholder = "<|video_pad|>"
    tokens = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.video_token_id)
        vision = config.vision_config
        self._patch_side, self._merge_side = int(vision.patch_size), int(vision.spatial_merge_size)
        if vision.temporal_patch_size != 2:
            raise ScorerError(f"{folder}: temporal_patch_size must be 2, as in every released Qwen2.5-VL")
        # Qwen2.5-VL, unlike Qwen2-VL, has the duration of a pair as an input.
        self._has_pair_duration = hasattr(vision, "tokens_per_second")
        self._size = (0, 0)  # (height, width) of the frames as the model sees them

    def before(self, seconds: Sequence[float], placeholders: int) -> str:
        """See `VideoFamily.before`."""
        video = self.placeholder * (placeholders * ((len(seconds) + 1) // 2))
        return f"<|im_start|>user\n<|vision_start|>{video}<|vision_end|>"

    def placeholders(self, frame: Frame) -> int:
        """See `VideoFamily.placeholders`."""
        height, width = self._size_for(frame)
        return height * width // (self._patch_side * self._merge_side) ** 2

    def pixel_inputs(self, video: Video) -> Inputs:
        """See `VideoFamily.pixel_inputs`; an odd last frame is repeated."""
        size = self._size_for(video.frames[0])
        if size != self._size:
            self.forget()
            self._size = size
        pixels = self._pixels_of(video)
        if len(pixels) % 2:
            pixels = torch.cat([pixels, pixels[-1:]])
        rows = [
            patches.cut(first, second, self._preprocessing, self._patch_side, self._merge_side)
            for first, second in zip(pixels[::2], pixels[1::2], strict=True)
        ]
        grid = [[len(rows), size[0] // self._patch_side, size[1] // self._patch_side]]
        made = {"pixel_values_videos": torch.cat(rows), "video_grid_thw": torch.tensor(grid)}
        if self._has_pair_duration:
            steps = max(1, len(video.seconds) - 1)
            made["second_per_grid_ts"] = torch.tensor([2 * video.seconds[-1] / steps], dtype=torch.float64)
        return made

    def resize(self, image: torch.Tensor) -> torch.Tensor:
        """See `VideoFamily.resize`."""
        return patches.resize_tensor(image, self._size)

    def inputs_from_ids(self, ids: torch.Tensor) -> Inputs:
        """See `VideoFamily.inputs_from_ids`: the type of each token, 2 for the video and 0 for text."""
        return {"mm_token_type_ids": 2 * (ids == self._id(self.placeholder)).int()}

    def _size_for(self, frame: Frame) -> tuple[int, int]:
        height, width = frame.image.shape[:2]
        return patches.frame_size(height, width, self._patch_side * self._merge_side, self.max_pixels)


class _SquareFamily(VideoFamily):
    """Families that see every frame as a square of one size.

    Where the square has more than ``max_pixels``, a frame is shrunk to ``max_pixels`` before it is stretched.
    """

    _side = 0  # [pixels]

    def _use_side(self, side: int) -> None:
        """Set the side of the square [pixels], as the checkpoint has it."""
        self._side = side
        self._shrunk_pixels = self.max_pixels if side * side > self.max_pixels else 0  # 0: no shrinking
        self.max_pixels = min(self.max_pixels, side * side)

    def resize(self, image: torch.Tensor) -> torch.Tensor:
        """See `VideoFamily.resize`."""
        height, width = image.shape[1:]
        if self._shrunk_pixels and height * width > self._shrunk_pixels:
            image = patches.resize_tensor(image, patches.frame_size(height, width, 1, self._shrunk_pixels))
        return self.stretch(image)

    def stretch(self, image: torch.Tensor) -> torch.Tensor:
        """A frame (3, height, width) uint8 stretched to (3, side, side)."""
        return patches.resize_tensor(image, (self._side, self._side))


class InternVLFamily(_SquareFamily):
    """InternVL 2.5 to 3.5, as converted for transformers (``-hf`` on the hub): frames are numbered."""

    uses_times = False
    placeholder = "<IMG_CONTEXT>"
    tokens = ("<|im_start|>", "<|im_end|>", "<img>", "</img>")

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.image_token_id)
        height, width = config.vision_config.image_size
        if height != width:
            raise ScorerError(f"{folder}: image_size is {height} x {width}, and only squares are read")
        self._use_side(height)
        self._placeholders = int(config.image_seq_length)

    def before(self, seconds: Sequence[float], placeholders: int) -> str:
        """See `VideoFamily.before`."""
        image = f"<img>{self.placeholder * placeholders}</img>"
        frames = "\n".join(f"Frame{number}: {image}" for number in range(1, len(seconds) + 1))
        return f"<|im_start|>user\n{frames}\n"

    def placeholders(self, frame: Frame) -> int:
        """See `VideoFamily.placeholders`."""
        return self._placeholders

    def pixel_inputs(self, video: Video) -> Inputs:
        """See `VideoFamily.pixel_inputs`."""
        return {"pixel_values": self._normalized(self._pixels_of(video))}


class SmolVLMFamily(_SquareFamily):
    """SmolVLM2: each frame has its minute and second, and the number of frames is written in words."""

    placeholder = "<image>"
    chat_suffix_text = "<end_of_utterance>\nAssistant:"
    tokens = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>")

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.image_token_id)
        vision = config.vision_config
        self._use_side(int(vision.image_size))
        self._placeholders = int((vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2)

    def before(self, seconds: Sequence[float], placeholders: int) -> str:
        """See `VideoFamily.before`."""
        around = "<fake_token_around_image>"
        image = f"{around}<global-img>{self.placeholder * placeholders}{around}"
        frames = "".join(f"\nFrame from {int(s) // 60:02d}:{int(s) % 60:02d}:{image}" for s in seconds)
        length = int(seconds[-1])
        lasting = f"{length // 3600}:{length // 60 % 60:02d}:{length % 60:02d}"
        return (
            f"<|im_start|>User: You are provided the following series of {in_words(len(seconds))} frames "
            f"from a {lasting} [H:MM:SS] video.\n{frames}\n\n"
        )

    def placeholders(self, frame: Frame) -> int:
        """See `VideoFamily.placeholders`."""
        return self._placeholders

    def pixel_inputs(self, video: Video) -> Inputs:
        """See `VideoFamily.pixel_inputs`."""
        return {"pixel_values": self._normalized(self._pixels_of(video))[None]}

    def stretch(self, image: torch.Tensor) -> torch.Tensor:
        """See `_SquareFamily.stretch`; as the processor does, resized by its longer side before."""
        height, width = image.shape[1:]
        shorter = int(min(height, width) * self._side / max(height, width))
        shorter = max(1, shorter + shorter % 2)
        size = (shorter, self._side) if width >= height else (self._side, shorter)
        return super().stretch(patches.resize_tensor(image, size))


class Molmo2Family(_SquareFamily):
    """Molmo2: the video stands before the user's turn, each frame after its time."""

    placeholder = "<im_patch>"
    tokens = ("<|im_start|>", "<|im_end|>", "<im_start>", "<im_end>", "<frame_start>", "<frame_end>")
    _pooling = 3  # side of the block of pixel patches that makes one token of a video

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.image_patch_id)
        vision = config.vision_config
        self._use_side(int(vision.image_size[0]))
        self._patch_side = int(vision.patch_size)
        self._rows = self._side // self._patch_side  # of pixel patches
        self._visual = torch.tensor([self._id(t) for t in (*self.tokens[2:], self.placeholder)])
        self._begin = _beginning(folder)
        path = folder / "processor_config.json"
        processor = read_json(path) if path.is_file() else {}
        uses_frame_tokens = processor.get("use_frame_special_tokens", True)
        self._frame_tokens = (
            ("<frame_start>", "<frame_end>") if uses_frame_tokens else ("<im_start>", "<im_end>")
        )

    def before(self, seconds: Sequence[float], placeholders: int) -> str:
        """See `VideoFamily.before`."""
        start, end = self._frame_tokens
        image = f"{start}{self.placeholder * placeholders}{end}"
        return self._begin + " ".join(f"{s:.1f} {image}" for s in seconds) + "<|im_start|>user\n"

    def placeholders(self, frame: Frame) -> int:
        """See `VideoFamily.placeholders`."""
        return int(self._blocks**2)

    def pixel_inputs(self, video: Video) -> Inputs:
        """See `VideoFamily.pixel_inputs`."""
        pixels = self._normalized(self._pixels_of(video))  # (frames, 3, side, side)
        count, patch_side = len(pixels), self._patch_side
        cut = pixels.view(count, 3, self._rows, patch_side, self._rows, patch_side)
        # (frame, channel, row, y, column, x) -> (frame, row, column, y, x, channel)
        cut = cut.permute(0, 2, 4, 3, 5, 1).reshape(count, self._rows**2, patch_side * patch_side * 3)
        pooled = self._pixel_patches_of_blocks()
        offsets = self._rows**2 * torch.arange(count)[:, None, None]
        return {
            "pixel_values_videos": cut,
            "video_token_pooling": torch.where(pooled < 0, pooled, pooled + offsets).flatten(0, 1),
            "video_grids": torch.tensor([[count, self._blocks, self._blocks]]),
        }

    def stretch(self, image: torch.Tensor) -> torch.Tensor:
        """See `_SquareFamily.stretch`; bilinear without antialiasing, as the processor does."""
        size = (self._side, self._side)
        return interpolate(image[None].float(), size, mode="bilinear")[0].round().clamp(0, 255).byte()

    def inputs_from_ids(self, ids: torch.Tensor) -> Inputs:
        """See `VideoFamily.inputs_from_ids`: the type of each token, 0 for text and 1 for the video.

        Tokens of type 1 attend to each other.
        """
        return {"mm_token_type_ids": torch.isin(ids, self._visual).int()}

    @property
    def _blocks(self) -> int:
        """Blocks of pixel patches in a row of a frame; the outer ones may reach over its edge."""
        return -(-self._rows // self._pooling)

    def _pixel_patches_of_blocks(self) -> torch.Tensor:
        """Indexes of the pixel patches in each block, (blocks, pixel patches of one); -1 beyond the edge."""
        side = self._blocks * self._pooling
        start = (side - self._rows) // 2
        grid = torch.full((side, side), -1)
        inner = slice(start, start + self._rows)
        grid[inner, inner] = torch.arange(self._rows**2).view(self._rows, self._rows)
        blocks = grid.view(self._blocks, self._pooling, self._blocks, self._pooling)
        return blocks.transpose(1, 2).reshape(self._blocks**2, self._pooling**2)


#: The family of each model type in config.json.
FAMILIES: dict[str, type[VideoFamily]] = {
    "qwen2_vl": Qwen2Family,
    "qwen2_5_vl": Qwen2Family,
    "internvl": InternVLFamily,
    "smolvlm": SmolVLMFamily,
    "molmo2": Molmo2Family,
}


_BELOW_TWENTY = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """A number in English words, as num2words writes it; from a thousand on in digits.

    >>> [in_words(number) for number in (8, 64, 128, 200)]
    ['eight', 'sixty-four', 'one hundred and twenty-eight', 'two hundred']
    """
    if number < 20:
        return _BELOW_TWENTY[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_BELOW_TWENTY[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_BELOW_TWENTY[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
    return str(number)


def _beginning(folder: Path) -> str:
    """The token that a stream begins with: bos_token, or eos_token where there is none; else empty."""
    path = folder / "tokenizer_config.json"
    said = read_json(path) if path.is_file() else {}
    for name in ("bos_token", "eos_token"):
        token = said.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token:
            return str(token)
    return ""
