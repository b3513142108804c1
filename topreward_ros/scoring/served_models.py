"""Models that another process serves, named by a URL.

What a URL names is decided here alone. Every other place asks `is_served`, and does without what only a
checkpoint on this machine has.
"""

from __future__ import annotations

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.openai_api.address import read_endpoint

_SCHEMES = ("http", "https")


def is_served(model: str) -> bool:
    """Whether ``model`` is a URL, and no checkpoint on this machine.

    >>> is_served("http://10.0.0.5:8100/v1"), is_served("embedded"), is_served("org/http")
    (True, False, False)
    """
    return model.strip().lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def load_served(model: str, settings: ScorerSettings) -> PrefixScorer:
    """A scorer that asks the server at a URL. Raises `ScorerError`."""
    from topreward_ros.scoring.openai_api.load import load_openai

    return load_openai(model, settings)


def served_info(model: str, settings: ScorerSettings) -> ScorerInfo:
    """What the server at a URL says of its model. Raises `ScorerError`."""
    from topreward_ros.scoring.openai_api.load import about_openai

    return about_openai(model, settings)


def refuse_served(model: str, work: str) -> None:
    """Raise `ScorerError` for a URL where ``work`` needs a checkpoint on this machine."""
    if is_served(model):
        read_endpoint(model)  # refuses, without quoting it, one that holds a password
        raise ScorerError(
            f"model '{printable(model, 200)}' is served elsewhere, and {work} needs its files: name "
            "'embedded', a hub id or a folder, on the machine that has it"
        )
