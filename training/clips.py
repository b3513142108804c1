"""Clips as files: one attempt seen by one camera, with what the simulator knows about every frame."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np

from topreward_ros.core.output_files import write_file

#: [Hz] frames of a clip; every second one is the monitor's usual rate.
RATE = 4.0
#: Names of the cameras that film an attempt; `simulation.Camera.of_view` places them.
VIEWS = ("right", "side", "close")
#: [px] Side of the square pictures of a clip. A camera of 4:3 sees the middle three quarters of the height.
SIDE = 224


@dataclass(frozen=True)
class Clip:
    """N frames of one attempt, `RATE` per second, and what is true at each of them."""

    task: str  #: name in `instructions.TASKS`
    kind: str  #: one of `simulation.KINDS`
    view: str  #: one of `VIEWS`
    frames: np.ndarray  #: (N, height, width, 3) uint8 RGB
    progress: np.ndarray  #: (N,) float32, see `simulation.Trajectory.progress`
    moved: np.ndarray  #: (N,) float32, 0 to 1, see `simulation.Trajectory.moved`
    hand: np.ndarray  #: (N, 3) float32 [m]
    success: np.ndarray  #: (N,) bool, latched

    @property
    def succeeded(self) -> bool:
        return bool(self.success[-1])

    def digest(self) -> str:
        """SHA-256 of the content of the clip, which does not depend on how it is stored."""
        content = hashlib.sha256(json.dumps([self.task, self.kind, self.view]).encode())
        for array in (self.frames, self.progress, self.moved, self.hand, self.success):
            content.update(f"{array.dtype} {array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    def save(self, path: Path) -> None:
        """Write to ``path``. Nothing is lost: stored is by how much each frame differs from the one before,
        modulo 256, which is 0 wherever nothing moves."""
        path.parent.mkdir(parents=True, exist_ok=True)
        changes = self.frames.copy()
        changes[1:] -= self.frames[:-1]
        stored = BytesIO()
        np.savez_compressed(
            stored,
            names=np.array([self.task, self.kind, self.view]),
            sha256=np.array(self.digest()),
            changes=changes,
            progress=self.progress,
            moved=self.moved,
            hand=self.hand,
            success=self.success,
        )
        write_file(path, stored.getvalue())

    @classmethod
    def load(cls, path: Path) -> Clip:
        with np.load(path) as file:
            task, kind, view = (str(name) for name in file["names"])
            frames = file["changes"]
            for before, frame in pairwise(frames):  # ten times as fast as one call for all
                frame += before
            arrays = {name: file[name] for name in ("progress", "moved", "hand", "success")}
        return cls(task, kind, view, frames, **arrays)


@dataclass(frozen=True)
class Listed:
    """A clip's line in the manifest."""

    path: Path
    task: str
    kind: str
    view: str
    seed: int
    succeeded: bool
    sha256: str  #: `Clip.digest`

    @classmethod
    def of_file(cls, folder: Path, path: Path, seed: int) -> Listed:
        """The line of a clip that `Clip.save` wrote; its frames are not read."""
        with np.load(folder / path) as file:
            task, kind, view = (str(name) for name in file["names"])
            return cls(path, task, kind, view, seed, bool(file["success"][-1]), str(file["sha256"]))


class Manifest:
    """The list of a data folder's clips: `manifest.jsonl`, one line each, in a fixed order."""

    NAME = "manifest.jsonl"

    @staticmethod
    def write(folder: Path, lines: list[Listed]) -> str:
        """Write the list; returns its SHA-256, which stands for all of the data."""
        text = "".join(
            json.dumps({**line.__dict__, "path": line.path.as_posix()}) + "\n"
            for line in sorted(lines, key=lambda line: line.path.as_posix())
        )
        write_file(folder / Manifest.NAME, text)
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def read(folder: Path) -> tuple[list[Listed], str]:
        """The list and its SHA-256. Raises SystemExit where there is none."""
        path = folder / Manifest.NAME
        if not path.is_file():
            raise SystemExit(f"{path} is missing: make the data with `python -m training.generate {folder}`")
        text = path.read_text()
        lines = [
            Listed(**{**content, "path": Path(content["path"])})
            for content in map(json.loads, text.splitlines())
        ]
        return lines, hashlib.sha256(text.encode()).hexdigest()
