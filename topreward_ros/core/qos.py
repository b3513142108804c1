"""How our topics are offered and heard (QoS), as data: each profile stated once, named by what flows there.

The nodes make profiles of ROS 2 of it (nodes/qos.py), and a bag that is annotated says the same of its
topics. What follows from the profiles of others, as when a topic is recorded, is no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Qos:
    """A profile with the history KEEP_LAST."""

    depth: int  #: messages that are kept for a slow reader, or by one
    reliable: bool = True  #: else best effort, by which a subscription matches every publisher
    latched: bool = False  #: transient local: a late subscriber gets the newest message; else volatile


IMAGES = Qos(1, reliable=False)  #: subscription to a camera: every camera matches; the newest image only
IMAGE_SOURCE = Qos(10)  #: publisher of images: either kind of reader matches
PROGRESS = Qos(10)  #: streams of progress and reward
DIAGNOSTICS = Qos(10)  #: as tools for it offer and hear it
EVENTS = Qos(50)  #: never latched: a late subscriber must not act on an old SUCCESS
LATCHED = Qos(1, latched=True)  #: state and description: a late subscriber still gets them
#: Services, those of an action included. The ten that ROS 2 keeps are soon full while a process is held up,
#: and a request that found no room is never answered.
REQUESTS = Qos(100)
COMMANDS = Qos(10)  #: what a supervisor tells the robot: nobody obeys an old command
#: Subscription to an instruction that every publisher matches (`ros2 topic pub` is volatile).
INSTRUCTION_VOLATILE = Qos(1)
#: A second one, for what a latched publisher sent before we subscribed: it does not match a volatile one.
#: What is sent later arrives at both; the receiver must tell the second copy from a repeated instruction.
INSTRUCTION_LATCHED = Qos(1, latched=True)
RECORDED_DEPTH = 50  #: of a subscription that records: messages that wait while the recorder is held up
