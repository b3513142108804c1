"""From a checkpoint to a loaded model of transformers, on a device and in a dtype.

Settings and tokenizer can be checked here before the weights are read, which takes long.

PyTorch and transformers are imported when a model is loaded, so that importing this module costs nothing.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, partial
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from topreward_ros.core.counted import counted
from topreward_ros.core.frames import FEWEST_FRAMES
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, ScorerSettings, in_a_line, quiet_logging
from topreward_ros.scoring.checkpoint.checkpoint import QUANTIZABLE, Checkpoint
from topreward_ros.scoring.checkpoint.kept_memory import bound_kept_memory
from topreward_ros.scoring.checkpoint.placing import dtype_to_read, dtypes_of, place, state_dtype
from topreward_ros.scoring.checkpoint.quantized import refuse_quantized_tensors
from topreward_ros.scoring.checkpoint.reward_format import BACKBONE_NAMES, HEAD_WEIGHT
from topreward_ros.scoring.checkpoint.weight_files import WHOLE, StoredTensor, check_files
from topreward_ros.scoring.json_files import read_json
from topreward_ros.scoring.start_times import StartTimes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

_MOST_NAMED = 3  # weights in an error
_MOST_TIMES = 8  # the numbers in the files; a model that lacks a few is told by their names
_LARGEST_WEIGHT = 1e7  # trained ones are below a thousand
_STRETCH = 1024  # values in a row; a hole has at least a block of a disk, which is 2048 of two bytes
_ADAPTER_WEIGHT = re.compile(r"(^|\.)(lora_[A-Za-z]+|base_layer|modules_to_save)(\.|$)|^base_model\.model\.")


class Precision(NamedTuple):
    """Where a model runs, and in which numbers."""

    device: torch.device
    dtype: torch.dtype
    quantization: str  #: one of `quantization.QUANTIZATIONS`
    unused: str = ""  #: why the quantization that was asked for is not used, for a human


def resolve_precision(settings: ScorerSettings, checkpoint: Checkpoint) -> Precision:
    """Check the settings, and choose device, dtype and quantization that they ask for.

    Raises `ScorerError` for a setting that cannot be used.
    """
    from topreward_ros.scoring.checkpoint.quantization import NONE, usable_quantization
    from topreward_ros.scoring.question.prompts import LAYOUTS

    device = _choose_device(settings.device)
    dtype = _choose_dtype(settings.dtype, device)
    if settings.quantization != NONE and checkpoint.reward is not None:
        raise ScorerError(
            f"quantization {settings.quantization!r} is for models that answer a question, and "
            f"{checkpoint.name} states progress by heads of its own: use quantization none"
        )
    if settings.quantization != NONE and checkpoint.adapter is not None:
        raise ScorerError(
            f"adapter {settings.adapter!r} cannot be merged into weights in 8 bits: use quantization none"
        )
    if settings.quantization != NONE and checkpoint.model_type not in QUANTIZABLE:
        raise ScorerError(
            f"quantization {settings.quantization!r} is for dense Qwen3-VL models, this one is of type "
            f"{checkpoint.model_type!r}: use quantization none"
        )
    usable = usable_quantization(settings.quantization, device, dtype)
    _check_limits(settings)
    if settings.layout not in LAYOUTS:
        raise ScorerError(f"layout {settings.layout!r} is not known: use {' or '.join(LAYOUTS)}")
    return Precision(device, dtype, *usable)


def _choose_device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ScorerError(f"device {name!r} is not known: use auto, cpu, cuda, or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ScorerError(
            f"device {name!r} was asked for, and PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices: use device cpu or auto, "
            "or install a PyTorch with CUDA and the driver"
        )
    return device


def _choose_dtype(name: str, device: torch.device) -> torch.dtype:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        # Older GPUs emulate bfloat16, which is slow.
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if name not in known:
        raise ScorerError(f"dtype {name!r} is not known: use auto, {', '.join(known)}")
    return known[name]


def _check_limits(settings: ScorerSettings) -> None:
    padding, length = settings.front_padding, settings.fixed_length
    if padding and length:
        raise ScorerError(
            f"front_padding is {padding} and fixed_length {length}: set one of them to 0, since a video of "
            "fixed length has no start to lengthen"
        )
    if 0 < length < FEWEST_FRAMES:
        raise ScorerError(f"fixed_length is {length}: it must be at least {FEWEST_FRAMES}, or 0 for none")
    for name, frames in (("front_padding", padding), ("fixed_length", length)):
        if frames % 2:
            raise ScorerError(f"{name} is {frames}: it must be even, since a model merges two frames")
        if frames and settings.sample_rate <= 0:
            raise ScorerError(
                f"{name} is {frames}: that needs frames at a known rate, not those of the paper's code"
            )
    for name, value, least in (
        ("max_pixels", settings.max_pixels, 1),
        ("max_frames", settings.max_frames, 1),
        ("scorer_threads", settings.threads, 0),
        ("front_padding", padding, 0),
        ("fixed_length", length, 0),
    ):
        if value < least:
            raise ScorerError(f"{name} is {value}: it must be at least {least}")


def check_vocabulary_size(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer with more tokens than the model has embeddings for. Raises `ScorerError`."""
    text = checkpoint.config.get("text_config", checkpoint.config)  # Qwen2.5-VL has all at the top
    if not isinstance(text, dict) or not isinstance(vocabulary := text.get("vocab_size"), int):
        return  # not in config.json: the default of its model type holds
    # Molmo2 keeps the embeddings of its video tokens apart.
    more = text.get("additional_vocab_size", 128 if checkpoint.model_type == "molmo2" else 0)
    tokens = checkpoint.tokenizer.get_vocab_size()
    if tokens > vocabulary + more:
        raise ScorerError(
            f"{checkpoint.folder}: the tokenizer has {tokens} tokens, config.json has vocab_size "
            f"{vocabulary}: they belong to different models"
        )


def use_threads(threads: int) -> None:
    """Let PyTorch use ``threads`` CPU threads, see `cpu_threads`."""
    import torch

    torch.set_num_threads(cpu_threads(threads))


def cpu_threads(threads: int) -> int:
    """How many threads ``threads`` means; 0: one less than the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or max(1, cores - 1)


def load_weights(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str,
    times: StartTimes | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load the model of ``checkpoint`` on ``device``, ready to run and without gradients.

    Its class is the one that transformers has for its type; ``options`` go to `from_pretrained`. Raises
    `ScorerError`. ``times``: is told of libraries and weights.
    """
    times = times or StartTimes()
    bound_kept_memory()
    try:
        with quiet_logging():
            import torch._dynamo  # noqa: F401  # which transformers imports later on, and which needs a folder
            from transformers import AutoModelForImageTextToText
    except Exception as error:
        raise ScorerError(
            f"PyTorch and transformers cannot be imported ({in_a_line(error)}): mend that, or install them "
            "anew"
        ) from error

    from topreward_ros.scoring.checkpoint.quantization import NONE, quantize
    from topreward_ros.scoring.device import is_out_of_memory

    folder, stored = checkpoint.folder, check_files(checkpoint.folder)
    refuse_quantized_tensors(folder, stored.values())
    config = model_config(checkpoint)
    if (generation := folder / "generation_config.json").is_file():
        read_json(generation)  # transformers reads it as well, and does not say what is wrong with it
    if stored and _is_tied_in_its_text_part(checkpoint.config, stored):
        config.tie_word_embeddings = True
    if checkpoint.reward is not None:
        if not stored:
            raise ScorerError(f"{folder} has no safetensors, in which a Robometer is published: get it so")
        options["key_mapping"] = BACKBONE_NAMES
    outline = cache(partial(_outline, config))
    try:
        with quiet_transformers():
            _check_size(checkpoint, outline(dtype), stored.values())
            # Quantizing starts from the type that was asked for.
            read = dtype_to_read(stored.values(), device, dtype, outline) if quantization == NONE else dtype
            wanted = {} if read is dtype else dtypes_of(outline(dtype))
            outline.cache_clear()
            times.done("libraries and checks")
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                config=config,
                dtype=read,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named and refused below
                **options,
            )
        model, info = loaded
        del loaded
        if checkpoint.reward is not None:  # its heads are loaded by who scores
            info["unexpected_keys"] = {
                name for name in info["unexpected_keys"] if not HEAD_WEIGHT.fullmatch(name)
            }
        check_loading(folder, info)
        values = ValueCheck(folder, model)
        if quantization != NONE:  # before the move to the device, where the full weights may not fit
            for name, weight in model.named_parameters():
                values.look(name, weight)
            quantize(model, quantization, device)
            place(model, device, {}, lambda *_: None)
        else:
            place(model, device, wanted, values.look)
            if read is not dtype:
                state_dtype(model.config, dtype)
        if checkpoint.adapter is not None:
            from topreward_ros.scoring.checkpoint.adapter import merge

            merged = set(merge(model, checkpoint.adapter))
            for name, weight in model.named_parameters():
                if name in merged:
                    values.look(name, weight)
        values.tell()
        model.eval()
    except ScorerError:
        raise
    except (UnpicklingError, EOFError) as error:  # its text tells how to load it all the same
        raise ScorerError(
            f"{folder}: {WHOLE[1]} is damaged, or holds other things than weights, which are not loaded "
            "because they could run a program: get the model as safetensors"
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            fix = "use a smaller model, another device, or dtype bfloat16"
        else:
            fix = "config.json and weights do not fit each other, or are damaged; copy the checkpoint again"
        raise ScorerError(
            f"{folder} cannot be loaded on {device} in {dtype} ({in_a_line(error)}): {fix}"
        ) from error
    model.requires_grad_(False)
    times.done("weights")
    return cast("PreTrainedModel", model)


def model_config(checkpoint: Checkpoint) -> Any:
    """config.json as transformers reads it, for a model of the type that it names. Raises `ScorerError`.

    Kernels for attention and experts that it names are left out. They are for the machine that it was saved
    on, and transformers would fetch some of them from the hub.
    """
    with quiet_logging():
        from transformers import AutoConfig

    try:
        with quiet_transformers():
            config = _described(AutoConfig, checkpoint)
            for choice in ("_attn_implementation", "_experts_implementation"):
                if hasattr(config, choice):
                    setattr(config, choice, None)
    except Exception as error:
        raise ScorerError(
            f"{checkpoint.folder / 'config.json'} cannot be used ({in_a_line(error)}): restore it from the "
            "checkpoint"
        ) from error
    return config


def _described(library: Any, checkpoint: Checkpoint) -> Any:
    if checkpoint.reward is None:
        return library.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    said = deepcopy(dict(checkpoint.config))
    return library.for_model(said.pop("model_type"), **said)


def _outline(config: Any, dtype: torch.dtype) -> Any:
    """The model that ``config`` describes, without values and memory."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        library: Any = AutoModelForImageTextToText  # without type hints of its own
        return library.from_config(deepcopy(config), dtype=dtype, trust_remote_code=False)


def _check_size(checkpoint: Checkpoint, outline: Any, stored: Collection[StoredTensor]) -> None:
    """Raise `ScorerError` where ``outline`` is of a model that is far larger than its files.

    What the files lack, transformers would fill with random numbers, if there is the memory for it.
    """
    described = sum(weight.numel() for weight in outline.parameters())
    held = sum(prod(tensor.shape) for tensor in stored)
    if not stored:  # a format whose head is not read: a number has a byte at least
        held = sum(path.stat().st_size for path in checkpoint.weight_files)
    if described > _MOST_TIMES * held:
        raise ScorerError(
            f"{checkpoint.folder}: config.json describes a model of {described:,} numbers, and the weights "
            f"are {held:,}: they are of different models; take both from the same checkpoint"
        )


def _is_tied_in_its_text_part(config: Mapping[str, Any], stored: Iterable[str]) -> bool:
    """Whether the head is the embedding, as text_config alone says, and no file holds another.

    transformers looks at the upper level of config.json only, and would draw a random head.
    """
    text = config.get("text_config")
    is_tied = isinstance(text, dict) and text.get("tie_word_embeddings") is True
    return is_tied and not any(name.endswith("lm_head.weight") for name in stored)


def check_loading(folder: Path, info: Mapping[str, Any]) -> None:
    """Raise `ScorerError` where weights of ``folder`` found no place, have the wrong shape, or are missing.

    ``info``: what `from_pretrained` tells with ``output_loading_info``. What transformers itself lists as not
    needed is left out there. Whatever is missing has been filled with random numbers by then.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if mismatched := sorted(
        (name, tuple(has), tuple(wanted)) for name, has, wanted in info["mismatched_keys"]
    ):
        name, has, wanted = mismatched[0]
        raise ScorerError(
            f"{folder}: {counted(len(mismatched), 'weight')} of another shape than config.json says, first "
            f"{printable(name)!r} with {has}, not {wanted}: config.json and weights are of different models; "
            "take both from the same checkpoint"
        )
    if info["error_msgs"]:
        said = printable(str(info["error_msgs"][0]), 200)
        raise ScorerError(f"{folder} cannot be loaded ({said}): copy the checkpoint again")
    if unexpected:
        lacking = f" It lacks {len(missing)}, such as {printable(missing[0])!r}." if missing else ""
        raise ScorerError(
            f"{folder} has {counted(len(unexpected), 'weight')} without a place in the model that "
            f"config.json describes: {_some(unexpected)}.{lacking} {_mend(missing, unexpected)}"
        )
    if missing:
        raise ScorerError(
            f"{folder} lacks {len(missing)} weights, first {printable(missing[0])!r}: "
            "the checkpoint is not complete; copy it again"
        )


def _mend(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    if any(_ADAPTER_WEIGHT.search(name) for name in unexpected):
        return (
            "They belong to an adapter that is not merged: merge it with peft's merge_and_unload(), and "
            "save_pretrained() the result"
        )
    wanted = missing[0] if missing else ""
    if wanted and (other := next((name for name in unexpected if name.endswith(f".{wanted}")), "")):
        prefix = other.removesuffix(wanted)
        return (
            f"All names begin with {printable(prefix)!r}: save the model without what was wrapped around it"
        )
    if missing:
        return (
            "The weights are of another model, or were saved in another way: save it with save_pretrained()"
        )
    return "They would be dropped, and the numbers be wrong: take config.json and weights of one checkpoint"


def _some(names: Sequence[str]) -> str:
    return printable(", ".join(names[:_MOST_NAMED])) + (", ..." if len(names) > _MOST_NAMED else "")


class ValueCheck:
    """Looks at the values of weights, one after the other, in the type in which they will be used."""

    def __init__(self, folder: Path, model: torch.nn.Module) -> None:
        import torch

        self._folder = folder
        head = getattr(model, "get_output_embeddings", lambda: None)()
        embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
        of_tokens = {id(module.weight) for module in (*embeddings, head) if module is not None}
        named = model.named_parameters(remove_duplicate=False)
        self._of_tokens = {name for name, weight in named if id(weight) in of_tokens}
        self._with_holes: list[str] = []

    def look(self, name: str, weight: torch.Tensor) -> None:
        """Raise `ScorerError` where a weight is all zeros, no number in its type, or far too large.

        Stretches of zeros are noted. Those in an embedding do not count, where the rows of tokens that never
        came are zero, and those of less than `_STRETCH` are not seen.
        """
        import torch

        folder = self._folder
        if not weight.numel() or not weight.is_floating_point():
            return
        lows, highs = _extremes(weight.detach().reshape(-1))
        low, high = lows.min(), highs.max()
        if weight.ndim > 1 and float(low) == float(high) == 0.0:
            raise ScorerError(
                f"{folder}: the weight {name!r} is zero all over, as in a file with a hole that a copy or a "
                "download left; copy the checkpoint again"
            )
        if not (torch.isfinite(low) and torch.isfinite(high)):
            fix = "the checkpoint is damaged, or its training failed; use another"
            if weight.dtype is torch.float16:
                fix = "float16 may be too narrow for it; use dtype bfloat16 or float32, or another checkpoint"
            raise ScorerError(
                f"{folder}: the weight {name!r} has values that are not finite in {weight.dtype}: {fix}"
            )
        if (largest := max(-float(low), float(high))) > _LARGEST_WEIGHT:
            raise ScorerError(
                f"{folder}: the weight {name!r} has the value {largest:.3g}, and none that was trained is so "
                "large: the checkpoint is damaged; copy it again"
            )
        whole = weight.numel() // _STRETCH  # the rest at the end may be a few zeros by chance
        is_hole = (lows[:whole] == 0) & (highs[:whole] == 0)
        if weight.ndim > 1 and name not in self._of_tokens and bool(is_hole.any()):
            self._with_holes.append(name)

    def tell(self) -> None:
        """Warn of the stretches of zeros, which a few models have."""
        if self._with_holes:
            _log.warning(
                "%s has stretches of zeros in %s, first %r, as in a file with a hole that a copy or a "
                "download left: compare its SHA-256 with the original's",
                *(self._folder, counted(len(self._with_holes), "weight"), self._with_holes[0]),
            )


def _extremes(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest of every `_STRETCH` of ``values`` (n,), and of the rest at the end."""
    import torch

    whole = len(values) // _STRETCH * _STRETCH
    stretches, rest = values[:whole].view(-1, _STRETCH), values[whole:]
    lows, highs = stretches.amin(dim=1), stretches.amax(dim=1)
    if not len(rest):
        return lows, highs
    low, high = rest.aminmax()
    return torch.cat([lows, low[None]]), torch.cat([highs, high[None]])


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and log messages of transformers; what fails is raised as our own error."""
    from transformers.utils import logging

    library: Any = logging  # without type hints of its own
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with quiet_logging():
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
