"""Names of nodes that are known, and of one that has just appeared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from topreward_ros.nodes.graph import A_NODE, all_named, node_of


@pytest.mark.parametrize(
    ("namespace", "name", "full"),
    [
        ("/", "camera", "/camera"),
        ("/arm", "camera", "/arm/camera"),
        ("_NODE_NAMESPACE_UNKNOWN_", "_NODE_NAME_UNKNOWN_", A_NODE),
        ("/", "_NODE_NAME_UNKNOWN_", A_NODE),
    ],
)
def test_a_node_without_a_name_is_a_node(namespace: str, name: str, full: str) -> None:
    found = node_of(SimpleNamespace(node_namespace=namespace, node_name=name))
    assert found == full and all_named([found]) == (full != A_NODE)
