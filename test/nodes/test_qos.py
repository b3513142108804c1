"""Profiles as ROS 2 has them are those that are stated."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from topreward_ros.nodes import qos


def offered(*, reliable: bool, latched: bool) -> QoSProfile:
    return QoSProfile(
        depth=1,
        reliability=QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


def read(profile: QoSProfile) -> tuple[int, bool, bool]:
    """Depth, whether it is reliable, whether it is latched."""
    assert profile.history == QoSHistoryPolicy.KEEP_LAST
    return (
        profile.depth,
        profile.reliability == QoSReliabilityPolicy.RELIABLE,
        profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL,
    )


def test_profiles_are_those_that_are_stated() -> None:
    assert read(qos.images()) == (1, False, False)
    assert read(qos.events()) == (50, True, False)
    assert read(qos.latched()) == (1, True, True)
    assert qos.events() is not qos.events()


def test_all_publishers_of_a_topic_are_recorded() -> None:
    latched, volatile = offered(reliable=True, latched=True), offered(reliable=True, latched=False)
    lossy = offered(reliable=False, latched=False)
    assert [read(it) for it in qos.recording([])] == [(50, True, False)]
    assert [read(it) for it in qos.recording([latched])] == [(50, True, True)]
    assert [read(it) for it in qos.recording([latched, volatile])] == [(50, True, False), (50, True, True)]
    assert [read(it) for it in qos.recording([volatile, lossy])] == [(50, False, False)]
