"""What a configured monitor holds: the scoring thread, the cameras, publishers, services and timers.

The node makes a session on configure and closes it on cleanup. Here an image becomes a frame, a request, a
score and messages. core/episode.py decides which images to take and what follows from a score; scoring/
computes the score. All of it runs in the executor's thread, but for `Session._on_worker_notify`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Float32
from std_srvs.srv import SetBool, Trigger

from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.goal import GoalCode
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.monitor_settings import NO_OVERRIDES, MonitorSettings, Overrides
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.printable import printable
from topreward_ros.core.stamp_clock import Fault, StampClock
from topreward_ros.core.waiting_image import Waiting, WaitingImage
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward
from topreward_ros.nodes import conversions, qos
from topreward_ros.nodes.cameras import CameraRig
from topreward_ros.nodes.debug_image import DebugImage, first_report
from topreward_ros.nodes.diagnostics import (
    NO_CLOCK,
    Diagnostics,
    NewestResult,
    ignored_warnings,
)
from topreward_ros.nodes.image_topics import DEBUG_IMAGE
from topreward_ros.nodes.instruction_topic import NAME as INSTRUCTION
from topreward_ros.nodes.namesakes import Namesakes
from topreward_ros.nodes.say_once import SayOnce
from topreward_ros.nodes.steady_timer import create_steady_timer
from topreward_ros.nodes.task_action import NAME as ACTION
from topreward_ros.nodes.task_action import InvalidGoalError, TaskAction
from topreward_ros.offline.camera_images import FrameAwaited, ImageError
from topreward_ros.scoring.base import RANDOM_WEIGHTS, ScorerInfo
from topreward_ros.scoring.checkpoint.vocabulary import GENERAL_MODEL, made_for, task_warnings
from topreward_ros.scoring.worker import ScoringWorker
from topreward_ros.srv import GetProgress, SetTask

#: Events that somebody should look after.
_WARNINGS = frozenset(
    (
        EventType.FAILURE,
        EventType.STALL,
        EventType.REGRESSION,
        EventType.STALE_IMAGES,
        EventType.FROZEN_IMAGES,
        EventType.COVERED_IMAGES,
    )
)
_STOPPED_S = 1.0  # without a look at the clock: the process was stopped
_LONGEST_WAIT_FOR_SUBSCRIBERS_S = 0.5


class Session:
    """A monitor from configure to cleanup. It looks at images only while it is `active`."""

    def __init__(
        self, node: LifecycleNode, parameters: Mapping[str, Any], monitor: TaskMonitor, worker: ScoringWorker
    ) -> None:
        """Create every interface; what was begun is undone where that fails.

        ``worker``: the monitor's place at the thread that scores, given back by `close`. ``parameters``: the
        node's, by name; the node keeps their values up to date.
        """
        self.active = False
        #: The task to watch while active, its stages one per line, whoever set it last: parameter, topic,
        #: service or action. The parameter says the same, so that a dump of the parameters that is loaded
        #: again changes nothing, and the task stays through every transition. The task monitor only knows the
        #: one that it reports.
        self.instruction: str = clean_task(parameters["task"])
        self._node = node
        self._parameters = parameters
        self._monitor = monitor
        self._opened = ExitStack()  # undoes what was created here, last thing first
        self._publishers: list[Any] = []
        self._newest_result = NewestResult()  # for the diagnostics
        self._say_once = SayOnce(node.get_logger())
        self._clock = StampClock()
        self._latched: tuple[State, str, str, str] | None = None  # what task_state said
        self._told = self._in_force  # by ~/info
        self._last_progress_time = 0.0
        self._namesakes = Namesakes(node, "task_event")
        self._looked_ns = time.monotonic_ns()  # at the clock
        self._waiting = Waiting()
        self._worker = worker
        worker.notify = self._on_worker_notify
        self._opened.callback(self._stop_worker)
        try:
            self._open_publishers()
            self._open_services()
            self._open_cameras()
            self._open_reports()
        except BaseException:
            self.close("not opened")
            raise
        self._tell_model(worker.info)

    def activate(self) -> None:
        """Watch the instruction at hand from now on."""
        self.active = True
        self._rig.resume()
        self.publish_info()
        self._publish(self._monitor.set_enabled(True, now_ns=time.monotonic_ns()))
        self._watch_for(self.instruction, why="activated")
        if not self.instruction:
            self._node.get_logger().info(self._how_to_set_a_task())

    def deactivate(self, why: str) -> None:
        """End the episode, if there is one, and ignore images from now on; the instruction is kept."""
        if self.active:
            self._action.end(GoalCode.NOT_WATCHING, f"the monitor stopped watching: {why}")
            self._publish(self._monitor.set_task("", why=why))
            self.active = False
            self._publish_progress(self._report())

    def close(self, why: str) -> None:
        """Deactivate, and undo what the session created once all that it said has arrived.

        May be called twice; returns within 2 s.
        """
        self.deactivate(why)
        self._worker.ask_to_stop()  # it ends while messages are on their way
        self._wait_until_heard()
        self._opened.close()

    async def until_answered(self) -> None:
        """Let the result of a goal that has just ended go to its client; 0.4 s at most.

        To be awaited before `close`.
        """
        await self._action.until_answered()

    def _wait_until_heard(self) -> None:
        """Give what was published time to arrive: with its publisher, a message on its way is lost.

        Fast DDS may ask its readers for an answer as late as after 3 s, so that not all can be waited for;
        but a reader that misses a message asks for it at once. rclpy's own waiting holds up all threads.
        """
        end = time.monotonic() + _LONGEST_WAIT_FOR_SUBSCRIBERS_S
        while time.monotonic() < end and not all(p.wait_for_all_acked(Duration()) for p in self._publishers):
            time.sleep(0.01)

    def look_at_clock(self) -> None:
        """Notice that images stopped, that a camera needs attention, or that the scorer hangs.

        The node calls this several times a second.
        """
        now_ns, time_ns = time.monotonic_ns(), self._now_ns()
        since_ns = now_ns - self._looked_ns
        stopped_ns = since_ns if since_ns > _STOPPED_S * NS_PER_S else 0
        paused_ns, stands_ns = self._clock.pauses(time_ns, now_ns)
        self._looked_ns = now_ns
        if not self.active:
            self._rig.let_go()  # so that others of this process may read its topics as of another type
            return
        stale_timeout = self._parameters["stale_timeout"]
        if self._waiting.is_over(now_ns, *self._waits_for()):
            self._give_up_waiting()
        if stopped_ns:
            self._node.get_logger().warning(
                f"this process did not run for {stopped_ns / NS_PER_S:.1f} s: it was stopped, or the machine "
                f"is too busy; images of that time are lost"
            )
            self._rig.excuse(stopped_ns / NS_PER_S)
            self._worker.excuse(stopped_ns / NS_PER_S)
        self._publish(
            self._monitor.check_clock(
                now_ns,
                lambda: self._rig.why_silent(stale_timeout),
                stopped_ns=stopped_ns,
                paused_ns=paused_ns,
                stands_ns=stands_ns,
            )
        )
        if time_ns == 0:
            self._node.get_logger().warning(NO_CLOCK, throttle_duration_sec=30.0)
        if self._rig.follow_publishers():
            self.publish_info()
        self._say_once.warn("namesake", self._namesakes.warning)
        self._rig.warn(stale_timeout, watched=self._monitor.watching)
        for reason, warning in ignored_warnings(self._rig.primary.topic, self._monitor.ignored).items():
            self._say_once.warn(reason, partial(str, warning))
        hang = self._worker.hang()
        self._publish(self._monitor.note_hang(hang))
        self._action.look_at_clock(now_ns, paused_ns, stands_ns, hang)

    def set_instruction(
        self, instruction: str, episode_id: str = "", why: str = "new task", stage: int = 0
    ) -> None:
        """Take another task, and begin an episode with it when active. Empty: go idle.

        Raises `InstructionError`, `StageError` or `EpisodeIdError`, and then changes nothing.
        """
        self._take_instruction(clean_task(instruction), episode_id, why, stage)

    def why_no_task(self) -> str:
        """Why no task can be taken now; empty: one can."""
        return self._takes_tasks()[1]

    def watch_for_goal(self, task: str, episode_id: str, stage: int, overrides: Overrides) -> None:
        """Begin to watch the task of a goal. Raises `UserError`, and then changes nothing."""
        task = clean_task(task, "the goal's instruction")
        if not task:
            raise InvalidGoalError("the goal's instruction is empty: say what the robot is to do")
        self._take_instruction(task, episode_id, f"a goal of {ACTION} was accepted", stage, overrides)

    def stop_watching(self, why: str) -> None:
        """Go idle."""
        self._take_instruction("", why=why)

    def _take_instruction(
        self,
        instruction: str,
        episode_id: str = "",
        why: str = "new task",
        stage: int = 0,
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        """`set_instruction` with one that is clean."""
        if self.active:
            self._watch_for(instruction, episode_id, why, stage, overrides)
        self.instruction = instruction
        if clean_task(self._parameters["task"]) != instruction:
            self._node.set_parameters([Parameter("task", value=instruction)])

    def follow(self, text: str, what: str, why: str) -> None:
        """Take the instruction of a source that may repeat itself: only another text is another task.

        ``what``: how the user knows the text. `ros2 topic pub` repeats it every second, a latched publisher
        is heard by both subscriptions, and `ros2 param load` sets what is set already. `~/reset` starts the
        same one again, and so does `~/set_task`, which is called once. Raises `InstructionError`.
        """
        if (instruction := clean_task(text, what)) != self.instruction:
            self._take_instruction(instruction, why=why)

    def image_topics(self) -> list[str]:
        """The topics that are subscribed to, or will be where images are published there instead."""
        return [place.name for camera in self._rig.cameras for place in camera.places]

    def publish_info(self) -> None:
        """Publish MonitorInfo: the model and the settings in force."""
        self._told = self._in_force
        settings, calibrated = self._told
        self._pub_info.publish(
            conversions.info_message(
                self._worker.info,
                settings,
                camera_names=[camera.topic for camera in self._rig.cameras],
                camera_layout=self._parameters["camera_layout"],
                now_ns=self._now_ns(),
                calibrated=calibrated,
            )
        )

    @property
    def _in_force(self) -> tuple[MonitorSettings, bool]:
        """The settings of the task at hand, and whether its threshold is calibrated."""
        return self._monitor.settings_in_force, self._monitor.calibrated

    # ---- opening --------------------------------------------------------------------------------

    def _open_publishers(self) -> None:
        def publisher(kind: type, topic: str, profile: QoSProfile, **options: Any) -> Any:
            made = self._node.create_lifecycle_publisher(kind, topic, profile, **options)
            self._opened.callback(self._node.destroy_lifecycle_publisher, made)
            self._publishers.append(made)
            return made

        stream = partial(publisher, qos_overriding_options=qos.overrides())
        self._pub_progress = stream(TaskProgress, "task_progress", qos.progress())
        self._pub_reward = stream(TaskReward, "task_reward", qos.progress())
        self._pub_event = stream(TaskEvent, "task_event", qos.events())
        self._pub_state = publisher(TaskProgress, "task_state", qos.latched())
        self._pub_info = publisher(MonitorInfo, "~/info", qos.latched())
        self._pub_progress_value = publisher(Float32, "~/progress", qos.progress())
        self._pub_reward_value = publisher(Float32, "~/reward", qos.progress())
        self._debug_image = DebugImage(stream(Image, DEBUG_IMAGE, qos.image_source()))

    def _open_services(self) -> None:
        for kind, name, callback in (
            (SetTask, "~/set_task", self._on_set_task),
            (Trigger, "~/reset", self._on_reset),
            (SetBool, "~/enable", self._on_enable),
            (GetProgress, "~/get_progress", self._on_get_progress),
        ):
            service = self._node.create_service(kind, name, callback, qos_profile=qos.requests())
            self._opened.callback(self._node.destroy_service, service)
        self._action = TaskAction(self._node, self._monitor, self, self._progress_message)
        self._opened.callback(self._action.destroy)

    def _open_cameras(self) -> None:
        self._rig = CameraRig(
            self._node,
            self._parameters["image_topics"],
            self._parameters["image_transport"],
            self._parameters["camera_layout"],
            self._on_primary_image,
            self._monitor.break_off,
            self._on_other_image,
        )
        self._opened.callback(self._rig.let_go)

    def _open_reports(self) -> None:
        self._diagnostics = Diagnostics(self._node, self._rig, self._worker, self._newest_result)
        self._opened.callback(self._diagnostics.destroy)
        for rate, callback in (
            (self._parameters["heartbeat_rate"], self._on_heartbeat),
            (self._parameters["diagnostics_rate"], self._on_diagnostics),
        ):
            timer = create_steady_timer(self._node, 1.0 / rate, callback)
            self._opened.callback(self._node.destroy_timer, timer)

    def _stop_worker(self) -> None:
        if not self._worker.stop():
            model = printable(self._worker.info.model_id, 200)
            self._node.get_logger().error(
                f"the scorer of model '{model}' does not answer; its thread is left behind"
            )

    def _tell_model(self, info: ScorerInfo) -> None:
        topics = ", ".join(str(camera.place) for camera in self._rig.cameras)
        self._node.get_logger().info(
            f"model '{info.model_id}' ({info.revision}) on {info.device} in {info.dtype}; watching {topics}"
        )
        for camera in self._rig.cameras:
            if camera.is_elsewhere:
                self._node.get_logger().info(f"the monitor {camera.reading()}")
        if what := made_for(info):
            self._node.get_logger().info(
                f"model '{info.model_id}' is {what}; model:={GENERAL_MODEL} is for any"
            )
        if info.random_weights:
            self._node.get_logger().warning(
                f"model '{info.model_id}' has {RANDOM_WEIGHTS}: its numbers mean nothing"
            )

    # ---- image -> frame -> request -> score -> messages -----------------------------------------

    def _on_primary_image(self, stamp_ns: int) -> None:
        if not self.active:
            return
        self._give_up_waiting()
        filled_ns = self._monitor.filled_stamp(stamp_ns, self._now_ns())
        if filled_ns != stamp_ns:
            self._rig.warn_of_no_stamp()
        now_ns = time.monotonic_ns()
        due, outputs = self._monitor.observe(filled_ns, now_ns)
        self._publish(outputs)
        if due:
            self._take_frame(WaitingImage(filled_ns, self._monitor.report.episode_id, now_ns))

    def _on_other_image(self) -> None:
        """An image of another camera came: it may be the one that the primary's waits for."""
        if not self.active:
            return
        image = self._waiting.resume(time.monotonic_ns(), *self._waits_for())
        if image is None:
            self._give_up_waiting()
        else:
            self._take_frame(image)

    def _waits_for(self) -> tuple[str, float]:
        """The episode whose images may wait, and how long [s]."""
        return self._monitor.report.episode_id, self._parameters["camera_max_skew"]

    def _give_up_waiting(self) -> None:
        """Say what has not come beside the image that waits, if there is one."""
        if problem := self._waiting.give_up(self._monitor.report.episode_id):
            self._rig.give_up(problem)
            self._monitor.frame_failed(problem)

    def _take_frame(self, image: WaitingImage) -> None:
        """Decode the image that was observed last, and ask for its score."""
        try:
            frame = self._rig.newest_frame(image.stamp_ns, self._parameters["camera_max_skew"])
        except FrameAwaited as awaited:
            self._waiting.begin(replace(image, problem=str(awaited)))
            return
        except ImageError as error:
            self._monitor.frame_failed(str(error))
            return
        request, outputs = self._monitor.add_frame(frame)
        self._publish(outputs)
        if request is None:
            return
        if not request.extra:
            self._worker.submit(request)
        elif not self._worker.submit_extra(request):
            self._monitor.leave_out(request)

    def _on_worker_notify(self) -> None:
        """Called in the scorer's thread: let the executor take the results."""
        executor = self._node.executor
        if executor is not None:
            executor.create_task(self._take_results)

    def _take_results(self) -> None:
        if not self.active:
            return
        for result in self._worker.results():
            self._newest_result.seconds = result.seconds
            self._newest_result.error = result.error
            if result.score is not None:
                outputs = self._monitor.add_score(result.request, result.score)
                self._publish(outputs)
                if (report := first_report(outputs)) is not None:
                    self._debug_image.take(self._progress_message(report), result.request)
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
        if self._in_force != self._told:
            self.publish_info()
        self._action.take(outputs)

    def _publish_progress(self, report: ProgressReport) -> None:
        message = self._progress_message(report)
        self._pub_progress.publish(message)
        self._pub_progress_value.publish(Float32(data=report.progress))
        self._last_progress_time = time.monotonic()
        lasting = report.lasting
        latched = (lasting.state, lasting.episode_id, lasting.task, lasting.message)
        if latched != self._latched:  # else it would come with every score
            self._latched = latched
            self._pub_state.publish(self._progress_message(lasting))
        self._say_once.warn((report.instruction, report.standing), partial(str, report.standing))
        self._say_once.warn_of_change("progress", report.warning)

    def _publish_event(self, event: Event) -> None:
        if event.type is EventType.EPISODE_ENDED:
            self._worker.start_generation()  # a score that is still being computed belongs to the past
            self._newest_result.error = ""
        message = conversions.event_message(event, self._worker.info)
        self._pub_event.publish(message)
        text = f"{event.type.name} in episode '{event.episode_id}': {message.message}"
        if event.type is EventType.SCORER_ERROR:
            self._node.get_logger().error(text)
        elif event.type in _WARNINGS:
            self._node.get_logger().warning(text)
        else:
            self._node.get_logger().info(text)

    def _progress_message(self, report: ProgressReport) -> TaskProgress:
        now_ns = self._clock.look(self._now_ns(), time.monotonic_ns())
        return conversions.progress_message(report, self._worker.info, now_ns)

    # ---- timers ---------------------------------------------------------------------------------

    def _on_heartbeat(self) -> None:
        recent = time.monotonic() - self._last_progress_time < 0.5 / self._parameters["heartbeat_rate"]
        if self.active and not recent:
            self._publish_progress(self._monitor.report)

    def _on_diagnostics(self) -> None:
        if not self.active:
            self._diagnostics.publish_inactive()
            return
        problem = self._problem_with_clock()
        self._diagnostics.publish(self._monitor, self._parameters["stale_timeout"], problem)

    def _problem_with_clock(self) -> str:
        """What is wrong with the clock or with stamps, for the diagnostics; each kind is logged once."""
        stamp_ns, now_ns = self._monitor.newest_stamp_ns, self._now_ns()
        silent_ns = round(self._rig.primary.silent_seconds() * NS_PER_S)
        found = self._clock.fault(stamp_ns, now_ns, time.monotonic_ns(), silent_ns)
        for fault in Fault:
            if fault is not found:
                self._say_once.forget(fault)
        if found is None:
            return ""
        text = found.text(stamp_ns, now_ns)
        if found is not Fault.ABSENT:  # `look_at_clock` says it again and again
            self._say_once.warn(found, lambda: text)
        return text

    # ---- instruction and services ---------------------------------------------------------------

    def _watch_for(
        self,
        instruction: str,
        episode_id: str = "",
        why: str = "",
        stage: int = 0,
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        outputs = self._monitor.set_task(
            instruction, episode_id, why, stage=stage, overrides=overrides, now_ns=time.monotonic_ns()
        )
        self._action.end(GoalCode.PREEMPTED, why)
        for warning in task_warnings(instruction, self._worker.info, "model:="):
            self._say_once.warn(warning, partial(str, warning))
        self._publish(outputs)

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        response.success, response.message = self._takes_tasks()
        if response.success:
            try:
                self.set_instruction(
                    request.instruction,
                    request.episode_id,
                    why="a task was set by ~/set_task",
                    stage=request.stage,
                )
            except UserError as error:
                self._node.get_logger().error(f"~/set_task: {error}; the task stays as it is")
                response.success, response.message = False, printable(str(error))
                return response
            response.episode_id = self._monitor.report.episode_id
            said = [
                "waiting for images" if response.episode_id else "idle",
                *task_warnings(self.instruction, self._worker.info, "model:="),  # who calls may see no log
            ]
            response.message = printable("; ".join(said))
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._takes_tasks()
        if response.success:
            self._action.end(GoalCode.PREEMPTED, "reset by ~/reset")
            self._publish(self._monitor.reset("reset by ~/reset", now_ns=time.monotonic_ns()))
            name = self._monitor.report.episode_id
            response.success = bool(name)
            response.message = f"episode '{name}'" if name else self._how_to_set_a_task()
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = self._is_active()
        if response.success:
            if not request.data:
                self._action.end(GoalCode.NOT_WATCHING, "the monitor was disabled")
            self._publish(self._monitor.set_enabled(request.data, now_ns=time.monotonic_ns()))
            response.message = "enabled" if request.data else "disabled"
        return response

    def _on_get_progress(
        self, _: GetProgress.Request, response: GetProgress.Response
    ) -> GetProgress.Response:
        response.progress = self._progress_message(self._report())
        return response

    def _report(self) -> ProgressReport:
        """The newest report; what is not watched has no state."""
        report = self._monitor.report
        return report if self.active else replace(report, state=State.UNKNOWN)

    def _how_to_set_a_task(self) -> str:
        return (
            f"no instruction yet, so no episode: set the parameter task, or call "
            f"{self._node.get_fully_qualified_name()}/set_task, or publish on "
            f"{self._node.resolve_topic_name(INSTRUCTION)}"
        )

    def _takes_tasks(self) -> tuple[bool, str]:
        """Whether a task can be taken now, or why not."""
        if self.active and not self._monitor.enabled:
            return False, f"disabled: call {self._node.get_fully_qualified_name()}/enable first"
        return self._is_active()

    def _is_active(self) -> tuple[bool, str]:
        """Whether the session is active, or what to do when it is not."""
        if self.active:
            return True, ""
        name = self._node.get_fully_qualified_name()
        return False, f"the monitor is not active: `ros2 lifecycle set {name} activate`"

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
