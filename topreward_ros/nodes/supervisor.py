"""The node `supervisor`: episodes end, are retried and reset by themselves, by the rules that a user writes.

Wiring only: it hears `task_event` and `task_progress`, asks core/retry.py what follows, calls services
(std_srvs/Trigger), publishes std_msgs, and gives the monitor its tasks. `supervisor/state` says what it is
doing (latched), /diagnostics the same with counts. In a dry run, which is the default, it only listens and
reports. One thread, the executor's, owns everything.

What a monitor says is advice, and so is what follows from it here: something else must keep the robot from
doing harm. docs/supervisor.md shows how it is used.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":  # as long as Python imports there is nothing to clean up: leave at once
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))

import json
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.client import Client
from rclpy.exceptions import NameValidationException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.task import Future
from rclpy.utilities import try_shutdown
from std_msgs.msg import Bool, Empty, String
from std_srvs.srv import Trigger

from topreward_ros.core.errors import UserError
from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.output_files import OutputFileError, write_file
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.core.retry import RetryPolicy
from topreward_ros.core.retry_settings import RetrySettings
from topreward_ros.core.retry_state import StateError
from topreward_ros.core.retry_words import (
    Command,
    Level,
    Log,
    MakeCall,
    Moment,
    Outcome,
    Phase,
    Save,
    SetTask,
)
from topreward_ros.core.rules import Call, unknown_reason
from topreward_ros.core.text_files import read_text
from topreward_ros.defaults import parameter_defaults
from topreward_ros.msg import SupervisorState, TaskEvent, TaskProgress
from topreward_ros.nodes import conversions, qos
from topreward_ros.nodes.end_signals import EndSignals
from topreward_ros.nodes.log import PrintableLog, logger_named
from topreward_ros.nodes.parameters import (
    SUPERVISOR_PARAMETERS,
    ParameterError,
    declare,
    for_others,
    unknown,
)
from topreward_ros.nodes.python_log import work_for
from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.nodes.say_once import SayOnce
from topreward_ros.nodes.startup import said_by_ros, start
from topreward_ros.nodes.steady_timer import create_steady_timer
from topreward_ros.srv import SetTask as SetTaskService

_TICK_S = 0.05
_LOOK_S = 0.5  # between two looks at the graph
_LOOKS_BEFORE = 2  # anything is begun; what is to be called is waited for longer
_END_S = 2.0  # from the request to end the process until what is under way is left
_CALLS_S = 1.8  # of that, which the calls share
_MESSAGES = {"Empty": Empty, "Bool": Bool, "String": String}
_SHOWN_DECISIONS = 5  # in /diagnostics


class Supervisor(PrintableLog):
    """Acts on the events of a monitor. The constructor raises `UserError` before anything is done."""

    def __init__(self) -> None:
        super().__init__("supervisor")
        values = declare(self, SUPERVISOR_PARAMETERS, parameter_defaults("supervisor.yaml"))
        self._say_once = SayOnce(self.get_logger())
        self._refuse_unknown_rules()
        settings = RetrySettings.from_parameters(values)
        self._autostart = bool(values["autostart"])
        self._policy = RetryPolicy(settings, self._new_name)
        self._names, self._named = f"supervisor-{token_hex(4)}", 0
        self._state_file = None
        self._save_problem = ""
        self._published: tuple[Any, ...] = ()
        self._looks, self._begun = 0, False
        self._saved: Any = None  # what the file said, until that is gone on with
        if values["state_file"] and settings.dry_run:
            self.get_logger().info("dry run: state_file is neither read nor written")
        elif values["state_file"]:
            self._state_file = Path(values["state_file"]).expanduser()
            self._restore(self._state_file)
        self._open(settings, values["diagnostics_rate"])

    # ---- opening ----------------------------------------------------------------------------------

    def _refuse_unknown_rules(self) -> None:
        """A rule that is misspelt would never act; other parameters that mean nothing are named."""
        for name, warning in unknown(self).items():
            if name.startswith("on."):
                raise unknown_reason(name.removeprefix("on."))
            self.get_logger().warning(warning)
        for warning in for_others(sys.argv, self.get_fully_qualified_name()):
            self.get_logger().warning(warning)

    def _restore(self, path: Path) -> None:
        """Read the file, if there is one, and see that it can be written. Raises `UserError`."""
        if path.exists():
            text = read_text(path)
            try:
                self._saved = parsed_json(text)
                RetryPolicy(self._policy.settings, self._new_name).restore(self._saved, self._now())
            except (StateError, ValueError) as error:
                raise StateError(
                    f"state_file {printable(str(path))} cannot be used: {printable(str(error), 200)}; remove "
                    "it to start afresh, or name another"
                ) from error
            write_file(path, text)
        else:
            write_file(path, self._snapshot())

    def _open(self, settings: RetrySettings, diagnostics_rate: float) -> None:
        self._calls = [call for calls in settings.calls.values() for call in calls]
        self._services_of: dict[str, Client] = {}
        self._publishers_of: dict[Call, Any] = {}
        self._answers: dict[str, Future] = {}  # that are waited for, by service
        try:
            for call in [] if settings.dry_run else self._calls:
                if not call.is_service:
                    kind = _MESSAGES[call.kind]
                    self._publishers_of[call] = self.create_publisher(kind, call.name, qos.commands())
                elif call.name not in self._services_of:
                    self._services_of[call.name] = self.create_client(Trigger, call.name)
        except NameValidationException as error:
            raise ParameterError(f"{call} has no name that ROS 2 takes: {error}") from error
        self._set_task = self.create_client(SetTaskService, "monitor/set_task")
        self._events = self.create_subscription(
            TaskEvent, "task_event", self._on_event, qos.events(), qos_overriding_options=qos.overrides()
        )
        self.create_subscription(
            TaskProgress,
            "task_progress",
            self._on_progress,
            qos.progress(),
            qos_overriding_options=qos.overrides(),
        )
        self._state = self.create_publisher(SupervisorState, "~/state", qos.latched())
        self._diagnostics = self.create_publisher(DiagnosticArray, conversions.DIAGNOSTICS, qos.diagnostics())
        self.create_service(Trigger, "~/start", self._on_start, qos_profile=qos.requests())
        self.create_service(Trigger, "~/stop", self._on_stop, qos_profile=qos.requests())
        create_steady_timer(self, _TICK_S, lambda: self._do(self._policy.tick(self._now())))
        create_steady_timer(self, _LOOK_S, self._look_at_graph)
        create_steady_timer(self, 1.0 / diagnostics_rate, self._publish_diagnostics)
        if settings.dry_run:
            self.get_logger().info(
                "dry run: the log says what would be done; it is done with --ros-args -p dry_run:=false, or "
                "with dry_run:=false where a launch file started this"
            )
        self._publish_state()

    def _new_name(self) -> str:
        self._named += 1
        return f"{self._names}-{self._named:04d}"

    @staticmethod
    def _age(info: dict[str, Any]) -> tuple[int, int]:
        """How long ago a message was published, and when [ns]; 0 where the middleware does not tell."""
        published_ns = int(info["source_timestamp"])
        return (max(0, time.time_ns() - published_ns) if published_ns > 0 else 0), max(0, published_ns)

    def _now(self) -> Moment:
        return Moment(time.monotonic_ns(), int(self.get_clock().now().nanoseconds))

    # ---- what is heard ----------------------------------------------------------------------------

    def _on_event(self, message: TaskEvent, info: dict[str, Any]) -> None:
        event = conversions.heard(message, *self._age(info))
        if event is None:
            kind = f"events of type {message.type} are not known here, and ignored"
            self._say_once.warn(kind, lambda: kind)
            return
        self._do(self._policy.on_event(event, self._now()))

    def _on_progress(self, message: TaskProgress, info: dict[str, Any]) -> None:
        self._do(self._policy.on_report(conversions.seen(message, *self._age(info)), self._now()))

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._begin()
        response.success = self._policy.phase in (Phase.STOPPED, Phase.DONE)
        self._do(self._policy.start(self._now()))
        response.message = printable(self._policy.message if response.success else "already started")
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._begin()
        self._autostart = False
        self._do(self._policy.stop(self._now(), "stopped by ~/stop"))
        response.success, response.message = True, printable(self._policy.message)
        return response

    def _look_at_graph(self) -> None:
        """Look who publishes events, and whether what is to be called is of the right type."""
        publishers = self.get_publishers_info_by_topic(self._events.topic_name)
        self._policy.on_publishers(frozenset(bytes(p.endpoint_gid).hex() for p in publishers))
        for call in self._calls:
            problem = self._wrong_type(call)
            if problem and not self._begun and not self._policy.settings.dry_run:
                raise ParameterError(f"{call} cannot be used: {problem}")
            if problem:
                self._say_once.warn((call, problem), partial("{}: {}".format, call, problem))
        self._looks += 1
        if not self._begun and self._looks >= _LOOKS_BEFORE and self._may_begin():
            self._begin()
            if self._autostart and self._policy.phase in (Phase.STOPPED, Phase.DONE):
                self._do(self._policy.start(self._now()))

    def _begin(self) -> None:
        """Go on with what the file said. Nothing that was heard before counts."""
        if not self._begun:
            self._begun = True
            if self._saved is not None:
                self._do(self._policy.restore(self._saved, self._now()))

    def _may_begin(self) -> bool:
        """Whether everything that is to be called is there, or was waited for long enough."""
        absent = [call for call in self._calls if not self._is_there(call)]
        if self._policy.settings.dry_run or self._looks * _LOOK_S > max(
            (c.wait_s for c in absent), default=0
        ):
            for call in absent:
                self.get_logger().warning(f"{call} is not there so far")
            return True
        return not absent

    def _is_there(self, call: Call) -> bool:
        """Whether somebody would get a call now; in a dry run: whether its name is known."""
        if self._policy.settings.dry_run:
            if call.is_service:
                there = dict(self.get_service_names_and_types())
                return self.resolve_service_name(call.name) in there
            return bool(self.count_subscribers(call.name))
        if call.is_service:
            return bool(self._services_of[call.name].service_is_ready())
        return bool(self._publishers_of[call].get_subscription_count())

    # ---- what is done -------------------------------------------------------------------------------

    def _do(self, commands: Iterable[Command]) -> None:
        """Carry out what the policy says, and what follows from that."""
        left = deque(commands)
        while left:
            command = left.popleft()
            if isinstance(command, Log):
                self._log(command)
            elif isinstance(command, Save):
                self._save()
            elif isinstance(command, SetTask):
                left.extend(self._give_task(command))
            else:
                left.extend(self._make_call(command))
        self._publish_state()

    def _log(self, line: Log) -> None:
        logger = self.get_logger()
        if line.level is Level.INFO:
            logger.info(line.text)
        elif line.level is Level.WARNING:
            logger.warning(line.text)
        else:
            logger.error(line.text)

    def _make_call(self, command: MakeCall) -> list[Command]:
        call = command.call
        if not self._is_there(call):
            return self._policy.answer(command.token, *self._absent(call), self._now())
        self._policy.sending(command.token, self._now())
        self._save()
        if not call.is_service:
            return self._policy.answer(command.token, *self._publish(call), self._now())
        client = self._services_of[call.name]
        if (unanswered := self._answers.pop(call.name, None)) is not None:
            client.remove_pending_request(unanswered)
        answer = self._answers[call.name] = client.call_async(Trigger.Request())
        answer.add_done_callback(lambda answer: self._on_call_answer(command.token, answer))
        return []

    def _on_call_answer(self, token: int, answer: Future) -> None:
        response = answer.result()
        outcome = Outcome.DONE if response.success else Outcome.REFUSED
        self._do(self._policy.answer(token, outcome, response.message, self._now()))

    def _publish(self, call: Call) -> tuple[Outcome, str]:
        kind = _MESSAGES[call.kind]
        self._publishers_of[call].publish(kind() if call.value is None else kind(data=call.value))
        return Outcome.DONE, "published"

    def _absent(self, call: Call) -> tuple[Outcome, str]:
        problem = self._wrong_type(call)
        return (Outcome.WRONG_TYPE, problem) if problem else (Outcome.ABSENT, "")

    def _wrong_type(self, call: Call) -> str:
        """What is wrong with what goes by the name of a call, as far as it is known; empty: nothing."""
        if call.is_service:
            name, expected = self.resolve_service_name(call.name), "std_srvs/srv/Trigger"
            there = dict(self.get_service_names_and_types()).get(name, [])
            mend = "name another service"
        else:
            name, expected = self.resolve_topic_name(call.name), f"std_msgs/msg/{call.kind}"
            there = dict(self.get_topic_names_and_types()).get(name, [])
            mend = "name another topic, or that type if it is one of std_msgs/Empty, Bool and String"
        others = [kind for kind in there if kind != expected]
        return f"{name} is of type {', '.join(others)}, and not {expected}: {mend}" if others else ""

    def _give_task(self, command: SetTask) -> list[Command]:
        if not self._set_task.service_is_ready():
            return self._policy.answer(command.token, Outcome.ABSENT, "it is not there", self._now())
        request = SetTaskService.Request(
            instruction=command.instruction, episode_id=command.episode_id, stage=command.stage
        )
        answer = self._answers[self._set_task.srv_name] = self._set_task.call_async(request)
        answer.add_done_callback(lambda answer: self._on_task_answer(command.token, answer))
        return []

    def _on_task_answer(self, token: int, answer: Future) -> None:
        response = answer.result()
        outcome = Outcome.DONE if response.success else Outcome.REFUSED
        self._do(self._policy.answer(token, outcome, response.message, self._now(), response.episode_id))

    # ---- what is kept and reported --------------------------------------------------------------------

    def _snapshot(self) -> str:
        return json.dumps(self._policy.snapshot(), indent=1, ensure_ascii=True) + "\n"

    def _save(self) -> None:
        """Keep the state. A disk that is full stops nothing: the next process will know less."""
        if self._state_file is None:
            return
        try:
            write_file(self._state_file, self._snapshot())
        except OutputFileError as error:
            self._save_problem = str(error)
            self.get_logger().error(f"state_file: {error}", throttle_duration_sec=10.0)
        else:
            self._save_problem = ""

    def _publish_state(self) -> None:
        """Publish what has changed."""
        policy = self._policy
        newest = policy.history[-1] if policy.history else None
        state = (
            *(policy.phase, policy.message, policy.problem, policy.episode_id, policy.task_index),
            *(policy.episodes, sum(policy.retries.values()), newest and (newest.stamp_ns, newest.outcome)),
        )
        if state != self._published:
            self._published = state
            now_ns = int(self.get_clock().now().nanoseconds)
            self._state.publish(conversions.supervisor_message(policy, now_ns))

    def _publish_diagnostics(self) -> None:
        policy = self._policy
        level = DiagnosticStatus.OK
        if policy.phase in (Phase.STOPPED, Phase.UNDECIDED):
            level = DiagnosticStatus.WARN
        problem = policy.problem or self._save_problem
        if problem:
            level = DiagnosticStatus.ERROR
        dry = "dry run, " if policy.settings.dry_run else ""
        values = {
            "state": policy.phase.name,
            "dry run": str(policy.settings.dry_run).lower(),
            "episode": policy.episode_id,
            "task": policy.instruction,
            "episodes": str(policy.episodes),
            "retries of this task": ", ".join(f"{why} {n}" for why, n in policy.retries.items()) or "0",
            "events that never came": str(policy.missing),
            **{f"events {name}": str(count) for name, count in sorted(policy.counts.items())},
        }
        for number, decision in enumerate(list(policy.history)[: -_SHOWN_DECISIONS - 1 : -1], start=1):
            outcome = f": {decision.outcome}" if decision.outcome else ""
            values[f"decision {number}"] = (
                f"{decision.episode_id}: {decision.reason}: {decision.action}{outcome}"
            )
        status = DiagnosticStatus(
            level=level,
            name=f"{self.get_fully_qualified_name()}: supervisor",
            message=printable(f"{dry}{policy.phase.name}: {problem or policy.message}"),
            values=[KeyValue(key=printable(key), value=printable(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    # ---- the end ----------------------------------------------------------------------------------

    def end(self, executor: SingleThreadedExecutor, signals: EndSignals) -> bool:
        """End the episode and make the calls that belong to that; whether all were made with success."""
        if not self._begun:
            return True
        signals.status_if_cut_off = 1
        end = time.monotonic() + _END_S
        self._do(self._policy.stop(self._now(), f"the supervisor was ended by {signals.name}", _CALLS_S))
        self._do(self._policy.release_now(self._now()))
        while time.monotonic() < end and not (self._policy.resting and self._all_answered()):
            signals.not_done = self._not_done()
            executor.spin_once(timeout_sec=0.05)
        if not_done := self._not_done():
            self.get_logger().error(f"the supervisor ends, and not all was done: {not_done}")
        elif not self._policy.resting:
            self.get_logger().error(f"ended before all was done: {self._policy.message}")
        self._save()
        return self._policy.resting and not not_done

    def _not_done(self) -> str:
        return printable("; ".join(self._policy.not_made))

    def _all_answered(self) -> bool:
        """Whether nobody who is there is to answer any more."""
        clients = {**self._services_of, self._set_task.srv_name: self._set_task}
        return all(
            answer.done() or not clients[name].service_is_ready() for name, answer in self._answers.items()
        )


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal. Returns the exit status: 0, or 1 where it could not start or go on, or
    not all that belongs to its end was called."""
    make_libraries_printable()
    signals = EndSignals()
    try:
        start(args)
        return 0 if _run(signals) else 1
    except (UserError, RCLError) as error:  # the latter: a node that cannot be, as without DDS security
        logger_named("supervisor").error(said_by_ros(error))
        return 1
    finally:
        try_shutdown()
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not change the exit status
            signal.signal(number, signal.SIG_IGN)


def _run(signals: EndSignals) -> bool:
    node = Supervisor()
    work_for(node)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    signals.call(executor.wake)
    try:
        while not signals:
            executor.spin_once()
        return node.end(executor, signals)
    except ExternalShutdownException:
        return True
    finally:
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
