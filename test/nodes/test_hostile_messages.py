"""Every text and every number of every message that comes over the wire, through every view of it.

The fields come from the message types, so that a new field or a new message is tried, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest

pytest.importorskip("rclpy")

import topreward_ros.msg
from rclpy.logging import LoggingSeverity
from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from sensor_msgs.msg import CompressedImage, Image
from topreward_ros.msg import (
    MonitorInfo,
    SupervisorDecision,
    SupervisorState,
    TaskEvent,
    TaskProgress,
    TaskReward,
)

from test.hostile import SENT, TEXTS, check_lines, check_xml
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import Stamp
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import Event, ProgressReport, State
from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes import conversions, images, watch
from topreward_ros.nodes.log import logger_named
from topreward_ros.offline.camera_images import ImageError
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.views.watch import WatchLog, description_line, event_line, sample_line, view

MESSAGES = [kind for kind in vars(topreward_ros.msg).values() if isinstance(kind, type)]


def with_value(message: Any, value: Any, types: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Copies of ``message``, each with ``value`` in one field of ``types``, at any depth; and which field."""
    for name, kind in message.get_fields_and_field_types().items():
        changed = copy.deepcopy(message)
        if kind in types:
            setattr(changed, name, value)
            yield name, changed
        elif kind == f"sequence<{types[0]}>":
            setattr(changed, name, [value])
            yield name, changed
        elif hasattr(inner := getattr(message, name), "get_fields_and_field_types"):
            for where, part in with_value(inner, value, types):
                changed = copy.deepcopy(message)
                setattr(changed, name, part)
                yield f"{name}.{where}", changed


def sent(message: Any) -> Any:
    """``message`` as it arrives."""
    return deserialize_message(serialize_message(message), type(message))


def see_progress(message: TaskProgress, tmp_path: Any) -> None:
    log = WatchLog("/task_progress")
    sample = conversions.sample(message)
    log.add_progress(sample, 0.0)
    check_lines(sample_line(sample), 1)
    see(log, tmp_path)


def see_event(message: TaskEvent, tmp_path: Any) -> None:
    log = WatchLog("/task_progress")
    log.add_progress(conversions.sample(TaskProgress(episode_id="e", num_frames=1)), 0.0)
    event = conversions.happening(message)
    log.add_event(event)
    check_lines(event_line(log, event), 1)
    see(log, tmp_path)


def see_info(message: MonitorInfo, tmp_path: Any) -> None:
    log = WatchLog("/task_progress")
    log.add_progress(conversions.sample(TaskProgress(episode_id="e", num_frames=1)), 0.0)
    description = conversions.description(message)
    log.add_description(description)
    check_lines(description_line(description), 1)
    see(log, tmp_path)


def see(log: WatchLog, tmp_path: Any) -> None:
    for height in (None, 14):
        console = Console(width=80, file=StringIO(), color_system=None)
        console.print(view(log, 1.0, 80, height))
        check_lines(console.file.getvalue())  # type: ignore[attr-defined]
    watch.save_svg(log, tmp_path / "w.svg", f"topreward watch {log.topic}, model {log.model}")
    check_xml((tmp_path / "w.svg").read_bytes())


#: What this package shows of each message. It reads no TaskReward, and nothing that a supervisor publishes.
VIEWS: dict[type, Callable[[Any, Any], None] | None] = {
    TaskProgress: see_progress,
    TaskEvent: see_event,
    MonitorInfo: see_info,
    TaskReward: None,
    SupervisorDecision: None,
    SupervisorState: None,
}


def test_every_message_is_here() -> None:
    assert set(MESSAGES) == set(VIEWS)


@pytest.mark.parametrize("text", SENT.values(), ids=SENT)
@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if VIEWS[kind]])
def test_every_text_of_every_message_in_every_view(kind: type, text: str, tmp_path) -> None:
    show = VIEWS[kind]
    assert show is not None
    tried = []
    for name, changed in with_value(kind(), text, ("string",)):
        show(sent(changed), tmp_path)
        tried.append(name)
    assert len(tried) >= 4, tried


@pytest.mark.parametrize(
    ("types", "values"),
    [
        (("uint8", "uint32", "uint64"), (0, 9, 77, 255)),
        (("double", "float"), (float("nan"), float("inf"), float("-inf"), -1.0, 3.4e38, -3.4e38)),
        (("int32",), (-(2**31), -1, 2**31 - 1)),
        (("uint32",), (2**32 - 1,)),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if VIEWS[kind]])
def test_every_number_of_every_message_in_every_view(kind: type, types, values, tmp_path) -> None:
    show = VIEWS[kind]
    assert show is not None
    base = kind()
    if kind is TaskProgress:
        base.num_frames = 1
    for value in values:
        for _, changed in with_value(base, value, types):
            show(sent(changed), tmp_path)


def test_an_unknown_state_and_event_are_shown_as_numbers() -> None:
    assert "state 99" in sample_line(conversions.sample(sent(TaskProgress(state=99))))
    assert conversions.happening(sent(TaskEvent(type=77))).type == "event 77"


@pytest.mark.parametrize("text", SENT.values(), ids=SENT)
def test_images(text: str) -> None:
    for kind in (Image, CompressedImage):
        for name, changed in with_value(kind(), text, ("string",)):
            raw = serialize_message(changed)
            with pytest.raises(ImageError) as error:
                images.decode(raw, kind)
            check_lines(str(error.value), 1)
            assert len(str(error.value)) < 1000, name


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_log(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    logger = logger_named(f"hostile{len(text)}")
    for _ in range(3):
        logger.warning(text, throttle_duration_sec=60.0)
        logger.warning(f"another line: {text}", throttle_duration_sec=60.0)
    logger.log(text, LoggingSeverity.ERROR)
    said = capfd.readouterr().err
    assert said.count("[hostile") == 3 and said.count("\n") == 3, "each line is throttled by itself"
    for line in said.splitlines():
        check_lines(line, 1)
        assert len(line) < 2100 and ("ab" in line)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_we_publish_for_people(text: str) -> None:
    """An error of a library may hold anything, and a lone surrogate cannot be sent at all."""
    info = ScorerInfo(text, text, False, "cpu", "float32", "h", 1024)
    event = Event(
        type=EventType.SCORER_ERROR, sequence=1, episode_id="e", instruction="x", stamp=Stamp(1, "f"),
        progress=0.0, log_prob=0.0, threshold=0.0, message=text,
    )  # fmt: skip

    for message in (
        conversions.progress_message(ProgressReport(state=State.STALE, news=text), info, 0),
        conversions.event_message(event, info),
    ):
        check_lines(sent(message).message, 1)
    settings = MonitorSettings.from_parameters(monitor_defaults())
    described = sent(conversions.info_message(info, settings, ["/image"], "primary", 0))
    check_lines(described.model_id, 1)
    check_lines(described.model_revision, 1)
