"""Where a `topreward serve` is, and what is asked of it, from the URL that a user gave as the model."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError

_PORTS = {"http": 80, "https": 443}
_JPEG_QUALITY = 90  # where none is given


class Address(NamedTuple):
    """Where a `topreward serve` is, and how to speak with it."""

    scheme: str
    host: str
    port: int
    model: str = ""  #: that it must have; empty: any
    revision: str = ""  #: the same
    jpeg_quality: int = 0  #: 0: frames go as PNG

    @property
    def url(self) -> str:
        """For a human."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def read_address(url: SplitResult) -> Address:
    """What a URL without a path says. Raises `ScorerError`.

    >>> from urllib.parse import urlsplit
    >>> read_address(urlsplit("http://lab:8100?frames=jpeg")).jpeg_quality
    90
    """
    name = printable(url.geturl(), 200)
    asked = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := asked.keys() - {"model", "revision", "frames"}:
        raise ScorerError(
            f"model '{name}': ?{printable(min(unknown), 60)} is not known; there are model, "
            "revision and frames"
        )
    frames = re.fullmatch(r"png|jpeg(?::(\d{1,3}))?", asked.get("frames", "png"))
    quality = 0 if frames is None or frames[0] == "png" else int(frames[1] or _JPEG_QUALITY)
    if frames is None or quality > 100 or frames[1] == "0":
        raise ScorerError(f"model '{name}': frames is png, jpeg, or jpeg:Q with a quality Q from 1 to 100")
    return Address(
        scheme=url.scheme.lower(),
        host=url.hostname or "",
        port=url.port or _PORTS[url.scheme.lower()],
        model=asked.get("model", ""),
        revision=asked.get("revision", ""),
        jpeg_quality=quality,
    )
