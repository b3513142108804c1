"""Names of topics under remapping rules that follow each other, as rclpy resolves them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import String

from topreward_ros.nodes.topic_names import TopicNameError, full_topic, name_for

RULES = ("/left:=/right", "/right:=/left", "a:=b", "b:=c")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    context = Context()
    context.init(args=[])
    rules = [part for rule in RULES for part in ("-r", rule)]
    made = Node("names", context=context, cli_args=["--ros-args", *rules], start_parameter_services=False)
    yield made
    made.destroy_node()
    context.shutdown()


@pytest.mark.parametrize(
    ("full", "given", "name"),
    [
        ("/right", ["left"], "left"),
        ("/left", ["left", "right"], "right"),
        ("/b", ["plain", "a"], "a"),
        ("/c", [], "/c"),
        ("/plain", ["left"], "/plain"),
    ],
)
def test_a_subscription_to_what_a_name_means_is_one_to_that_topic(node, full, given, name) -> None:
    assert name_for(node, full, given) == name
    assert node.create_subscription(String, name, print, 1).topic_name == full


@pytest.mark.parametrize(("full", "made_of_it"), [("/left", "/right"), ("/b", "/c")])
def test_a_topic_to_which_no_name_leads_is_refused(node, full: str, made_of_it: str) -> None:
    with pytest.raises(TopicNameError, match=f"{full} cannot be read: a remapping rule makes {made_of_it} "):
        name_for(node, full, ["plain", "left"])


@pytest.mark.parametrize("topic", ["", "two words", "a//b", "1st", "bell\x07"])
def test_what_is_no_name_is_told_in_a_line(node, topic: str) -> None:
    with pytest.raises(TopicNameError, match="is not a name: ") as caught:
        full_topic(node, topic)
    assert str(caught.value).isprintable()
