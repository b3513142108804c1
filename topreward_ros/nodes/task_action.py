"""The action server ``~/monitor_task`` (MonitorTask) of a session, beside the services that set a task.

Wiring only: what becomes of a goal is decided in core/goal.py. A goal is accepted while the session can take
tasks; one that makes no sense is aborted with the reason, for ROS 2 has no room for one in a refusal, and it
leaves the running one alone. One goal runs at a time. Nothing here blocks: a goal is a coroutine that waits
for its result while the executor goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

from topreward_ros.action import MonitorTask
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.goal import GoalCode, GoalOutcome, GoalWatch
from topreward_ros.core.monitor_settings import Overrides
from topreward_ros.core.outputs import Output, ProgressReport
from topreward_ros.core.printable import printable
from topreward_ros.msg import TaskProgress
from topreward_ros.nodes import conversions, parameters, qos

NAME = "~/monitor_task"

_LONGEST_ANSWER_S = 0.4  # that `until_answered` waits
_ON_ITS_WAY_S = 0.1  # from a result that is known to one that was sent, also to who asks a little later
_LOOK_S = 0.02


class Watcher(Protocol):
    """What the server needs of the session."""

    def why_no_task(self) -> str:
        """Why no task can be taken now; empty: one can."""

    def watch_for_goal(self, task: str, episode_id: str, stage: int, overrides: Overrides) -> None:
        """Begin to watch the task of a goal. Raises `UserError`, and then changes nothing."""

    def stop_watching(self, why: str) -> None:
        """Go idle."""


class InvalidGoalError(UserError):
    """A goal asks for what cannot be."""


class TaskAction:
    """The action server and its one goal. The executor's thread owns it."""

    def __init__(
        self,
        node: LifecycleNode,
        monitor: TaskMonitor,
        watcher: Watcher,
        message: Callable[[ProgressReport], TaskProgress],
    ) -> None:
        """``message``: of a report, as it would be published now."""
        self._node = node
        self._monitor = monitor
        self._watcher = watcher
        self._message = message
        self._current: _Goal | None = None
        self._last: _Goal | None = None  # that ended
        self._ended_s = 0.0  # when it did, by the steady clock
        self._server = ActionServer(
            node,
            MonitorTask,
            NAME,
            _no_callback,  # each goal brings its own
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=qos.requests(),
            result_service_qos_profile=qos.requests(),
            cancel_service_qos_profile=qos.requests(),
        )

    def destroy(self) -> None:
        """Close the server; a result that was not sent yet is lost, see `until_answered`."""
        self._server.destroy()

    # ---- what the session tells ------------------------------------------------------------------

    def take(self, outputs: Iterable[Output]) -> None:
        """Look at what the monitor put out, in order, once it was published."""
        for output in outputs:
            if self._current is None:
                return
            outcome = self._current.watch.take(output, self._monitor.time_limit)
            if isinstance(output, ProgressReport) and output.episode_id:
                self._give_feedback(output)
            if outcome is not None:
                self._finish(outcome)

    def look_at_clock(self, now_ns: int, paused_ns: int, stands_ns: int, hangs: str) -> None:
        """Notice that time is up for a goal that nothing else would end.

        ``now_ns``: of the steady clock; ``paused_ns`` and ``stands_ns``: for so long simulated time stood
        still, in pauses that are over since the last call, and up to now; ``hangs``: that the scorer does, or
        empty.
        """
        if self._current is None:
            return
        watch, limit_s = self._current.watch, self._monitor.time_limit
        outcome = watch.look(now_ns, paused_ns, limit_s, stands_ns=stands_ns)
        if outcome is None and hangs:
            outcome = watch.scorer_hangs(hangs, limit_s)
        if outcome is not None:
            self._finish(outcome)

    def end(self, code: GoalCode, why: str) -> None:
        """End the goal, if there is one, because its task is taken away."""
        if self._current is not None:
            self._finish(self._current.watch.end(code, why), stop=False)

    async def until_answered(self) -> None:
        """Let the result of a goal that has just ended go to who asked for it; 0.4 s at most.

        To be awaited before the server is destroyed. The executor must go on meanwhile.
        """
        if time.monotonic() - self._ended_s > _LONGEST_ANSWER_S:
            return
        answered = Future(executor=self._node.executor)

        def look() -> None:
            since_s = time.monotonic() - self._ended_s
            returned = self._last is None or self._last.returned
            if not answered.done() and (
                since_s > _LONGEST_ANSWER_S or (returned and since_s > _ON_ITS_WAY_S)
            ):
                answered.set_result(None)

        timer = self._node.create_timer(_LOOK_S, look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        try:
            await answered
        finally:
            self._node.destroy_timer(timer)

    # ---- what clients ask ------------------------------------------------------------------------

    def _on_goal(self, _: MonitorTask.Goal) -> GoalResponse:
        if why := self._watcher.why_no_task():
            self._node.get_logger().warning(f"a goal of {NAME} was refused: {why}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal, request = _Goal(handle, self._node), handle.request
        handle.execute(goal.answer)
        try:
            # This ends the goal that ran so far, unless it raises an error.
            self._watcher.watch_for_goal(
                request.instruction, request.episode_id, request.stage, _overrides(request)
            )
        except UserError as error:
            self._node.get_logger().error(f"a goal of {NAME} is aborted: {error}; the task stays as it is")
            self._close(goal, GoalOutcome(code=GoalCode.INVALID_GOAL, message=str(error)))
            return
        self._current = goal
        goal.watch.take(self._monitor.report, self._monitor.time_limit)
        self._give_feedback(self._monitor.report)

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._current is None or handle != self._current.handle:
            return CancelResponse.REJECT
        # It is being canceled only once this has returned.
        self._node.executor.create_task(self._cancel, self._current)
        return CancelResponse.ACCEPT

    def _cancel(self, goal: _Goal) -> None:
        if goal is self._current:
            self._finish(goal.watch.end(GoalCode.CANCELED, "the goal was canceled"))

    # ---- within ----------------------------------------------------------------------------------

    def _give_feedback(self, report: ProgressReport) -> None:
        if self._current is not None:
            feedback = MonitorTask.Feedback(progress=self._message(report))
            self._current.handle.publish_feedback(feedback)

    def _finish(self, outcome: GoalOutcome, *, stop: bool = True) -> None:
        """End the goal that runs. ``stop``: and what is still being watched for it."""
        goal, self._current = self._current, None
        assert goal is not None, "called only while a goal runs"
        self._close(goal, outcome)
        if stop and not outcome.succeeded and self._monitor.watching:
            self._watcher.stop_watching(f"its goal ended: {outcome.message}")

    def _close(self, goal: _Goal, outcome: GoalOutcome) -> None:
        """Give a goal its last state and its result."""
        handle = goal.handle
        if outcome.succeeded:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        self._last, self._ended_s = goal, time.monotonic()
        goal.result.set_result(conversions.goal_result(outcome))
        if self._node.executor is not None:
            self._node.executor.wake()  # for the coroutine that waits
        text = f"the goal of episode '{outcome.episode_id}' ended: {outcome.code.name}"
        self._node.get_logger().info(f"{text}: {outcome.message}" if outcome.message else text)


class _Goal:
    """A goal that was accepted."""

    def __init__(self, handle: ServerGoalHandle, node: LifecycleNode) -> None:
        self.handle = handle
        self.watch = GoalWatch()
        self.result = Future(executor=node.executor)
        self.returned = False  #: whether rclpy has the result

    async def answer(self, _: ServerGoalHandle) -> MonitorTask.Result:
        """Wait for the result; rclpy sends it to who asked for it, or asks later."""
        result: MonitorTask.Result = await self.result
        self.returned = True
        return result


def _no_callback(_: ServerGoalHandle) -> Any:
    raise AssertionError("a goal is executed by its own callback")


def _overrides(request: MonitorTask.Goal) -> Overrides:
    """What a goal has of its own. Raises `InvalidGoalError` where the parameter of that name would refuse
    it."""
    timeout_s = conversions.nanoseconds(request.timeout) / NS_PER_S
    threshold = request.success_threshold[0] if len(request.success_threshold) else None
    for name, value in (("episode_timeout", timeout_s), ("success_threshold", threshold)):
        if value is not None and (problem := parameters.MONITOR[name].problem_with(value)):
            what = "timeout" if name == "episode_timeout" else name
            raise InvalidGoalError(printable(problem.replace(name, f"the goal's {what}", 1)))
    return Overrides(timeout=timeout_s, success_threshold=threshold)
