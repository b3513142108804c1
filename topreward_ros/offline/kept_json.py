"""JSON that one run keeps for the next: what was changed since, by a disk or by hand, does not count.

No look at values tells the curve of a film that lost a score from that of a shorter film. So a hash stands
among them, of all the others and of the key that says what they are of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.printable import printable
from topreward_ros.offline.json_fields import Field
from topreward_ros.offline.json_values import json_value

_HASH = "sha256"


class KeptError(ValueError):
    """A file is not as it was kept."""


def kept_text(key: str, values: Mapping[str, Any]) -> str:
    """What `read_kept` reads: ``values``, which are not called sha256, for what ``key`` says."""
    plain = json_value(dict(values))
    return json.dumps({**plain, _HASH: _hash(key, plain)})


def read_kept(path: Path, key: str) -> Field | None:
    """The values that were kept for ``key``, as JSON holds them; None where there is no file.

    Raises `KeptError`, `JsonError`, `FieldError`: all of them are `ValueError`.
    """
    try:
        content = Field(parsed_json(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeptError(f"it cannot be read ({error.strerror or error})") from error
    values = {name: value for name, value in content.members().items() if name != _HASH}
    if content[_HASH].value != _hash(key, values):
        raise KeptError("it was changed")
    return Field(values)


def scored_again(damaged: int, what: str, folder: Path) -> str:
    """The sentence that so many files of ``folder`` do not count; ``what`` each of them is of."""
    shown = printable(str(folder), 300)
    if damaged == 1:
        return f"what {shown} keeps of 1 {what} was damaged: it is scored again"
    return f"what {shown} keeps of {damaged} {what}s was damaged: they are scored again"


def _hash(key: str, values: Mapping[str, Any]) -> str:
    return sha256(json.dumps([key, values], sort_keys=True).encode()).hexdigest()
