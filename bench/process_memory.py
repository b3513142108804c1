"""What Linux says of a process: its memory by kind, and counts. Importing this loads no library."""

from __future__ import annotations

from pathlib import Path


def status_of(process: int | str) -> dict[str, str]:
    """The lines of /proc/PROCESS/status by their names; ``process``: an id, or "self"."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def memory_mib(status: dict[str, str], name: str) -> float:
    """A kind of memory [MiB]: VmRSS, all in use; RssAnon, the private part; RssFile, pages of files."""
    return int(status[name].split()[0]) / 1024
