"""How families of models want to be shown a video and asked about it: from frames and questions to inputs.

A family is chosen by the model type in config.json. Four have a class here, which does with PyTorch alone
what their processors in transformers do, because the video processors there need torchvision (and SmolVLM's
num2words): `Qwen2Family` (Qwen2-VL and Qwen2.5-VL), `InternVLFamily`, `SmolVLMFamily`, `Molmo2Family`. Any
other is served by its own processor, with an image for every frame: `AnyFamily`.

The stream is that of the method: the opened turn of the user, the video, the question, and nothing behind
it; with ``chat_template`` the turn is closed and the assistant's opened. Nothing the instruction says is ever
read as structure: see `Family.plain`. Running the model is the business of transformers_vlm.py.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch.nn.functional import interpolate

from topreward_ros.core.frames import Frame
from topreward_ros.scoring import patches
from topreward_ros.scoring.answers import answer_token
from topreward_ros.scoring.base import ScorerError, in_a_line
from topreward_ros.scoring.patches import Preprocessing, read_preprocessing
from topreward_ros.scoring.prompts import ANSWERS, CHAT_ANSWERS, MAX_INSTRUCTION, encodable
from topreward_ros.scoring.templates import PLACE, fill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Inputs = dict[str, torch.Tensor]  #: keyword arguments of a model's forward pass, for one stream


class Video(NamedTuple):
    """Frames in order, and when each was taken."""

    frames: tuple[Frame, ...]
    seconds: tuple[float, ...]  #: since the first frame, as they are told

    def still(self) -> Video:
        """A video as long in which nothing moves."""
        return Video(self.frames[:1] * len(self.frames), self.seconds)


class Family(ABC):
    """What all have in common. ``tokens``: those that the stream is made of."""

    tells_times: ClassVar[bool] = True  #: whether what the model reads depends on the times
    closing = ""  #: what follows the question in a chat, up to the answer
    placeholder = ""  #: the token that features of the video take the place of
    tokens: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        self.model_type: str = config.model_type
        self.max_pixels = max_pixels  #: of one frame as the model sees it
        self._tokenizer = tokenizer
        self._preprocessing = read_preprocessing(folder, required=True)
        self._resized: dict[Frame, torch.Tensor] = {}  # of the newest video, (3, height, width) uint8 each
        self._added = _added_tokens(tokenizer)
        for token in (*self.tokens, self.placeholder):
            if tokenizer.token_to_id(token) is None:
                raise ScorerError(
                    f"{folder}: the tokenizer has no token {token!r}, with which a model of type "
                    f"{self.model_type!r} reads a video: restore the checkpoint's own tokenizer.json"
                )

    # ---- of each family -----------------------------------------------------------------------------

    @abstractmethod
    def before(self, seconds: Sequence[float], pads: int) -> str:
        """All that stands before the question, with ``pads`` placeholders for each part of the video."""

    @abstractmethod
    def pads(self, frame: Frame) -> int:
        """Placeholders for each part of a video that begins with ``frame``."""

    @abstractmethod
    def see(self, video: Video) -> Inputs:
        """What the model sees of ``video``."""

    @abstractmethod
    def resize(self, planes: torch.Tensor) -> torch.Tensor:
        """From (3, height, width) uint8 to the size at which the model sees a frame."""

    def of_ids(self, ids: torch.Tensor) -> Inputs:
        """What else the model wants to know of the token ids (1, tokens)."""
        return {}

    # ---- of all -------------------------------------------------------------------------------------

    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        """What the model is given for each of ``questions``, on the CPU."""
        seen = self.see(video)
        before = self.before(video.seconds, self.pads(video.frames[0]))
        for question in questions:
            ids = torch.tensor([self.encode(before + question)])
            yield {"input_ids": ids, **seen, **self.of_ids(ids)}

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` with all its structure."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def plain(self, instruction: str) -> str:
        """``instruction`` with a space in every token of the model's own that it has in it."""
        text = encodable(instruction)
        for token in self._added:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def answers(self, templates: Sequence[str], chat_template: bool) -> tuple[int, int]:
        """The tokens of the true and the false answer. Raises `ScorerError` for a tokenizer without them."""
        closing = self.chat_closing() if chat_template else ""
        questions = [fill(template, "lift") + closing for template in templates]
        # Behind a line break or a space there is no space.
        true, false = (
            answer_token(self.encode, questions, answer)
            for answer in (CHAT_ANSWERS if closing[-1:].isspace() else ANSWERS)
        )
        if true == false:
            raise ScorerError(
                f"the tokenizer has the same token {true} for {ANSWERS[0]!r} and {ANSWERS[1]!r}, so it knows "
                "neither: use a model with another tokenizer, such as Qwen's"
            )
        return true, false

    def chat_closing(self) -> str:
        """What follows the question when it is asked as a chat."""
        return self.closing

    def prompt_hash(self, templates: Sequence[str], chat_template: bool) -> str:
        """First 16 hex digits of a SHA-256 over everything that fixes the token stream but the input."""
        closing = self.chat_closing() if chat_template else ""
        questions = [fill(template, PLACE) + closing for template in templates]
        layout = [self.model_type, self.before((0.0, 0.5), 1), *questions, *ANSWERS, str(MAX_INSTRUCTION)]
        return hashlib.sha256("\0".join(layout).encode()).hexdigest()[:16]

    def forget(self) -> None:
        """Give back what is kept of the newest video."""
        self._resized.clear()

    def _id(self, token: str) -> int:
        return self._tokenizer.token_to_id(token) or 0  # that it is there was seen at the start

    def _check_placeholder(self, folder: Path, configured: int) -> None:
        if self._id(self.placeholder) != configured:
            raise ScorerError(
                f"{folder}: config.json has {configured} for the token of the video, the tokenizer has "
                f"{self._id(self.placeholder)} for {self.placeholder!r}: they belong to different models"
            )

    def _pixels_of(self, video: Video) -> torch.Tensor:
        """All frames as the model sees them, (frames, 3, height, width) uint8."""
        kept = {}
        for frame in video.frames:
            if frame not in kept:
                known = self._resized.get(frame)
                kept[frame] = known if known is not None else self.resize(_planes(frame))
        if len(kept) > 1:  # else a still video, between two of which the frames are wanted again
            self._resized = kept
        return torch.stack([kept[frame] for frame in video.frames])

    def _normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        return _normalized(pixels, self._preprocessing)


class Qwen2Family(Family):
    """Qwen2-VL and Qwen2.5-VL: two frames are one step of a video, at the size that suits the camera."""

    placeholder = "<|video_pad|>"
    closing = "<|im_end|>\n<|im_start|>assistant\n"
    tokens = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.video_token_id)
        vision = config.vision_config
        self._patch, self._merge = int(vision.patch_size), int(vision.spatial_merge_size)
        if vision.temporal_patch_size != 2:
            raise ScorerError(f"{folder}: temporal_patch_size must be 2, as in every released Qwen2.5-VL")
        self._has_speed = hasattr(vision, "tokens_per_second")  # of Qwen2.5-VL
        self._size = (0, 0)  # (height, width) of the frames as the model sees them

    def before(self, seconds: Sequence[float], pads: int) -> str:
        """See `Family.before`; a part is two frames."""
        video = self.placeholder * (pads * ((len(seconds) + 1) // 2))
        return f"<|im_start|>user\n<|vision_start|>{video}<|vision_end|>"

    def pads(self, frame: Frame) -> int:
        height, width = self._size_for(frame)
        return height * width // (self._patch * self._merge) ** 2

    def see(self, video: Video) -> Inputs:
        """See `Family.see`; an odd last frame is repeated."""
        size = self._size_for(video.frames[0])
        if size != self._size:
            self.forget()
            self._size = size
        pixels = self._pixels_of(video)
        if len(pixels) % 2:
            pixels = torch.cat([pixels, pixels[-1:]])
        rows = [
            patches.cut(first, second, self._preprocessing, self._patch, self._merge)
            for first, second in zip(pixels[::2], pixels[1::2], strict=True)
        ]
        grid = [[len(rows), size[0] // self._patch, size[1] // self._patch]]
        seen = {"pixel_values_videos": torch.cat(rows), "video_grid_thw": torch.tensor(grid)}
        if self._has_speed:
            steps = max(1, len(video.seconds) - 1)
            seen["second_per_grid_ts"] = torch.tensor([2 * video.seconds[-1] / steps], dtype=torch.float64)
        return seen

    def resize(self, planes: torch.Tensor) -> torch.Tensor:
        return patches.resized(planes, self._size)

    def of_ids(self, ids: torch.Tensor) -> Inputs:
        """Two marks a video."""
        return {"mm_token_type_ids": 2 * (ids == self._id(self.placeholder)).int()}

    def _size_for(self, frame: Frame) -> tuple[int, int]:
        height, width = frame.image.shape[:2]
        return patches.frame_size(height, width, self._patch * self._merge, self.max_pixels)


class _SquareFamily(Family):
    """One size for all frames, a square: where it has more than ``max_pixels``, frames are shrunk before."""

    _side = 0  # [pixels]

    def _use_side(self, side: int) -> None:
        self._side = side
        self._finest = self.max_pixels if side * side > self.max_pixels else 0
        self.max_pixels = min(self.max_pixels, side * side)

    def resize(self, planes: torch.Tensor) -> torch.Tensor:
        height, width = planes.shape[1:]
        if self._finest and height * width > self._finest:
            planes = patches.resized(planes, patches.frame_size(height, width, 1, self._finest))
        return self.square(planes)

    def square(self, planes: torch.Tensor) -> torch.Tensor:
        """From (3, height, width) uint8 to (3, side, side)."""
        return patches.resized(planes, (self._side, self._side))


class InternVLFamily(_SquareFamily):
    """InternVL 2.5 to 3.5, in the layout of transformers (``-hf`` on the hub): frames are numbered."""

    tells_times = False
    placeholder = "<IMG_CONTEXT>"
    closing = "<|im_end|>\n<|im_start|>assistant\n"
    tokens = ("<|im_start|>", "<|im_end|>", "<img>", "</img>")

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.image_token_id)
        height, width = config.vision_config.image_size
        if height != width:
            raise ScorerError(f"{folder}: image_size is {height} x {width}, and only squares are read")
        self._use_side(height)
        self._pads = int(config.image_seq_length)

    def before(self, seconds: Sequence[float], pads: int) -> str:
        image = f"<img>{self.placeholder * pads}</img>"
        frames = "\n".join(f"Frame{number}: {image}" for number in range(1, len(seconds) + 1))
        return f"<|im_start|>user\n{frames}\n"

    def pads(self, frame: Frame) -> int:
        return self._pads

    def see(self, video: Video) -> Inputs:
        return {"pixel_values": self._normalized(self._pixels_of(video))}


class SmolVLMFamily(_SquareFamily):
    """SmolVLM2: frames with their minute and second, and how many they are in words."""

    placeholder = "<image>"
    closing = "<end_of_utterance>\nAssistant:"
    tokens = ("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>")

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.image_token_id)
        vision = config.vision_config
        self._use_side(int(vision.image_size))
        self._pads = int((vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2)

    def before(self, seconds: Sequence[float], pads: int) -> str:
        around = "<fake_token_around_image>"
        image = f"{around}<global-img>{self.placeholder * pads}{around}"
        frames = "".join(f"\nFrame from {int(s) // 60:02d}:{int(s) % 60:02d}:{image}" for s in seconds)
        length = int(seconds[-1])
        lasting = f"{length // 3600}:{length // 60 % 60:02d}:{length % 60:02d}"
        return (
            f"<|im_start|>User: You are provided the following series of {in_words(len(seconds))} frames "
            f"from a {lasting} [H:MM:SS] video.\n{frames}\n\n"
        )

    def pads(self, frame: Frame) -> int:
        return self._pads

    def see(self, video: Video) -> Inputs:
        return {"pixel_values": self._normalized(self._pixels_of(video))[None]}

    def square(self, planes: torch.Tensor) -> torch.Tensor:
        """In two steps, as the processor does it: the longer side, then the other."""
        height, width = planes.shape[1:]
        shorter = int(min(height, width) * self._side / max(height, width))
        shorter = max(1, shorter + shorter % 2)
        size = (shorter, self._side) if width >= height else (self._side, shorter)
        return super().square(patches.resized(planes, size))


class Molmo2Family(_SquareFamily):
    """Molmo2: the video, each frame with its time, stands before the user's turn."""

    placeholder = "<im_patch>"
    closing = "<|im_end|>\n<|im_start|>assistant\n"
    tokens = ("<|im_start|>", "<|im_end|>", "<im_start>", "<im_end>", "<frame_start>", "<frame_end>")
    _pooling = 3  # side of the block of patches that makes one token of a video

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        super().__init__(folder, config, tokenizer, max_pixels)
        self._check_placeholder(folder, config.image_patch_id)
        vision = config.vision_config
        self._use_side(int(vision.image_size[0]))
        self._patch = int(vision.patch_size)
        self._rows = self._side // self._patch  # of patches
        self._visual = torch.tensor([self._id(t) for t in (*self.tokens[2:], self.placeholder)])
        self._begin = _beginning(folder)
        own_marks = patches.read_json(folder / "processor_config.json").get("use_frame_special_tokens", True)
        self._marks = ("<frame_start>", "<frame_end>") if own_marks else ("<im_start>", "<im_end>")

    def before(self, seconds: Sequence[float], pads: int) -> str:
        start, end = self._marks
        image = f"{start}{self.placeholder * pads}{end}"
        return self._begin + " ".join(f"{s:.1f} {image}" for s in seconds) + "<|im_start|>user\n"

    def pads(self, frame: Frame) -> int:
        return int(self._blocks**2)

    def see(self, video: Video) -> Inputs:
        pixels = self._normalized(self._pixels_of(video))  # (frames, 3, side, side)
        count, patch = len(pixels), self._patch
        cut = pixels.view(count, 3, self._rows, patch, self._rows, patch)
        # (frame, channel, row, y, column, x) -> (frame, row, column, y, x, channel)
        cut = cut.permute(0, 2, 4, 3, 5, 1).reshape(count, self._rows**2, patch * patch * 3)
        pooled = self._blocks_of_patches()
        offsets = self._rows**2 * torch.arange(count)[:, None, None]
        return {
            "pixel_values_videos": cut,
            "video_token_pooling": torch.where(pooled < 0, pooled, pooled + offsets).flatten(0, 1),
            "video_grids": torch.tensor([[count, self._blocks, self._blocks]]),
        }

    def square(self, planes: torch.Tensor) -> torch.Tensor:
        """Bilinear without antialiasing, as the processor does it."""
        size = (self._side, self._side)
        return interpolate(planes[None].float(), size, mode="bilinear")[0].round().clamp(0, 255).byte()

    def of_ids(self, ids: torch.Tensor) -> Inputs:
        """All tokens of the video are one block, whose tokens see each other."""
        return {"mm_token_type_ids": torch.isin(ids, self._visual).int()}

    @property
    def _blocks(self) -> int:
        """In a row of a frame; the outer ones may reach over its edge."""
        return -(-self._rows // self._pooling)

    def _blocks_of_patches(self) -> torch.Tensor:
        """Numbers of the patches in each block of a frame, (blocks, patches), -1 beyond the edge."""
        side = self._blocks * self._pooling
        start = (side - self._rows) // 2
        grid = torch.full((side, side), -1)
        inner = slice(start, start + self._rows)
        grid[inner, inner] = torch.arange(self._rows**2).view(self._rows, self._rows)
        blocks = grid.view(self._blocks, self._pooling, self._blocks, self._pooling)
        return blocks.transpose(1, 2).reshape(self._blocks**2, self._pooling**2)


_MARK = "THE-QUESTION"  # stands for it in a chat


class AnyFamily(Family):
    """Any other: its own processor, every frame an image, and the chat template cut behind the question.

    The processor runs anew for every question.
    """

    tells_times = False

    def __init__(self, folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> None:
        self.model_type = config.model_type
        self.max_pixels = max_pixels
        self._processor = _read_processor(folder, self.model_type)
        self._tokenizer = tokenizer
        self._added = _added_tokens(tokenizer)
        self._resized = {}
        self._render = lru_cache(maxsize=256)(self._make_render)

    def before(self, seconds: Sequence[float], pads: int) -> str:
        """As it is before the processor spells out the images."""
        return self._render(len(seconds))[0]

    def chat_closing(self) -> str:
        closing = self._render(2)[1]
        if not closing:
            raise ScorerError(
                f"chat_template is true, and the model of type {self.model_type!r} has no chat template: set "
                "it to false, or put the checkpoint's chat_template.jinja into its folder"
            )
        return closing

    def inputs(self, video: Video, questions: Sequence[str]) -> Iterator[Inputs]:
        images = [self.resize(planes).permute(1, 2, 0).numpy() for planes in map(_planes, video.frames)]
        before = self.before(video.seconds, 1)
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
            if inputs["input_ids"][0, -1] != self.encode(question)[-1]:
                raise ScorerError(
                    f"the processor of the model of type {self.model_type!r} writes on behind the question, "
                    "where the answer must stand: models of this type cannot be scored with"
                )
            yield inputs

    def encode(self, text: str) -> list[int]:
        """See `Family.encode`; the processor's tokenizer need not be that of tokenizer.json in all."""
        return list(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def resize(self, planes: torch.Tensor) -> torch.Tensor:
        """No more than ``max_pixels``; the rest is the processor's."""
        height, width = planes.shape[1:]
        if height * width <= self.max_pixels:
            return planes
        return patches.resized(planes, patches.frame_size(height, width, 1, self.max_pixels))

    def pads(self, frame: Frame) -> int:
        raise NotImplementedError  # the processor's business, as is what follows

    def see(self, video: Video) -> Inputs:
        raise NotImplementedError

    def _make_render(self, count: int) -> tuple[str, str]:
        """What stands before and behind the question when it is asked about ``count`` images as a chat."""
        image, processor = {"type": "image"}, self._processor
        if not getattr(processor, "chat_template", None):
            token = getattr(processor, "image_token", None)
            if not token:
                raise ScorerError(
                    f"the processor of the model of type {self.model_type!r} has neither a chat template nor "
                    "an image token, which tell how to show it a video: such models cannot be scored with"
                )
            return token * count, ""
        chat = [{"role": "user", "content": [*[image] * count, {"type": "text", "text": _MARK}]}]
        try:
            text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # of whoever wrote the template
            raise ScorerError(
                f"the chat template of the model of type {self.model_type!r} fails on several images "
                f"({in_a_line(error)}): models of this type cannot be scored with"
            ) from error
        before, found, after = text.partition(_MARK)
        if not found:
            raise ScorerError(
                f"the chat template of the model of type {self.model_type!r} leaves out the question: "
                "restore it from the checkpoint"
            )
        return before, after


#: By the model type in config.json.
FAMILIES: dict[str, type[Family]] = {
    "qwen2_vl": Qwen2Family,
    "qwen2_5_vl": Qwen2Family,
    "internvl": InternVLFamily,
    "smolvlm": SmolVLMFamily,
    "molmo2": Molmo2Family,
}


def make_family(folder: Path, config: Any, tokenizer: Tokenizer, max_pixels: int) -> Family:
    """The family of the model in ``folder``; ``config`` is transformers' own. Raises `ScorerError`."""
    return FAMILIES.get(config.model_type, AnyFamily)(folder, config, tokenizer, max_pixels)


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


def _planes(frame: Frame) -> torch.Tensor:
    """(3, height, width) uint8, a copy."""
    return torch.from_numpy(frame.image.transpose(2, 0, 1).copy(order="C"))


def _normalized(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(frames, 3, height, width), from uint8 to what the vision model was trained on, float32."""
    mean = torch.tensor(preprocessing.mean).mul(1 / preprocessing.rescale)
    std = torch.tensor(preprocessing.std).mul(1 / preprocessing.rescale)
    return (pixels.float() - mean[:, None, None]) / std[:, None, None]


def _added_tokens(tokenizer: Tokenizer) -> list[str]:
    """Tokens that are found in a text before it is cut into words, the longest first."""
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    return sorted((token for token in added if len(token) > 1 and not token.isspace()), key=len, reverse=True)


def _beginning(folder: Path) -> str:
    """The token that a stream begins with, by the names that tokenizers have for it."""
    said = patches.read_json(folder / "tokenizer_config.json")
    for name in ("bos_token", "eos_token"):
        token = said.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token:
            return str(token)
    return ""


def _read_processor(folder: Path, model_type: str) -> Any:
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
