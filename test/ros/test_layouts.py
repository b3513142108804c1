"""The layouts for Foxglove and PlotJuggler name topics of a running monitor, and fields that those have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")

from topreward_ros.defaults import shared_file

#: Settings of Foxglove's panels that hold a topic, with a field behind it or not.
_TOPIC_KEYS = {"imageTopic", "topicPath", "value"}


def foxglove_names() -> Iterator[tuple[str, list[str]]]:
    """Topic and path of fields of every value that the layout shows."""

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for item in value:
                yield from texts(item)
        elif isinstance(value, dict):
            for key, item in value.items():
                if key in _TOPIC_KEYS:
                    yield item
                else:
                    yield from texts(item)

    for text in texts(json.loads(shared_file("config/foxglove.json").read_text())["configById"]):
        topic, *fields = text.split(".")
        yield topic, fields


def plotjuggler_names(topics: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The same of PlotJuggler's, with a slash before fields, too. ``topics``: those that there are."""
    root = ElementTree.parse(shared_file("config/plotjuggler.xml")).getroot()
    for curve in root.iter("curve"):
        name = curve.attrib["name"]
        topic = max((topic for topic in topics if name.startswith(f"{topic}/")), key=len, default=name)
        yield topic, name.removeprefix(topic).split("/")[1:]
    for selected in root.iter("selected_topics"):
        yield from ((topic, []) for topic in selected.attrib["value"].split(";"))


def field_type(message: str, path: list[str]) -> str:
    """The type of a field of a message such as std_msgs/msg/Header. Raises KeyError where there is none."""
    for name in path:
        package, _, kind = message.split("/")
        fields = getattr(import_module(f"{package}.msg"), kind).get_fields_and_field_types()
        message = fields[name].replace("/", "/msg/", 1)
    return message


def test_every_topic_and_field_is_published(robot: Any) -> None:
    def published() -> set[str]:
        return {name for name, _ in robot.node.get_publisher_names_and_types_by_node("monitor", "/")}

    def shown() -> list[list[tuple[str, list[str]]]]:
        return [list(foxglove_names()), list(plotjuggler_names(published()))]

    robot.start_monitor(task="open it")
    # A topic that is not there leaves the whole name of a curve, so this holds for those that are.
    robot.until(
        lambda: {topic for names in shown() for topic, _ in names} <= published(),
        "the monitor publishes all that the layouts show",
        5.0,
    )
    types = {name: kinds[0] for name, kinds in robot.node.get_topic_names_and_types()}
    for names in shown():
        assert len(names) >= 8 and {"/task_progress", "/task_event"} <= {topic for topic, _ in names}
        for topic, path in names:
            if path:
                assert field_type(types[topic], path) in ("float", "double", "uint8", "string"), (topic, path)
        assert ("/task_progress", ["progress"]) in names
    assert types["/monitor/debug_image"] == "sensor_msgs/msg/Image"
    assert "/monitor/debug_image" in dict(foxglove_names())


def test_every_panel_has_a_place_and_every_place_a_panel() -> None:
    layout = json.loads(shared_file("config/foxglove.json").read_text())

    def places(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            assert node["direction"] in ("row", "column") and 0 < node["splitPercentage"] < 100
            yield from (*places(node["first"]), *places(node["second"]))

    assert sorted(places(layout["layout"])) == sorted(layout["configById"])
    root = ElementTree.parse(shared_file("config/plotjuggler.xml")).getroot()
    for splitter in root.iter("DockSplitter"):
        sizes = splitter.attrib["sizes"].split(";")
        assert len(splitter) == int(splitter.attrib["count"]) == len(sizes)
        assert sum(map(float, sizes)) == pytest.approx(1.0)
