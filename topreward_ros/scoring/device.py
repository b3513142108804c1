"""The device that a model runs on: copies to it, its free memory, and errors while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from topreward_ros.scoring.base import ScorerError

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to ``device`` without waiting for the work that the device still has to do.

    An ordinary copy, from pageable memory, would wait for it.
    """
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def send_image(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy ``image`` (H, W, 3) uint8 to ``device``, as `send`: the bytes as they are, in one copy.

    Returns (3, H, W) uint8; its channels are put apart on the device.
    """
    there = torch.empty(image.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there.numpy()[...] = image
    return there.to(device, non_blocking=True).permute(2, 0, 1).contiguous()


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on ``device``; on a CPU, no more than this container may still take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min(free, _left_to_the_container(free))


def _left_to_the_container(most: int) -> int:
    """Bytes under the limit of the control group (cgroup v2), ``most`` where there is none."""
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text().strip()
        return most if limit == "max" else int(limit) - int((_CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return most


@contextmanager
def as_scorer_errors(frames: int, forget: Callable[[], None]) -> Iterator[None]:
    """Turn any exception in scoring ``frames`` frames into a `ScorerError`, or into `OutOfMemory`.

    ``forget`` is called first, to drop caches that are only half updated.
    """
    try:
        yield
    except ScorerError:
        forget()
        raise
    except Exception as error:
        forget()
        if not is_out_of_memory(error):
            raise ScorerError(f"the model failed on {frames} frames: {error}") from error
        raise OutOfMemory from error  # it keeps the frames of its cause, and their tensors, until it is freed


class OutOfMemory(Exception):
    """Memory ran out. Raised in the place of the library's error, whose traceback keeps tensors alive."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python failed because memory ran out, on any device."""
    said = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in said for sign in ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    )


def release_cached_memory(device: torch.device) -> None:
    """Return memory that PyTorch has cached, and that no tensor uses, to ``device``."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
