"""The QoS profiles of this package's topics as ROS 2 has them; core/qos.py says of each why it is as it is.

The profiles of images, progress, rewards and events may be overridden by parameters (`overrides`); what is
latched stays latched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from topreward_ros.core import qos
from topreward_ros.core.qos import Qos


def _profile(stated: Qos) -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=stated.depth,
        reliability=QoSReliabilityPolicy.RELIABLE if stated.reliable else QoSReliabilityPolicy.BEST_EFFORT,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if stated.latched else QoSDurabilityPolicy.VOLATILE,
    )


# A call gives a profile of its own, which its user may change.
images = partial(_profile, qos.IMAGES)
image_source = partial(_profile, qos.IMAGE_SOURCE)
progress = partial(_profile, qos.PROGRESS)
diagnostics = partial(_profile, qos.DIAGNOSTICS)
events = partial(_profile, qos.EVENTS)
latched = partial(_profile, qos.LATCHED)
commands = partial(_profile, qos.COMMANDS)
requests = partial(_profile, qos.REQUESTS)
instruction_volatile = partial(_profile, qos.INSTRUCTION_VOLATILE)
instruction_latched = partial(_profile, qos.INSTRUCTION_LATCHED)


def recording(offered: Sequence[QoSProfile]) -> tuple[QoSProfile, ...]:
    """Profiles of the subscriptions that record a topic, from what its publishers offer: all are heard.

    Reliable where all are; one is best effort otherwise, which every publisher matches. Where some are
    latched and some are not it takes two subscriptions, and what a latched one sends later arrives twice.
    """
    reliable = all(profile.reliability == QoSReliabilityPolicy.RELIABLE for profile in offered)
    held = [profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for profile in offered]
    kinds = ([False] if not all(held) or not held else []) + ([True] if any(held) else [])
    return tuple(_profile(Qos(qos.RECORDED_DEPTH, reliable, latched)) for latched in kinds)


def overrides() -> QoSOverridingOptions:
    """Let history, depth and reliability of a topic be set by ``qos_overrides.<topic>`` parameters."""
    return QoSOverridingOptions.with_default_policies()
