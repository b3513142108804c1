"""The definition and the type hash of a message, as bags carry them: so that whoever has the bag can read it.

A definition is looked for in this order: where ROS 2 keeps them (`share/PACKAGE/msg/NAME.msg` below each
folder of AMENT_PREFIX_PATH), among our own messages, and among the standard messages of Jazzy that rosbags
ships. It holds the text of the message and of every message that is in it, as rosbag2 writes them. No ROS 2
is imported. Types that exist as .idl files alone are not read.

The hash is what rosbags computes, which refuses bags that say another. It is ROS 2's, but for messages with a
field of type char, which few have: rosbags counts it as a type of its own, ROS 2 as uint8.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.defaults import PACKAGE, shared_file

_BETWEEN = "=" * 80
_TYPE_NAME = re.compile(r"([A-Za-z]\w*)/(msg|srv|action)/([A-Za-z]\w*)")
_BASE_TYPES = {"bool", "byte", "char", "string", "wstring", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
#: A field: its type, of which bounds and lengths are left out, and a name that no constant's "=" follows.
_FIELD = re.compile(r"([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*\s*(?!\s*=)(?:\s|$)")


class DefinitionError(UserError):
    """The definition of a message type is not there, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a bag says of a message type."""

    type_name: str  #: such as topreward_ros/msg/TaskEvent
    text: str  #: of the .msg file, and of the messages in it
    type_hash: str  #: REP 2016, "RIHS01_" and 64 hex digits

    @classmethod
    def of_text(cls, type_name: str, text: str) -> Definition:
        """The definition of a type whose ``text`` is known, of a bag say. Raises `DefinitionError`."""
        return cls(type_name, text, _hash(type_name, text))


@cache
def definition(type_name: str) -> Definition:
    """The definition of ``type_name`` (package/msg/Name). Raises `DefinitionError`."""
    match = _TYPE_NAME.fullmatch(type_name)
    if not match:
        raise DefinitionError(
            f"{printable(type_name, 200)} is no type of a message: it reads package/msg/Name"
        )
    package, _, name = match.groups()
    folders = share_folders()
    text = _whole_text(f"{package}/{name}", folders)
    return Definition(type_name, text, _hash(type_name, text))


def share_folders() -> list[Path]:
    """Where packages of ROS 2 keep what they share, in the order in which they are searched."""
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    return [Path(prefix) / "share" for prefix in dict.fromkeys([*prefixes, sys.prefix])]


def _whole_text(name: str, folders: Sequence[Path]) -> str:
    """The text of package/Name, followed by that of each message in it, each once."""
    inner: dict[str, str] = {}

    def visit(this: str) -> str:
        text = _text(this, folders)
        for other in _types_within(text, this.partition("/")[0]):
            if other != name and other not in inner:
                inner[other] = ""  # holds the place, and ends a circle
                inner[other] = visit(other)
        return text

    text = visit(name)
    return text + "".join(f"\n{_BETWEEN}\nMSG: {other}\n{inner[other]}" for other in inner)


def _types_within(text: str, package: str) -> list[str]:
    """The messages, as package/Name, of which the message with this ``text`` has fields.

    >>> _types_within("std_msgs/Header header # when\\nint8 MOST=3\\nPoint[] points\\nstring<=9 s ''", "mine")
    ['std_msgs/Header', 'mine/Point']
    """
    found = []
    for line in text.splitlines():
        field = _FIELD.match(line.partition("#")[0].strip())
        if field and field[1] not in _BASE_TYPES:
            parts = field[1].split("/")
            if parts == ["Header"]:
                parts.insert(0, "std_msgs")
            found.append("/".join((parts[0] if len(parts) > 1 else package, parts[-1])))
    return found


def _text(name: str, folders: Sequence[Path]) -> str:
    package, _, short = name.partition("/")
    places = [folder / package / "msg" / f"{short}.msg" for folder in folders]
    if package == PACKAGE:
        with suppress(FileNotFoundError):
            places.append(shared_file(f"msg/{short}.msg"))
    for place in places:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return place.read_text(encoding="utf-8")
            except (PermissionError, ValueError) as error:
                raise DefinitionError(f"{place} cannot be read ({error}): install {package} anew") from error
    shipped = _shipped()
    type_name = f"{package}/msg/{short}"
    if type_name in shipped.types:
        return shipped.generate_msgdef(type_name, ros_version=2)[0].partition(_BETWEEN)[0]
    raise DefinitionError(
        f"the definition of {type_name} was not found: source the workspace that has the package {package} "
        f"(share/{package}/msg/{short}.msg below a folder of AMENT_PREFIX_PATH)"
    )


@cache
def _shipped() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def _hash(type_name: str, text: str) -> str:
    store = get_typestore(Stores.EMPTY)
    try:
        store.register(get_types_from_msg(text, type_name))
        return store.hash_rihs01(type_name)
    except Exception as error:  # the parser has many
        raise DefinitionError(
            f"the definition of {printable(type_name, 200)} cannot be read ({printable(str(error), 200)})"
        ) from error
