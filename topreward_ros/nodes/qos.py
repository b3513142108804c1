"""The QoS profiles of this package's topics, each stated once and named by what flows through it.

Why each is as it is stands with it. Those of images, progress, rewards and events may be
overridden by parameters (`overrides`); what is latched stays latched.
"""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def _keep_last(depth: int, reliability: QoSReliabilityPolicy, durability: QoSDurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )


def images() -> QoSProfile:
    """Of a camera subscription: best effort, newest only. Matches reliable and best-effort cameras alike."""
    return _keep_last(1, QoSReliabilityPolicy.BEST_EFFORT, QoSDurabilityPolicy.VOLATILE)


def image_source() -> QoSProfile:
    """Of an image publisher: reliable, so that a reader of either kind matches; ten frames to resend from."""
    return _keep_last(10, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def progress() -> QoSProfile:
    """Of progress and reward streams: reliable, volatile, ten kept for a slow reader."""
    return _keep_last(10, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def events() -> QoSProfile:
    """Of events: reliable and volatile. Never latched: a late subscriber must not act on an old SUCCESS."""
    return _keep_last(50, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def latched() -> QoSProfile:
    """Of state and description: reliable, and the newest one is given to whoever subscribes late."""
    return _keep_last(1, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.TRANSIENT_LOCAL)


def instruction_volatile() -> QoSProfile:
    """Of an instruction subscription that every publisher matches (`ros2 topic pub` is volatile)."""
    return _keep_last(1, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.VOLATILE)


def instruction_latched() -> QoSProfile:
    """Of a second instruction subscription, which gets what a latched publisher said before we were there.

    A transient-local subscription does not match a volatile publisher, hence two. What a latched publisher
    says later arrives at both; the receiver must tell the second copy from a repeated instruction.
    """
    return _keep_last(1, QoSReliabilityPolicy.RELIABLE, QoSDurabilityPolicy.TRANSIENT_LOCAL)


def overrides() -> QoSOverridingOptions:
    """Let history, depth and reliability of a topic be set by ``qos_overrides.<topic>`` parameters."""
    return QoSOverridingOptions.with_default_policies()
