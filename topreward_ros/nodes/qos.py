"""The QoS profiles of this package's topics, each stated once and named by what flows through it.

Each function says why its profile is as it is. The profiles of images, progress, rewards and events may be
overridden by parameters (`overrides`); what is latched stays latched.
"""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

_RECORDED_DEPTH = 50  # messages that wait while the recorder is held up


def _keep_last(depth: int, reliability: QoSReliabilityPolicy, durability: QoSDurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )


def images() -> QoSProfile:
    """Profile of a camera subscription: best effort, which every camera matches; the newest image only."""
    return _keep_last(1, QoSReliabilityPolicy.BEST_EFFORT, QoSDurabilityPolicy.VOLATILE)


def image_source() -> QoSProfile:
    """Profile of an image publisher: reliable, so that either kind of reader matches; ten frames kept."""
    return _keep_last(10, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def progress() -> QoSProfile:
    """Profile of progress and reward streams: reliable, volatile, ten messages kept for a slow reader."""
    return _keep_last(10, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def events() -> QoSProfile:
    """Profile of events: reliable, never latched: a late subscriber must not act on an old SUCCESS."""
    return _keep_last(50, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def latched() -> QoSProfile:
    """Profile of state and description: reliable, and a late subscriber still gets the newest message."""
    return _keep_last(1, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.TRANSIENT_LOCAL)


def commands() -> QoSProfile:
    """Profile of what a supervisor tells the robot: reliable, and volatile: nobody obeys an old command."""
    return _keep_last(10, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def instruction_volatile() -> QoSProfile:
    """Profile of an instruction subscription that every publisher matches (`ros2 topic pub` is volatile)."""
    return _keep_last(1, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def instruction_latched() -> QoSProfile:
    """Profile of a second instruction subscription, for what a latched publisher sent before we subscribed.

    A transient-local subscription does not match a volatile publisher, hence two. What a latched publisher
    sends later arrives at both; the receiver must tell the second copy from a repeated instruction.
    """
    return _keep_last(1, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.TRANSIENT_LOCAL)


def recording(offered: Sequence[QoSProfile]) -> tuple[QoSProfile, ...]:
    """Profiles of the subscriptions that record a topic, from what its publishers offer: all are heard.

    Reliable where all are; one is best effort otherwise, which every publisher matches. Where some are
    latched and some are not it takes two subscriptions, and what a latched one sends later arrives twice.
    """
    reliable = all(profile.reliability == QoSReliabilityPolicy.RELIABLE for profile in offered)
    reliability = QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
    held = [profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for profile in offered]
    durabilities = []
    if not all(held) or not held:
        durabilities.append(QoSDurabilityPolicy.VOLATILE)
    if any(held):
        durabilities.append(QoSDurabilityPolicy.TRANSIENT_LOCAL)
    return tuple(_keep_last(_RECORDED_DEPTH, reliability, durability) for durability in durabilities)


def overrides() -> QoSOverridingOptions:
    """Let history, depth and reliability of a topic be set by ``qos_overrides.<topic>`` parameters."""
    return QoSOverridingOptions.with_default_policies()
