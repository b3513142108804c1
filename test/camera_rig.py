"""The cameras of a monitor in the process of a test, and nodes beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("rclpy")

from rclpy.node import Node

from topreward_ros.nodes.cameras import CameraRig


@pytest.fixture
def bare(robot: Any) -> Any:
    """The robot without the cameras that other tests use."""
    robot.node.destroy_publisher(robot.camera)
    robot.node.destroy_publisher(robot.jpeg_camera)
    return robot


@pytest.fixture
def new_node(bare: Any) -> Iterator[Callable[..., Node]]:
    """Makes nodes in this process that the robot spins."""
    made: list[Node] = []

    def make(name: str, *arguments: str) -> Node:
        node = Node(name, context=bare.context, cli_args=list(arguments))
        made.append(node)
        bare.executor.add_node(node)
        return node

    yield make
    for node in made:
        bare.executor.remove_node(node)
        node.destroy_node()


@pytest.fixture
def new_rig(new_node: Callable[..., Node]) -> Iterator[Callable[..., CameraRig]]:
    """Makes the cameras of a node from ``new_node``, for ``topics``; all of several are used."""
    made: list[CameraRig] = []

    def make(
        node: Node, topics: Sequence[str], on_primary: Callable[[int], None] = lambda stamp_ns: None
    ) -> CameraRig:
        made.append(CameraRig(node, list(topics), "raw", "tile", on_primary))
        return made[-1]

    yield make
    for rig in made:
        rig.let_go()
