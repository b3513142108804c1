"""The monitor's /diagnostics: are images coming, and is scoring keeping up?

Its messages say what is wrong; for how long by now, the values beside them do. Where there is nothing to
score with, `WaitingDiagnostics` says what is waited for, `FailureDiagnostics` why there is nothing, and
`RestDiagnostics` that nobody has asked for it: silence would be taken for the monitor's end, and what was
said before for the truth.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from topreward_ros.core.counted import counted
from topreward_ros.core.episode import IgnoredImages, TaskMonitor
from topreward_ros.core.outputs import ProgressReport, State
from topreward_ros.core.printable import printable
from topreward_ros.core.stamp_clock import Fault
from topreward_ros.nodes import qos
from topreward_ros.nodes.cameras import CameraRig
from topreward_ros.nodes.conversions import DIAGNOSTICS, NO_SCORER, SCORER, time_message
from topreward_ros.nodes.steady_timer import create_steady_timer
from topreward_ros.scoring.base import RANDOM_WEIGHTS
from topreward_ros.scoring.worker import ScoringWorker

NO_CLOCK = Fault.ABSENT.value
_IMAGES = "images"  # the name of a status, as SCORER


def ignored_warnings(topic: str, ignored: IgnoredImages) -> dict[str, str]:
    """What to say of the images of the primary camera that were not used, by the reason."""
    return {
        reason: f"an image on {topic} is {reason} and was not used. Look at the camera, its light and its "
        f"driver, and at the clock by which it stamps; /diagnostics counts such images"
        for reason in ignored.counts()
    }


class _AbsenceDiagnostics(ABC):
    """Publishes both statuses of a monitor whose scorer is not there, until it is destroyed."""

    def __init__(self, node: Node, model: str, rate: float) -> None:
        """``rate`` [Hz]: of publishing."""
        self._node = node
        self._model = model
        self._of = node.get_fully_qualified_name()  # the monitor
        self._publisher = node.create_publisher(DiagnosticArray, DIAGNOSTICS, qos.diagnostics())
        self._timer = create_steady_timer(node, 1.0 / rate, self._publish)

    def destroy(self) -> None:
        """End timer and publisher."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def _publish(self) -> None:
        level, message, values = self._said()
        parts = {_IMAGES: {}, SCORER: NO_SCORER | values}
        array = DiagnosticArray(
            status=[_status(self._of, part, level, message, parts[part], self._model) for part in parts]
        )
        array.header.stamp = time_message(self._node.get_clock().now().nanoseconds)
        self._publisher.publish(array)

    @abstractmethod
    def _said(self) -> tuple[bytes, str, dict[str, str]]:
        """Level, message and values of the status."""


class WaitingDiagnostics(_AbsenceDiagnostics):
    """The status of a scorer that is not there yet."""

    def __init__(self, node: Node, model: str, rate: float) -> None:
        """``rate`` [Hz]: of publishing."""
        self.reason = ""  #: why it is waited for, where it does not just load; may be set by any thread
        self._begun = time.monotonic()
        super().__init__(node, model, rate)

    def _said(self) -> tuple[bytes, str, dict[str, str]]:
        waited_s = time.monotonic() - self._begun
        what = self.reason or f"the model '{self._model}' is being loaded"
        return DiagnosticStatus.WARN, f"{what}: nothing is watched yet", {"waiting [s]": f"{waited_s:.1f}"}


class FailureDiagnostics(_AbsenceDiagnostics):
    """The status of a scorer that could not be had."""

    _level = DiagnosticStatus.ERROR

    def __init__(self, node: Node, why: str, model: str, rate: float, monitor: str = "") -> None:
        """``why``: and what to do. ``rate`` [Hz]: of publishing. ``monitor``: whose scorer it is; empty: that
        of ``node``."""
        self._why = why
        super().__init__(node, model, rate)
        self._of = monitor or self._of

    def _said(self) -> tuple[bytes, str, dict[str, str]]:
        return self._level, f"nothing is watched: {self._why}", {}


class RestDiagnostics(FailureDiagnostics):
    """The status of a scorer that nobody wants now: of a monitor that is unconfigured or finalized."""

    _level = DiagnosticStatus.OK


@dataclass(slots=True)
class NewestResult:
    """What the newest result said about the scorer."""

    seconds: float = 0.0  #: how long scoring took
    error: str = ""  #: empty when there was a score


class Diagnostics:
    """Publishes two statuses of a monitor: its images and its scorer."""

    def __init__(self, node: Node, rig: CameraRig, worker: ScoringWorker, newest: NewestResult) -> None:
        self._node = node
        self._rig = rig
        self._worker = worker
        self._newest = newest
        self._last_received = 0
        self._last_bad = 0
        self._last_ignored = 0
        self._last_time = time.monotonic()
        self._publisher = node.create_publisher(DiagnosticArray, DIAGNOSTICS, qos.diagnostics())

    def destroy(self) -> None:
        """End the publisher."""
        self._node.destroy_publisher(self._publisher)

    def publish(self, monitor: TaskMonitor, stale_timeout_s: float, clock_problem: str) -> None:
        """Publish both statuses. ``clock_problem``: of the clock or of stamps; empty: there is none."""
        now_ns = self._node.get_clock().now().nanoseconds
        images = self._input(now_ns, monitor, stale_timeout_s, clock_problem)
        statuses = [images, self._scorer(monitor.report)]
        if not monitor.watching:  # nobody is hurt yet
            for status in statuses:
                status.level = min(status.level, DiagnosticStatus.WARN)
        self._send(statuses, now_ns)

    def publish_inactive(self) -> None:
        """Publish both statuses of a monitor that is not active."""
        message = "the monitor is not active: nothing is watched"
        statuses = [self._status(part, DiagnosticStatus.OK, message, {}) for part in (_IMAGES, SCORER)]
        self._send(statuses, self._node.get_clock().now().nanoseconds)

    def _send(self, statuses: list[DiagnosticStatus], now_ns: int) -> None:
        array = DiagnosticArray(status=statuses)
        array.header.stamp = time_message(now_ns)
        self._publisher.publish(array)

    def _input(
        self, now_ns: int, monitor: TaskMonitor, stale_timeout_s: float, clock_problem: str
    ) -> DiagnosticStatus:
        rig, primary = self._rig, self._rig.primary
        now = time.monotonic()
        rate = (primary.received - self._last_received) / max(now - self._last_time, 1e-9)
        self._last_received, self._last_time = primary.received, now
        bad = sum(camera.bad for camera in rig.cameras)
        newly_bad, self._last_bad = bad - self._last_bad, bad
        ignored = monitor.ignored
        implausible = ignored.out_of_line + ignored.other_shape + ignored.not_pictures + ignored.frozen
        newly_ignored, self._last_ignored = implausible - self._last_ignored, implausible
        quietest = max(rig.cameras, key=lambda camera: camera.silent_seconds())
        loss = next(filter(None, (camera.loss_warning() for camera in rig.cameras)), "")
        refusal = next(filter(None, (camera.refusal_warning() for camera in rig.cameras)), "")
        level, message = DiagnosticStatus.OK, f"{rate:.1f} images/s on {primary.topic}"
        if refusal:
            level, message = DiagnosticStatus.ERROR, refusal
        elif quietest.silent_seconds() > stale_timeout_s:
            level = DiagnosticStatus.ERROR
            message = quietest.silence_warning()
        elif reason := monitor.stale_reason or monitor.blind_reason:
            level, message = DiagnosticStatus.WARN, reason
        elif newly_bad:
            level = DiagnosticStatus.WARN
            message = f"{counted(newly_bad, 'image')} could not be used since the last report, see the log"
        elif newly_ignored:
            level = DiagnosticStatus.WARN
            number = counted(newly_ignored, "image was", "images were")
            message = f"{number} not used since the last report, see the counts below"
        elif problem := loss or primary.publishers_warning():
            level, message = DiagnosticStatus.WARN, problem
        newest_ns = monitor.newest_stamp_ns
        age_s = float("nan") if newest_ns is None else (now_ns - newest_ns) / 1e9
        if clock_problem:  # beside what is worse, or as bad
            message = clock_problem if level == DiagnosticStatus.OK else f"{message}; {clock_problem}"
            level = max(level, DiagnosticStatus.WARN)
        values = {
            "input rate [Hz]": f"{rate:.2f}",
            "age of newest stamp [s]": f"{age_s:.3f}",
            "without a usable image [s]": f"{monitor.silent_s:.1f}",
            "decode latency [ms]": f"{rig.decode_seconds * 1e3:.2f}",
            "images out of order": str(ignored.out_of_order),
            "images with a stamp out of line": str(ignored.out_of_line),
            "images of another shape": str(ignored.other_shape),
            "images of one colour or noise": str(ignored.not_pictures),
            "images of a frozen camera": str(ignored.frozen),
        }
        for camera in rig.cameras:
            values |= {
                f"{camera.topic} received": str(camera.received),
                f"{camera.topic} lost": str(camera.senders.lost),
                f"{camera.topic} from other publishers": str(camera.senders.of_others),
                f"{camera.topic} bad": str(camera.bad),
                f"{camera.topic} silent [s]": f"{camera.silent_seconds():.1f}",
            }
        return self._status(_IMAGES, level, message, values)

    def _scorer(self, report: ProgressReport) -> DiagnosticStatus:
        scorer, counts = self._worker.scorer, self._worker.counts
        level, message = DiagnosticStatus.OK, ": ".join(filter(None, [report.state.name, report.waits]))
        if error := self._worker.hang() or self._newest.error:
            level, message = DiagnosticStatus.ERROR, error
        elif report.trouble or report.news or report.standing or report.state is State.STALE:
            level, message = DiagnosticStatus.WARN, report.message
        elif scorer.info.random_weights:
            level, message = DiagnosticStatus.WARN, "the numbers mean nothing"
        if scorer.info.random_weights:
            message = f"{RANDOM_WEIGHTS}: {message}"
        values = {
            "state": report.state.name,
            "scoring latency [ms]": f"{self._newest.seconds * 1e3:.2f}",
            "busy with the present score [s]": f"{self._worker.busy_s():.1f}",
            "scores": str(counts.scored),
            "prefixes replaced before scoring": str(counts.replaced),
            "extra looks left out": str(counts.left_out),
            "scores failed": str(counts.failed),
            "scores too late": str(counts.late),
            "device": scorer.info.device,
            "device memory [MiB]": f"{scorer.memory_bytes() / 2**20:.0f}",
        }
        return self._status(SCORER, level, message, values)

    def _status(self, part: str, level: bytes, message: str, values: dict[str, str]) -> DiagnosticStatus:
        name = self._node.get_fully_qualified_name()
        return _status(name, part, level, message, values, self._worker.info.model_id)


def _status(
    monitor: str, part: str, level: bytes, message: str, values: dict[str, str], model: str
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=f"{monitor}: {part}",
        message=printable(message),
        hardware_id=printable(model),
        values=[KeyValue(key=printable(key), value=printable(value)) for key, value in values.items()],
    )
