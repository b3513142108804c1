"""What is done differently on a CPU and on a GPU."""

from __future__ import annotations

import torch


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on ``device``, without waiting for what the device is still at.

    A copy from pageable memory to a GPU would wait for all work before it.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def give_back(device: torch.device) -> None:
    """Return memory that is held for later to ``device``."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
