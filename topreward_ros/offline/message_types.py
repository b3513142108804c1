"""Messages of bags as rosbags reads and writes them: the standard ones and our own, without ROS 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from topreward_ros.offline.message_definitions import definition
from topreward_ros.offline.task_messages import Fields


class MessageTypes:
    """The standard messages of Jazzy, and those of our own that are named."""

    def __init__(self, own: Iterable[str]) -> None:
        """``own``: types such as topreward_ros/msg/TaskEvent. Raises `DefinitionError`."""
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self._store = get_typestore(Stores.ROS2_JAZZY)
        for kind in own:
            types = get_types_from_msg(definition(kind).text, kind)
            self._store.register({name: it for name, it in types.items() if name not in self._store.types})

    def read(self, raw: bytes, kind: str) -> Any:
        """The message of serialised bytes. Raises exceptions of many kinds where they are none."""
        return self._store.deserialize_cdr(raw, kind)

    def write(self, fields: Fields, kind: str) -> bytes:
        """A message with these fields, all of them, serialised."""
        return bytes(self._store.serialize_cdr(self._made(fields, kind), kind))

    def _made(self, fields: Fields, kind: str) -> Any:
        described = {name: about for name, about in self._store.fielddefs[kind][1]}
        values = {
            name: self._made(value, str(described[name][1])) if isinstance(value, dict) else value
            for name, value in fields.items()
        }
        return self._store.types[kind](**values)
