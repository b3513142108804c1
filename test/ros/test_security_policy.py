"""The policy for DDS security allows what a monitor needs, and names nothing that it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node

from topreward_ros.defaults import shared_file

_ENCLAVES = ("/camera", "/monitor", "/supervisor", "/watch", "/recorder")
_PARTS_OF_AN_ACTION = {
    ("topic", "publish"): ("feedback", "status"),
    ("service", "reply"): ("send_goal", "get_result", "cancel_goal"),
}
# Not used by a monitor as it is started here: simulated time, and images in another form.
_OTHERWISE = {"/clock", "/image/compressed"}


def allowed(enclave: str, kind: str, way: str) -> set[str]:
    """Full names of the topics or services that the policy lets ``enclave`` publish, subscribe, reply ..."""
    policy = ElementTree.parse(Path(shared_file("config/sros2_policy.xml")))
    names = set()
    for profile in policy.iterfind(f".//enclave[@path='{enclave}']//profile"):
        node = f"{profile.attrib['ns']}{profile.attrib['node']}"
        for place in profile.iterfind(f"{kind}s[@{way}='ALLOW']/{kind}"):
            names.add(f"/{place.text}".replace("/~", node))
        for place in profile.iterfind("actions[@execute='ALLOW']/action"):
            parts = _PARTS_OF_AN_ACTION.get((kind, way), ())
            names |= {f"/{place.text}/_action/{part}".replace("/~", node) for part in parts}
    return names


def test_a_monitor_and_a_recorder_may_do_what_they_do(robot, tmp_path: Path) -> None:
    robot.start_monitor(task="open it")
    check(robot, "monitor", "/monitor")
    robot.run("-m", "topreward_ros.cli", "record", f"--output={tmp_path / 'bags'}")
    robot.introduce("topreward_record")
    robot.until(lambda: robot.camera.get_subscription_count() == 2, "the recorder knows the camera")
    check(robot, "topreward_record", "/recorder")


def check(robot: Any, name: str, enclave: str) -> None:
    """Hold that the node ``name`` has what its enclave may have, and no more."""
    node: Node = robot.node
    names = {
        ("topic", "publish"): node.get_publisher_names_and_types_by_node,
        ("topic", "subscribe"): node.get_subscriber_names_and_types_by_node,
        ("service", "reply"): node.get_service_names_and_types_by_node,
        ("service", "request"): node.get_client_names_and_types_by_node,
    }
    for (kind, way), ask in names.items():
        may = allowed(enclave, kind, way)

        def has(ask: Any = ask) -> set[str]:
            return {one for one, _ in ask(name, "/")}

        robot.until(lambda may=may, has=has: may - has() <= _OTHERWISE, f"all of {kind} {way} is there", 5.0)
        assert has() <= may, way


def test_only_the_supervisor_sets_the_task_and_nobody_sets_parameters() -> None:
    ways = {("topic", "publish", "/task_instruction"), ("service", "request", "/monitor/set_task")}
    for kind, way, name in ways:
        may = {e for e in _ENCLAVES if name in allowed(e, kind, way)}
        assert may == {"/supervisor"}
    policy = ElementTree.parse(Path(shared_file("config/sros2_policy.xml")))
    calls = policy.findall(".//actions[@call='ALLOW']/action")
    assert [call.text for call in calls] == ["monitor/monitor_task"]
    assert policy.find(".//enclave[@path='/supervisor']//actions[@call='ALLOW']") is not None
    requests = {name for e in _ENCLAVES for name in allowed(e, "service", "request")}
    assert requests and not any("parameters" in name or "change_state" in name for name in requests)
    assert allowed("/watch", "topic", "publish") <= {"/parameter_events"}
    assert allowed("/recorder", "topic", "publish") <= {"/parameter_events", "/rosout"}
