"""Models that another process serves, named by a URL.

    http://host:port                 a `topreward serve` (scoring/remote/), with whatever model it has
    http://host:port?model=NAME      the same, and any other model is refused
    http://host:port?frames=jpeg     frames go as JPEG of quality 90 (jpeg:Q: Q), not exactly as PNG
    http://host:port/v1#NAME         an OpenAI-compatible endpoint (scoring/openai_api/)

What a URL names is decided here alone. Every other place asks `is_served`, and does without what only a
checkpoint on this machine has.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.openai_api.address import is_openai_url, read_endpoint
from topreward_ros.scoring.remote.address import read_address

_SCHEMES = ("http", "https")


def is_served(model: str) -> bool:
    """Whether ``model`` is a URL, and no checkpoint on this machine.

    >>> is_served("http://10.0.0.5:8100"), is_served("embedded"), is_served("org/http")
    (True, False, False)
    """
    return model.strip().lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def load_served(model: str, settings: ScorerSettings) -> PrefixScorer:
    """A scorer that asks the server at a URL. Raises `ScorerError`, which is a `LinkError` where the server
    cannot be reached."""
    _refuse_adapter(model, settings)
    if is_openai_url(model):
        from topreward_ros.scoring.openai_api.load import load_openai

        return load_openai(model, settings)
    from topreward_ros.scoring.remote.scorer import RemoteScorer

    return RemoteScorer(read_address(_split(model)), settings)


def served_info(model: str, settings: ScorerSettings) -> ScorerInfo:
    """What the server at a URL says of its model. Raises `ScorerError`."""
    _refuse_adapter(model, settings)
    if is_openai_url(model):
        from topreward_ros.scoring.openai_api.load import about_openai

        return about_openai(model, settings)
    scorer = load_served(model, settings)
    scorer.close()
    return scorer.info


def _refuse_adapter(model: str, settings: ScorerSettings) -> None:
    if settings.adapter:
        raise ScorerError(
            f"adapter is '{printable(settings.adapter, 200)}', and the model is served elsewhere: start that "
            f"server with it (topreward serve --set adapter=...), and leave adapter empty here"
        )


def refuse_served(model: str, work: str) -> None:
    """Raise `ScorerError` for a URL where ``work`` needs a checkpoint on this machine."""
    if is_served(model):
        if is_openai_url(model):  # a URL that holds a password is refused without quoting it
            read_endpoint(model)
        else:
            _split(model)
        raise ScorerError(
            f"model '{printable(model, 200)}' is served elsewhere, and {work} needs its files: name "
            "'embedded', a hub id or a folder, on the machine that has it"
        )


def refuse_own_server(model: str, work: str) -> None:
    """Raise `ScorerError` for a server of `topreward serve` where ``work`` asks other questions than its."""
    if is_served(model) and not is_openai_url(model):
        _split(model)
        raise ScorerError(
            f"model '{printable(model, 200)}' is a server of `topreward serve`, which asks the one question "
            f"that it was started with, and {work} tries others: name the model itself, or an endpoint of "
            "OpenAI's protocol (http://host:8000/v1)"
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
