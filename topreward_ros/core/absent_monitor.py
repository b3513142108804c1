"""What is said of a monitor that is not there, or is there and not ready: the same words everywhere."""

from __future__ import annotations

#: Where no node of that name is known.
IS_IT_RUNNING = "is the monitor running, with this ROS_DOMAIN_ID and namespace?"


def why_not_ready(monitor: str) -> str:
    """What ``monitor``, the full name of a node that is there, may wait for; a lifecycle node tells no more.

    >>> why_not_ready("/arm/monitor")[:72]
    'it still loads its model (configuring), waits for `ros2 lifecycle set /a'
    """
    return (
        f"it still loads its model (configuring), waits for `ros2 lifecycle set {monitor} configure` "
        "(unconfigured), or was shut down, and its process is to be started again (finalized)"
    )
