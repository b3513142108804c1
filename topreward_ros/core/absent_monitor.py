"""What is said of a monitor that is not there, or is there and not ready: the same words everywhere."""

from __future__ import annotations

#: Where no node of that name is known.
IS_IT_RUNNING = "is the monitor running, with this ROS_DOMAIN_ID and namespace?"


def why_not_ready(monitor: str, state: str = "") -> str:
    """What ``monitor``, the full name of a node that is there, waits for in a lifecycle ``state``.

    Empty: that is not known, and each of them may be so.

    >>> why_not_ready("/arm/monitor", "unconfigured")
    'it waits for `ros2 lifecycle set /arm/monitor configure` (unconfigured)'
    """
    whys = {
        "configuring": "it still loads its model (configuring)",
        "unconfigured": f"it waits for `ros2 lifecycle set {monitor} configure` (unconfigured)",
        "finalized": "it was shut down, and its process is to be started again (finalized)",
    }
    if state in whys:
        return whys[state]
    first, *others = whys.values()
    return ", or ".join([first, *others])
