"""The detectors that look at pictures: COVERED_IMAGES and FROZEN_IMAGES, asked together at each frame.

Where a frame shows several cameras side by side, each of them is looked at on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topreward_ros.core.detectors.covered import CoveredDetector
from topreward_ros.core.detectors.frozen import FrozenDetector
from topreward_ros.core.detectors.sample import Finding
from topreward_ros.core.pictures import Picture


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """When pictures are no pictures of the task any more."""

    frozen_timeout: float  #: [s] for which pictures must be the same; 0: never
    covered_timeout: float  #: [s] for which pictures must show nothing; 0: never

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> PictureSettings:
        """Take the settings from parameters named as in config/monitor.yaml."""
        return cls(parameters["frozen_timeout"], parameters["covered_timeout"])


class PictureDetectors:
    """COVERED_IMAGES and FROZEN_IMAGES of one episode."""

    def __init__(self, settings: PictureSettings, *, fixed: bool) -> None:
        """``fixed``: the cameras stand still."""
        self._settings, self._fixed = settings, fixed
        self._covered = CoveredDetector(settings.covered_timeout)
        self._frozen: list[FrozenDetector] = []  # one for each camera

    @property
    def settings(self) -> PictureSettings:
        """In force. They may be replaced at any time, and act at the next frame."""
        return self._settings

    @settings.setter
    def settings(self, settings: PictureSettings) -> None:
        self._settings = settings
        self._covered.timeout = settings.covered_timeout
        for camera in self._frozen:
            camera.timeout = settings.frozen_timeout

    @property
    def why(self) -> str:
        """Why no score of the newest frame is believed; empty: it is."""
        frozen = [self._of_camera(k, camera.why) for k, camera in enumerate(self._frozen) if camera.sure]
        return "; ".join(filter(None, [self._covered.why, *frozen]))

    @property
    def all_frozen(self) -> bool:
        """Whether every camera is frozen for sure, so that there is nothing new to be scored."""
        return bool(self._frozen) and all(camera.sure for camera in self._frozen)

    def update(
        self, stamp_ns: int, images: Sequence[np.ndarray], pictures: Sequence[Picture | None], fault: str
    ) -> list[Finding]:
        """Take the next frame: its stamp [ns], the image of each camera, (H, W, 3) uint8 RGB, what is seen of
        each at a glance, and why the frame shows nothing (`Sight.fault`); empty: it does."""
        if len(images) != len(self._frozen):
            self._frozen = [FrozenDetector(self._settings.frozen_timeout, fixed=self._fixed) for _ in images]
        found = [self._covered.update(stamp_ns, fault)]
        for k, (camera, image, picture) in enumerate(zip(self._frozen, images, pictures, strict=True)):
            seen = None if picture is None or picture.fault else picture
            finding = camera.update(stamp_ns, image, seen)
            found.append(finding and replace(finding, message=self._of_camera(k, finding.message)))
        return [finding for finding in found if finding]

    def _of_camera(self, k: int, text: str) -> str:
        return f"camera {k + 1}: {text}" if len(self._frozen) > 1 else text
