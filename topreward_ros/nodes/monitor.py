"""The lifecycle node ``monitor``: camera topics in, progress, rewards and events out.

Wiring only: states of the lifecycle, parameters, and the process. What the node does while it is configured
is in nodes/session.py. Two threads: the executor's, which owns everything here, and the scorer's. A third
loads the model, and ends when it is loaded.

    configure   loads the model, then opens a session: publishers, services and subscriptions
    activate    watches the instruction that is known by then
    deactivate  ends the episode; images are ignored
    cleanup     closes the session and lets the model go
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Any, NoReturn

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from topreward_ros.core.episode import MonitorSettings, TaskMonitor
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes import parameters
from topreward_ros.nodes.image_topics import RCLError, places
from topreward_ros.nodes.log import PrintableLog
from topreward_ros.nodes.raw_conversion import converter
from topreward_ros.nodes.say_once import SayOnce
from topreward_ros.nodes.session import Session, create_steady_timer
from topreward_ros.scoring.base import PrefixScorer, ScorerError, ScorerSettings
from topreward_ros.scoring.registry import load_scorer

_CLOCK_PERIOD_S = 0.2  # how often the session looks at the clock, for images that stopped


class MonitorNode(PrintableLog, LifecycleNode):
    """Watches cameras for one instruction at a time. Interfaces: see the README."""

    def __init__(self) -> None:
        """Declare the parameters; everything else waits for `on_configure`. Raises
        `parameters.ParameterError`."""
        super().__init__("monitor")
        try:
            self.values = parameters.declare(self, parameters.MONITOR_PARAMETERS, monitor_defaults())
        except parameters.ParameterError:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        started = datetime.now().strftime("%Y%m%d-%H%M%S")
        self._episode_prefix = f"{started}-{token_hex(2)}"  # monitors may start in the same second
        self._episodes_named = 0
        # One for the life of the process, so that events are counted through every reconfiguration.
        self._monitor = TaskMonitor(MonitorSettings.from_parameters(self.values), self._new_episode_id)
        self._say_once = SayOnce(self.get_logger())
        self._session: Session | None = None  # while configured
        # Always there, because it also wakes an executor that rclpy forgot to wake: its signal handler
        # triggers the wait before it shuts the context down, and then nothing else may ever come.
        create_steady_timer(self, _CLOCK_PERIOD_S, self._look_at_clock)

    # ---- lifecycle ------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and, when that worked, open a session with every interface."""
        self.close()  # a session that an error in a later transition left behind
        self._warn_of_unknown_parameters()
        try:
            self._say_converter()
            for topic in self.values["image_topics"]:  # before minutes are spent on loading
                places(self, topic, self.values["image_transport"])
            self._session = Session(self, self.values, self._monitor, self._load_scorer())
        except ScorerError as error:
            if self.context.ok():  # else a signal interrupted the loading, which is no error
                self.get_logger().error(f"cannot configure: {error}")
        except (InvalidTopicNameException, ValueError) as error:
            self.get_logger().error(f"cannot configure: {error}; check image_topics and remappings")
        except Exception:
            # The lifecycle machinery would swallow it without a word.
            self.get_logger().error("cannot configure:")
            for line in traceback.format_exc().splitlines():
                self.get_logger().error(line)
        else:
            self._warn_of_unknown_parameters()
            return super().on_configure(state)
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start watching the instruction at hand."""
        result = super().on_activate(state)
        if self._session is not None:
            self._session.activate()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the episode and ignore images from now on; the instruction is kept."""
        if self._session is not None:
            self._session.deactivate("deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close every interface and let the model go."""
        result = super().on_cleanup(state)
        self.close()
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up from any state."""
        if self._session is not None:
            self._session.deactivate("shut down")
        result = super().on_shutdown(state)
        self.close()
        return result

    def destroy_node(self) -> None:
        """Leave ROS 2. Nothing of the node stays, least of all its shared memory of 64 MB (Fast DDS)."""
        super().destroy_node()
        # rclpy forgets this one, and it keeps the node alive until the interpreter takes everything apart.
        self.__dict__.pop("_state_machine", None)

    def close(self) -> None:
        """Undo `on_configure`. May be called at any time; returns within 2 s."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def _say_converter(self) -> None:
        """Say once what converts raw images, and what is wrong with a cv_bridge that cannot be used."""
        chosen = converter()
        if chosen.problem:
            self.get_logger().warning(chosen.problem, once=True)
        self.get_logger().info(f"images are converted by {chosen.name}", once=True)

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

    def _look_at_clock(self) -> None:
        if self._session is not None:
            self._session.look_at_clock()

    # ---- parameters -----------------------------------------------------------------------------

    def _warn_of_unknown_parameters(self) -> None:
        """Name the parameters that were given and mean nothing; those of QoS come with their topic."""
        topics = None if self._session is None else self._session.image_topics()
        for name, warning in parameters.unknown(self, topics).items():
            self._say_once.warn(name, partial(str, warning))

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        known = {parameter.name: parameter for parameter in parameters.MONITOR_PARAMETERS}
        for parameter in changed:
            if parameter.name in known and (problem := known[parameter.name].problem_with(parameter.value)):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        names = {parameter.name for parameter in changed if parameter.name in self.values}
        self.values.update({p.name: p.value for p in changed if p.name in names})
        if names:
            self._monitor.settings = MonitorSettings.from_parameters(self.values)
        if self._session is None or not names:
            return
        if "task" in names:
            self._session.set_instruction(self.values["task"], why="parameter task")
        if self._session.active:
            self._session.publish_info()

    def _new_episode_id(self) -> str:
        self._episodes_named += 1
        return f"{self._episode_prefix}-{self._episodes_named:03d}"


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
    make_libraries_printable()
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signals.append(received))
    try:
        rclpy.init(args=args)
        return 0 if signals else _run()
    except Exception as error:
        if signals:
            return 0  # the signal shut ROS down in the middle of something, which then failed
        if isinstance(error, (parameters.ParameterError, RCLError)):
            print(f"monitor: {printable(str(error))}", file=sys.stderr)
            return 1
        for line in traceback.format_exc().splitlines():
            print(f"monitor: {printable(line)}", file=sys.stderr)
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


if __name__ == "__main__":
    main()
