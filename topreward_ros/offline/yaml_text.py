"""YAML that may be anything: one error says that it cannot be read, whichever PyYAML fails with."""

from __future__ import annotations

from typing import Any

import yaml


class YamlError(ValueError):
    """A text is no YAML that can be used."""


def parsed_yaml(text: str) -> Any:
    """The value that ``text`` says, of plain types. Raises `YamlError`.

    >>> parsed_yaml("cameras: [/front, /wrist]")
    {'cameras': ['/front', '/wrist']}
    """
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise YamlError("it is nested too deep") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # All but the first come of a text that is not of the type that its tag (!!bool x) or looks say.
        raise YamlError(f"it is no YAML: {error}") from error
