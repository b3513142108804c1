"""What the live monitor said of itself while a bag was recorded: its cameras, its model and its settings.

Of its monitor/info the newest message counts. What an annotation does with it is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.offline.bags import OpenBag, slashed
from topreward_ros.offline.recorded_episodes import of_camera, of_namespace

INFO = "topreward_ros/msg/MonitorInfo"
_NO_SETTINGS = frozenset(("header", "device", "calibrated"))  # do not change the numbers


@dataclass(frozen=True, slots=True)
class RecordedMonitor:
    """A live monitor, as it described itself."""

    topic: str
    cameras: tuple[str, ...]  #: the primary one first; all of them were scored
    layout: str  #: primary or tile
    fields: Mapping[str, Any]  #: those of its MonitorInfo

    def differences(self, wanted: Mapping[str, Any]) -> str:
        """What is another one in ``wanted``, the fields of the MonitorInfo of an annotation; for a human.

        A model is known by its revision: the same one may lie in another folder.
        """
        left_out = set(_NO_SETTINGS)
        if self.fields.get("model_revision") == wanted["model_revision"]:
            left_out.add("model_id")
        elif self.fields.get("model_id") != wanted["model_id"]:
            left_out.add("model_revision")
        texts = [
            f"{name} {_text(self.fields[name])} (here {_text(value)})"
            for name, value in wanted.items()
            if name in self.fields and name not in left_out and _text(self.fields[name]) != _text(value)
        ]
        return printable(", ".join(texts), 800)


def recorded_monitor(
    bag: OpenBag, namespace: str, camera: str, read: Callable[[bytes, str], Any]
) -> RecordedMonitor | None:
    """The monitor of the robot in ``namespace``, or of ``camera``; None where there is none, or several are.

    ``camera``: the topic of the images, where it was named; ``read``: deserialises a message of a type.
    One that cannot be read, of another version, is none.
    """
    topics = sorted(slashed(it.name) for it in bag.topics if it.type == INFO and it.count)
    spaces = {
        name.rpartition("/")[0].rpartition("/")[0]: name for name in topics
    }  # the node's name is between
    if len(spaces) < len(topics):  # two monitors of one robot
        return None
    spaces = of_namespace(bag, spaces, namespace)
    if len(spaces) > 1:
        spaces = of_camera(spaces, camera or f"{namespace}/")
    if not spaces:
        return None
    topic = spaces[max(spaces, key=len)]
    newest = None
    for message in bag.messages([topic]):
        newest = message if message.type == INFO else newest
    assert newest is not None
    try:
        said = read(newest.data, INFO)
    except Exception:  # rosbags meets damaged bytes with errors of many kinds
        return None
    fields = {name: getattr(said, name) for name in said.__dataclass_fields__ if not name.startswith("__")}
    return RecordedMonitor(topic, tuple(map(str, said.camera_names)), str(said.camera_layout), fields)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(printable(str(it), 100) for it in value) or "none"
    return printable(str(value), 100) or "none"
