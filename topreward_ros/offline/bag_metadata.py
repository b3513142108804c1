"""The metadata of a rosbag2 bag, read so that whoever writes it again changes nothing.

What YAML would make of a plain text depends on who reads it: `007`, `on`, `1.10`, `12:30:00` and a date are
texts of people, and rosbag2 takes them for texts. Here a number is what comes out again as it went in, and
all else is a text; below `custom_data` nothing is a number. Aliases, by which a few lines can claim to be a
billion values, are followed only as far as a sound file needs. Which keys there must be is not known here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from topreward_ros.offline.bag_layout import INFORMATION

CUSTOM_DATA = "custom_data"  #: the key below which a recorder's user says what he likes
MOST_BYTES = 1 << 24  #: of the file; that of a bag in 10,000 files has 4 MB
_MOST_MORE = 200_000  # values and characters beyond those of the file, by aliases
LARGEST = (1 << 63) - 1  #: of a number: nanoseconds and counts are int64
_NULLS = ("", "~", "null")
_BOOLS = {"true": True, "false": False}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")


class MetadataError(ValueError):
    """A file is no metadata of a bag."""


def read_information(file: Path) -> dict[str, Any]:
    """What stands below `INFORMATION`. Raises `OSError`, `MetadataError`."""
    with file.open("rb") as stream:
        raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise MetadataError(f"it has more than {MOST_BYTES >> 20} MiB")
    try:
        text = raw.decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = _Values(2 * len(text) + _MOST_MORE).of(node)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise MetadataError(str(error)) from error
    except RecursionError:
        raise MetadataError("its values contain each other without end") from None
    information = content.get(INFORMATION) if isinstance(content, dict) else None
    if not isinstance(information, dict):
        raise MetadataError(f"it has no {INFORMATION}, so it is no metadata of a bag")
    if not isinstance(information.get(CUSTOM_DATA) or {}, dict):
        raise MetadataError(f"its {CUSTOM_DATA} are no names with values")
    return information


def whole_number(value: Any, name: str, lowest: int = 0) -> int:
    """A count, a version or nanoseconds in metadata, at least ``lowest``. Raises `MetadataError`.

    >>> whole_number(5, "version"), whole_number("5", "version")
    (5, 5)
    """
    text = str(value) if isinstance(value, str | int) else ""
    if not (_NUMBER.fullmatch(text) and lowest <= int(text) <= LARGEST):
        shown = text[:40] or type(value).__name__
        raise MetadataError(f"{name} is '{shown}', and must be a whole number from {lowest} to {LARGEST}")
    return int(text)


class _Values:
    """Makes Python's values of YAML's nodes."""

    def __init__(self, most: int) -> None:
        """``most``: values and characters that all may have together."""
        self._left = most
        self._custom: set[int] = set()  # nodes below `CUSTOM_DATA`, by identity

    def of(self, node: yaml.Node | None, *, custom: bool = False) -> Any:
        """The value of ``node``; ``custom``: it is below `CUSTOM_DATA`. Raises `MetadataError`."""
        if node is None:
            return None
        self._left -= 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        if self._left < 0:
            raise MetadataError("its aliases make more of it than a bag can have")
        if custom:
            if id(node) in self._custom:
                raise MetadataError(f"its {CUSTOM_DATA} hold aliases, which rosbag2 does not write")
            self._custom.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, custom)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item, custom=custom) for item in node.value]
        made: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise MetadataError("a name in it is no text")
            made[key.value] = self.of(value, custom=custom or key.value == CUSTOM_DATA)
        return made


def _scalar(node: yaml.ScalarNode, custom: bool) -> Any:
    text: str = node.value
    if node.style:  # in quotes, or a block
        return text
    if text in _NULLS:
        return None
    if custom:
        return text
    return int(text) if _NUMBER.fullmatch(text) else _BOOLS.get(text, text)
