"""Models that another process serves, named by a URL.

    http://host:port                 a `topreward serve` (scoring/remote/), with whatever model it has
    http://host:port?model=NAME      the same, and any other model is refused
    http://host:port?frames=jpeg     frames go as JPEG of quality 90 (jpeg:Q: Q), not exactly as PNG
    http://host:port/v1              an OpenAI-compatible endpoint

What a URL names is decided here alone. Every other place asks `is_served`, and does without what only a
checkpoint on this machine has.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerInfo, ScorerSettings

_SCHEMES = ("http", "https")
_PORTS = {"http": 80, "https": 443}
JPEG_QUALITY = 90  #: where none is given


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


def is_served(model: str) -> bool:
    """Whether ``model`` is a URL, and no checkpoint on this machine.

    >>> is_served("http://10.0.0.5:8100"), is_served("embedded"), is_served("org/http")
    (True, False, False)
    """
    return model.strip().lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def load_served(model: str, settings: ScorerSettings) -> PrefixScorer:
    """A scorer that asks the server at a URL. Raises `ScorerError`, which is a `LinkError` where the server
    cannot be reached."""
    url = _split(model)
    if _is_openai(url):
        raise ScorerError(
            f"model '{printable(model, 200)}' has a path: the URL of a topreward server has none, "
            "as in http://host:8100"
        )
    from topreward_ros.scoring.remote.scorer import RemoteScorer

    return RemoteScorer(_address(url, model), settings)


def served_info(model: str, settings: ScorerSettings) -> ScorerInfo:
    """What the server at a URL says of its model. Raises `ScorerError`."""
    scorer = load_served(model, settings)
    scorer.close()
    return scorer.info


def refuse_served(model: str, work: str) -> None:
    """Raise `ScorerError` for a URL where ``work`` needs a checkpoint on this machine."""
    if is_served(model):
        raise ScorerError(
            f"model '{printable(model, 200)}' is served elsewhere, and {work} needs its files: name "
            "'embedded', a hub id or a folder, on the machine that has it"
        )


def _split(model: str) -> SplitResult:
    try:
        url = urlsplit(model.strip())
        url.port  # noqa: B018 - it is looked at when it is asked for
    except ValueError as error:
        raise ScorerError(f"model '{printable(model, 200)}' is no URL ({error}): {_EXAMPLE}") from error
    if url.username is not None or url.password is not None:
        raise ScorerError(
            "the URL of a model holds no name and no password, as it is shown and recorded: the token of a "
            "topreward server goes into the environment variable TOPREWARD_TOKEN"
        )
    if not url.hostname or not re.fullmatch(r"[\w.:%-]+", url.hostname):
        raise ScorerError(f"model '{printable(model, 200)}' names no host: {_EXAMPLE}")
    return url


_EXAMPLE = "write it as http://host:8100"


def _is_openai(url: SplitResult) -> bool:
    return url.path.strip("/") != "" or url.fragment != ""


def _address(url: SplitResult, model: str) -> Address:
    asked = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := asked.keys() - {"model", "revision", "frames"}:
        raise ScorerError(
            f"model '{printable(model, 200)}': ?{printable(min(unknown), 60)} is not known; there are model, "
            "revision and frames"
        )
    frames = re.fullmatch(r"png|jpeg(?::(\d{1,3}))?", asked.get("frames", "png"))
    quality = 0 if frames is None or frames[0] == "png" else int(frames[1] or JPEG_QUALITY)
    if frames is None or quality > 100 or frames[1] == "0":
        raise ScorerError(
            f"model '{printable(model, 200)}': frames is png, jpeg, or jpeg:Q with a quality Q from 1 to 100"
        )
    return Address(
        scheme=url.scheme.lower(),
        host=url.hostname or "",
        port=url.port or _PORTS[url.scheme.lower()],
        model=asked.get("model", ""),
        revision=asked.get("revision", ""),
        jpeg_quality=quality,
    )
