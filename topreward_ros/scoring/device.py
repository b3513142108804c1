"""What hangs on the device: copies to it, its memory, and how it says that there is none left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from topreward_ros.scoring.base import ScorerError

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on ``device``, without waiting for what the device is still at.

    A copy from pageable memory to a GPU would wait for all work before it.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on ``device``; of a CPU's, those of this container."""
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
def errors_named(frames: int, forget: Callable[[], None]) -> Iterator[None]:
    """Whatever fails in scoring ``frames`` frames, ``forget`` drops what is half-done.

    Raises `ScorerError` that says what it was, and `OutOfMemory`.
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
        raise OutOfMemory from error  # memory is free when this, with the error's frames, is let go of


class OutOfMemory(Exception):
    """Memory ran out in a piece of work. Raised in its place, so that the error's frames can be let go of."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python gave up for want of memory, on any device."""
    said = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in said for sign in ("allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    )


def give_back(device: torch.device) -> None:
    """Return memory that is held for later to ``device``."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
