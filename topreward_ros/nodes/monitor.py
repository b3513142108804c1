"""The lifecycle node ``monitor``: camera topics in, progress, rewards and events out.

Wiring only. Which images to take and what follows from a score is decided in core/episode.py, what
a score is in scoring/. Two threads: the executor's, which owns everything here, and the scorer's.

    configure   loads the model, then creates publishers, services and subscriptions
    activate    watches the instruction that is known by then
    deactivate  ends the episode; images are ignored
    cleanup     lets the model go
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Any, NoReturn

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import Float32, String
from std_srvs.srv import SetBool, Trigger

from topreward_ros.core.episode import (
    Event,
    MonitorSettings,
    Output,
    ProgressReport,
    Reward,
    State,
    TaskMonitor,
)
from topreward_ros.core.events import EventType
from topreward_ros.defaults import monitor_defaults
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward
from topreward_ros.nodes import conversions, parameters, qos
from topreward_ros.nodes.cameras import CameraRig, RCLError, topic_name
from topreward_ros.nodes.diagnostics import (
    NO_CLOCK,
    Diagnostics,
    ScoringCounts,
    hang,
)
from topreward_ros.scoring.base import RANDOM_WEIGHTS, PrefixScorer, ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.checkpoint.vocabulary import unknown_instruction_warning
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.worker import ScoringWorker
from topreward_ros.srv import GetProgress, SetTask

_WATCH_PERIOD_S = 0.2  # how often the clock is looked at for images that stopped
_LONGEST_LOG_LINE = 1000


class MonitorNode(LifecycleNode):
    """Watches cameras for one instruction at a time. Interfaces: see the README."""

    def __init__(self) -> None:
        """Declares the parameters; everything else waits for `on_configure`. Raises
        `parameters.ParameterError`."""
        super().__init__("monitor")
        try:
            self.values = parameters.declare(self, parameters.MONITOR_PARAMETERS, monitor_defaults())
        except parameters.ParameterError:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._active = False
        started = datetime.now().strftime("%Y%m%d-%H%M%S")
        self._episode_prefix = f"{started}-{token_hex(2)}"  # monitors may start in the same second
        self._episodes_named = 0
        # One for the life of the process, so that events are counted through every reconfiguration.
        self._monitor = TaskMonitor(MonitorSettings.from_parameters(self.values), self._new_episode_id)
        self._worker: ScoringWorker | None = None
        self._opened = ExitStack()  # undoes on_configure, last thing first
        # Always there, because it also wakes an executor that rclpy forgot to wake: its signal handler
        # triggers the wait before it shuts the context down, and then nothing else may ever come.
        self._create_steady_timer(_WATCH_PERIOD_S, self._on_watch)

    # ---- lifecycle ------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and, when that worked, open every interface."""
        try:
            for topic in self.values["image_topics"]:  # before minutes are spent on loading
                topic_name(self, topic, self.values["image_transport"])
            self._open(self._load_scorer())
        except ScorerError as error:
            if self.context.ok():  # else a signal interrupted it: that is no error, and nobody hears us
                self.get_logger().error(f"cannot configure: {error}")
        except (InvalidTopicNameException, ValueError) as error:
            self.get_logger().error(f"cannot configure: {error}; check image_topics and remappings")
        except Exception:
            # The lifecycle machinery would swallow it without a word.
            self.get_logger().error(f"cannot configure: {traceback.format_exc()}")
        else:
            return super().on_configure(state)
        self.close()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start watching the instruction at hand."""
        result = super().on_activate(state)
        self._active = True
        for camera in self._rig.cameras:
            camera.last_arrival = time.monotonic()
        self._publish_info()
        self._publish(self._monitor.set_enabled(True))
        self._watch_for(self._instruction, why="activated")
        if not self._instruction:
            self.get_logger().info(
                f"no instruction yet: set the parameter task, or call {self.get_fully_qualified_name()}"
                f"/set_task, or publish on {self.resolve_topic_name('task_instruction')}"
            )
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the episode and ignore images from now on; the instruction is kept."""
        self._publish(self._monitor.set_task("", why="deactivated"))
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close every interface and let the model go."""
        result = super().on_cleanup(state)
        self.close()
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same from any state."""
        if self._active:
            self._publish(self._monitor.set_task("", why="shut down"))
        self._active = False
        result = super().on_shutdown(state)
        self.close()
        return result

    def destroy_node(self) -> None:
        """Leave ROS 2. Nothing of the node stays, least of all its shared memory of 64 MB (Fast DDS)."""
        super().destroy_node()
        # rclpy forgets this one, and it keeps the node alive until the interpreter takes everything apart.
        self.__dict__.pop("_state_machine", None)

    def close(self) -> None:
        """Undo `on_configure`. Safe to call at any time; returns within 2 s."""
        self._active = False
        self._opened.close()
        self._worker = None

    def _stop_worker(self, worker: ScoringWorker) -> None:
        if not worker.stop():
            self.get_logger().error("the scorer does not answer; its thread is left behind")

    def _load_scorer(self) -> PrefixScorer:
        """Load in a thread, so that a signal ends the process at once even while gigabytes are read."""
        outcome: dict[str, Any] = {}

        def load() -> None:
            try:
                outcome["scorer"] = load_scorer(
                    self.values["model"], ScorerSettings.from_parameters(self.values)
                )
            except BaseException as error:
                outcome["error"] = error

        self.get_logger().info(f"loading model '{self.values['model']}' ...")
        thread = threading.Thread(target=load, name="loading", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
            if not self.context.ok():
                raise ScorerError("interrupted while the model was loading")
        if isinstance(error := outcome.get("error"), BaseException):
            if isinstance(error, ScorerError):
                raise error
            raise ScorerError(f"model '{self.values['model']}': {type(error).__name__}: {error}") from error
        scorer: PrefixScorer = outcome["scorer"]
        return scorer

    def _open(self, scorer: PrefixScorer) -> None:
        """Start the scoring thread and create what the node offers, each with its undoing."""
        self._worker = ScoringWorker(scorer, self._on_worker_notify)
        self._opened.callback(self._stop_worker, self._worker)
        self._scoring = ScoringCounts()
        self._instruction: str = self.values["task"]
        self._latched: tuple[State, str, str] | None = None  # state, episode and task on task_state
        self._last_progress_time = 0.0
        self._told_lost_images = self._told_rivals = False
        self._told_unknown: set[str] = set()  # warnings of instructions, each said once
        self._open_publishers()
        self._open_services()
        self._rig = CameraRig(
            self,
            self.values["image_topics"],
            self.values["image_transport"],
            self.values["camera_layout"],
            self._on_primary_image,
        )
        self._opened.callback(self._rig.destroy)
        self._diagnostics = Diagnostics(self, self._rig, self._worker, self._scoring)
        self._opened.callback(self._diagnostics.destroy)
        for period, callback in (
            (1.0 / self.values["heartbeat_rate"], self._on_heartbeat),
            (1.0 / self.values["diagnostics_rate"], self._on_diagnostics),
        ):
            timer = self._create_steady_timer(period, callback)
            self._opened.callback(self.destroy_timer, timer)
        self._tell_model(scorer.info)

    def _create_steady_timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """A timer in wall time: heartbeats and the notice that images stopped must come even when /clock
        stands still."""
        return self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _open_publishers(self) -> None:
        def publisher(kind: type, topic: str, profile: QoSProfile, **options: Any) -> Any:
            made = self.create_lifecycle_publisher(kind, topic, profile, **options)
            self._opened.callback(self.destroy_lifecycle_publisher, made)
            return made

        stream = partial(publisher, qos_overriding_options=qos.overrides())
        self._pub_progress = stream(TaskProgress, "task_progress", qos.progress())
        self._pub_reward = stream(TaskReward, "task_reward", qos.progress())
        self._pub_event = stream(TaskEvent, "task_event", qos.events())
        self._pub_state = publisher(TaskProgress, "task_state", qos.latched())
        self._pub_info = publisher(MonitorInfo, "~/info", qos.latched())
        self._pub_progress_value = publisher(Float32, "~/progress", qos.progress())
        self._pub_reward_value = publisher(Float32, "~/reward", qos.progress())

    def _open_services(self) -> None:
        for kind, name, callback in (
            (SetTask, "~/set_task", self._on_set_task),
            (Trigger, "~/reset", self._on_reset),
            (SetBool, "~/enable", self._on_enable),
            (GetProgress, "~/get_progress", self._on_get_progress),
        ):
            self._opened.callback(self.destroy_service, self.create_service(kind, name, callback))
        # Two, because a transient-local subscription does not match a volatile publisher.
        for profile in (qos.instruction_volatile(), qos.instruction_latched()):
            heard = self.create_subscription(String, "task_instruction", self._on_instruction, profile)
            self._opened.callback(self.destroy_subscription, heard)

    def _tell_model(self, info: ScorerInfo) -> None:
        topics = ", ".join(camera.topic for camera in self._rig.cameras)
        self.get_logger().info(
            f"model '{info.model_id}' ({info.revision}) on {info.device} in {info.dtype}; watching {topics}"
        )
        if info.random_weights:
            self.get_logger().warning(
                f"model '{info.model_id}' has {RANDOM_WEIGHTS}: its numbers mean nothing"
            )

    # ---- the line: image -> frame -> request -> score -> messages -------------------------------

    def _on_primary_image(self, stamp_ns: int) -> None:
        if not self._active:
            return
        assert self._worker is not None
        due, outputs = self._monitor.observe(stamp_ns, time.monotonic_ns())
        self._publish(outputs)
        if not due or (frame := self._rig.newest_frame(self.values["stale_timeout"])) is None:
            return
        request, outputs = self._monitor.add_frame(frame)
        self._publish(outputs)
        if request is not None:
            self._worker.submit(request)

    def _on_worker_notify(self) -> None:
        """Called in the scorer's thread: let the executor take the results."""
        executor = self.executor
        if executor is not None:
            executor.create_task(self._take_results)

    def _take_results(self) -> None:
        if self._worker is None or not self._active:
            return
        for result in self._worker.results():
            self._scoring.seconds = result.seconds
            self._scoring.last_error = result.error
            if result.score is not None:
                self._publish(self._monitor.add_score(result.request, result.score))
            else:
                self._publish(self._monitor.scorer_failed(result.request, result.error))

    def _publish(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, ProgressReport):
                self._publish_progress(output)
            elif isinstance(output, Reward):
                self._pub_reward.publish(conversions.reward_message(output))
                self._pub_reward_value.publish(Float32(data=output.reward))
            else:
                self._publish_event(output)

    def _publish_progress(self, report: ProgressReport) -> None:
        message = self._progress_message(report)
        self._pub_progress.publish(message)
        self._pub_progress_value.publish(Float32(data=report.progress))
        self._last_progress_time = time.monotonic()
        latched = (report.state, report.episode_id, report.instruction)
        if latched != self._latched:
            self._latched = latched
            self._pub_state.publish(message)
        if report.message:
            self.get_logger().warning(report.message, throttle_duration_sec=10.0)

    def _publish_event(self, event: Event) -> None:
        assert self._worker is not None
        if event.type is EventType.EPISODE_ENDED:
            self._worker.start_generation()  # a score that is still being computed belongs to the past
        message = conversions.event_message(event, self._worker.scorer.info)
        self._pub_event.publish(message)
        text = _printable(f"{event.type.name} in episode '{event.episode_id}': {message.message}")
        if event.type is EventType.SCORER_ERROR:
            self.get_logger().error(text)
        else:
            self.get_logger().info(text)

    def _publish_info(self) -> None:
        assert self._worker is not None
        self._pub_info.publish(
            conversions.info_message(
                self._worker.scorer.info,
                self._monitor.settings,
                [camera.name for camera in self._rig.cameras],
                self.values["camera_layout"],
                self._now_ns(),
            )
        )

    def _progress_message(self, report: ProgressReport) -> TaskProgress:
        assert self._worker is not None
        return conversions.progress_message(report, self._worker.scorer.info, self._now_ns())

    # ---- the clock ------------------------------------------------------------------------------

    def _on_watch(self) -> None:
        if not self._active:
            return
        self._publish(self._monitor.tick(time.monotonic_ns()))
        self._advise_on_images()
        if self._worker is not None and (error := hang(self._worker)):
            self.get_logger().error(error, throttle_duration_sec=30.0)

    def _on_heartbeat(self) -> None:
        recent = time.monotonic() - self._last_progress_time < 0.5 / self.values["heartbeat_rate"]
        if self._active and not recent:
            self._publish_progress(self._monitor.report)

    def _advise_on_images(self) -> None:
        if self._now_ns() == 0:
            self.get_logger().warning(NO_CLOCK, throttle_duration_sec=30.0)
        for camera in self._rig.cameras:
            if camera.silent_seconds() > self.values["stale_timeout"] and not camera.told_missing:
                camera.told_missing = True
                self.get_logger().warning(f"{camera.silence()}: {camera.missing_images_advice()}")
            if not self._told_lost_images and (loss := camera.loss()):
                self._told_lost_images = True
                self.get_logger().warning(loss)
        if not self._told_rivals and (rivals := self._rig.primary.rivals()):
            self._told_rivals = True
            self.get_logger().warning(rivals)

    def _on_diagnostics(self) -> None:
        if self._active:
            self._diagnostics.publish(self._monitor.report, self.values["stale_timeout"])

    # ---- instruction, services, parameters ------------------------------------------------------

    def _on_instruction(self, message: String) -> None:
        # Publishers repeat themselves (`ros2 topic pub` every second, a latched one on both
        # subscriptions): only another text is another task. `~/reset` starts the same one again.
        if message.data.strip() != self._instruction.strip():
            self._set_instruction(message.data, why="new instruction")

    def _set_instruction(self, instruction: str, episode_id: str = "", why: str = "new task") -> None:
        self._instruction = instruction
        if self._active:
            self._watch_for(instruction, episode_id, why)

    def _watch_for(self, instruction: str, episode_id: str = "", why: str = "") -> None:
        assert self._worker is not None
        warning = unknown_instruction_warning(instruction, self._worker.scorer.info, "model:=")
        if warning and warning not in self._told_unknown:
            self._told_unknown.add(warning)
            self.get_logger().warning(_printable(warning))
        self._publish(self._monitor.set_task(instruction, episode_id, why))

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        response.success, response.message = self._is_watching()
        if response.success:
            self._set_instruction(request.instruction, request.episode_id, why="~/set_task")
            response.episode_id = self._monitor.report.episode_id
            response.message = "waiting for images" if response.episode_id else "idle"
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._is_watching()
        if response.success:
            self._publish(self._monitor.reset("~/reset"))
            response.message = f"episode '{self._monitor.report.episode_id}'"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = self._is_active()
        if response.success:
            self._publish(self._monitor.set_enabled(request.data))
            response.message = "enabled" if request.data else "disabled"
        return response

    def _on_get_progress(
        self, _: GetProgress.Request, response: GetProgress.Response
    ) -> GetProgress.Response:
        report = self._monitor.report
        response.progress = self._progress_message(
            report if self._active else replace(report, state=State.UNKNOWN)
        )
        return response

    def _is_watching(self) -> tuple[bool, str]:
        """Whether a task can be taken now, or why not."""
        if self._active and not self._monitor.enabled:
            return False, f"disabled: call {self.get_fully_qualified_name()}/enable first"
        return self._is_active()

    def _is_active(self) -> tuple[bool, str]:
        return self._active, "" if self._active else (
            f"the monitor is not active: `ros2 lifecycle set {self.get_fully_qualified_name()} activate`"
        )

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        known = {parameter.name: parameter for parameter in parameters.MONITOR_PARAMETERS}
        for parameter in changed:
            if parameter.name in known and (problem := known[parameter.name].problem_with(parameter.value)):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        names = {parameter.name for parameter in changed if parameter.name in self.values}
        self.values.update({p.name: p.value for p in changed if p.name in names})
        if self._worker is None or not names:
            return
        self._monitor.settings = MonitorSettings.from_parameters(self.values)
        if "task" in names:
            self._set_instruction(self.values["task"], why="parameter task")
        if self._active:
            self._publish_info()

    def _new_episode_id(self) -> str:
        self._episodes_named += 1
        return f"{self._episode_prefix}-{self._episodes_named:03d}"

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until a signal, and end the process: status 1 when it could not start, else 0.

    Everything of ROS 2 has been closed by then. An ordinary exit would still take a second to take
    PyTorch apart, and wait for or crash on a scorer that hangs in native code.
    """
    status = _run_until_signal(args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run_until_signal(args: list[str] | None) -> int:
    # rclpy's handlers shut the context down, which ends everything below. Python's own, which they call
    # too, only take note: `ros2 launch` and a terminal each send SIGINT, and neither may interrupt the
    # clean-up. One that comes before rclpy's are in place is found in the list.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    try:
        rclpy.init(args=args)
        return 0 if signals else _run()
    except Exception as error:
        if signals:
            return 0  # it shut ROS down in the middle of something, which then could not go on
        if isinstance(error, (parameters.ParameterError, RCLError)):
            print(f"monitor: {error}", file=sys.stderr)
            return 1
        traceback.print_exc()
        return 1
    finally:
        rclpy.try_shutdown()


def _run() -> int:
    node = MonitorNode()
    status = 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.values["autostart"] and not _start(node):
            status = 1 if rclpy.ok() else 0
        else:
            executor.spin()
    except ExternalShutdownException:
        pass
    finally:
        node.close()
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()
    return status


def _start(node: MonitorNode) -> bool:
    success = TransitionCallbackReturn.SUCCESS
    return bool(node.trigger_configure() == success and node.trigger_activate() == success)


def _printable(text: str) -> str:
    """``text`` for the log: an instruction may hold commands to the terminal, or a whole book."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:_LONGEST_LOG_LINE])


if __name__ == "__main__":
    main()
