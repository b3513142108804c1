"""The lifecycle node ``monitor``: camera topics in, progress, rewards and events out.

Wiring only: states of the lifecycle, parameters, and the process. What the node does while it is configured
is in nodes/session.py. Two threads: the executor's, which owns everything here, and the scorer's. A third
loads the model, and ends when it is loaded; a fourth waits for signals.

    configure   listens to task_instruction and loads the model, then opens a session: publishers, services
                and subscriptions
    activate    watches the instruction that is known by then
    deactivate  ends the episode; images are ignored
    cleanup     closes the session and lets the model go
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":  # as long as Python imports there is nothing to clean up: leave at once
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda *_: os._exit(0))

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import NoReturn

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future

from topreward_ros.core.calibration.task import NO_CALIBRATIONS, Calibrations, Setup
from topreward_ros.core.episode import TaskMonitor
from topreward_ros.core.errors import UserError
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes import parameters
from topreward_ros.nodes.diagnostics import FailureDiagnostics, RestDiagnostics, WaitingDiagnostics
from topreward_ros.nodes.end_signals import EndSignals, end_process
from topreward_ros.nodes.image_topics import places
from topreward_ros.nodes.instruction_topic import InstructionTopic
from topreward_ros.nodes.lifecycle import PatientLifecycleNode
from topreward_ros.nodes.loading import beside_others, let_go
from topreward_ros.nodes.log import PrintableLog
from topreward_ros.nodes.python_log import work_for
from topreward_ros.nodes.raw_conversion import converter
from topreward_ros.nodes.rcl_error import RCLError
from topreward_ros.nodes.say_once import SayOnce
from topreward_ros.nodes.session import Session
from topreward_ros.nodes.startup import said_by_ros, start
from topreward_ros.nodes.steady_timer import create_steady_timer
from topreward_ros.offline.calibration_file import (
    calibrations_for,
    camera_name,
    check_before_loading,
    check_setup,
    setup_of,
)
from topreward_ros.scoring.base import LinkError, ScorerError, ScorerSettings
from topreward_ros.scoring.compile_cache import leave_out_unusable_folder
from topreward_ros.scoring.pool import SHARED, Place, ScorerPool
from topreward_ros.scoring.registry import check_wish, import_libraries, load_scorer
from topreward_ros.scoring.start_times import StartTimes
from topreward_ros.scoring.worker import ScoringWorker

_CLOCK_PERIOD_S = 0.2  # how often the session looks at the clock, for images that stopped
_SERVER_PERIOD_S = 1.0  # how often a monitor that starts looks for the server of its model


NAME = "monitor"  #: of the node


class Interrupted(Exception):
    """The loading of a model was broken off."""


@dataclass(frozen=True)
class Company:
    """What the monitors of one process have in common."""

    pool: ScorerPool
    monitors: tuple[str, ...] = ()  #: all of them, with their namespaces
    process: str = ""  #: the node of the process itself
    parameters: tuple[str, ...] = ()  #: meant for the process, which ROS 2 gives to every node in it
    failed: set[str] = field(default_factory=set)  #: monitors that could not start

    @property
    def is_lost(self) -> bool:
        """Whether there is none that started, or still may."""
        return bool(self.failed) and len(self.failed) >= len(self.monitors)


class MonitorNode(PrintableLog, PatientLifecycleNode):
    """Watches cameras for one instruction at a time. Interfaces: see the README."""

    def __init__(self, namespace: str = "", company: Company | None = None) -> None:
        """Declare the parameters; everything else waits for `on_configure`. Raises
        `parameters.ParameterError`.

        ``namespace``: over what the process was given; empty: that one. ``company``: None for a monitor that
        is alone in its process.
        """
        own = ["--ros-args", "-r", f"__ns:={namespace}"] if namespace else None
        super().__init__(NAME, cli_args=own)
        self.company = company or Company(ScorerPool(load_scorer))
        self._say_once = SayOnce(self.get_logger())
        self._session: Session | None = None  # while configured
        try:
            self.values = parameters.declare(self, parameters.MONITOR_PARAMETERS, monitor_defaults())
        except parameters.ParameterError:
            self._warn_of_unknown_parameters()  # whoever mends it sees all that is wrong
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        started = datetime.now().strftime("%Y%m%d-%H%M%S")
        self._episode_prefix = f"{started}-{token_hex(2)}"  # monitors may start in the same second
        self._episodes_named = 0
        # One for the life of the process, so that events are counted through every reconfiguration.
        self._calibrations = NO_CALIBRATIONS  # while configured
        self._monitor = TaskMonitor(self._settings(), self._new_episode_id)
        self._instructions: InstructionTopic | None = None  # while configuring and configured
        self._loading: Future | None = None  # while the model is loaded: becomes the place at its scorer
        self._worker: ScoringWorker | None = None  # that place, until a session has it
        self._absence: FailureDiagnostics | None = None  # while unconfigured and finalized
        self._tell_absence(RestDiagnostics, self._unconfigured())
        create_steady_timer(self, _CLOCK_PERIOD_S, self._look_at_clock)

    # ---- lifecycle ------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Configure and activate; False when that failed. A shutdown that came meanwhile is no failure."""
        started = await self.change_state("configure") and await self.change_state("activate")
        return started or self.broken_off or self.state_label == "finalized"

    async def end(self, why: str) -> None:
        """End what is under way, a model's loading included, and tell everybody ``why``."""
        await self.end_configuring()
        await self.wind_up(why)
        self.close(why)

    async def wind_up(self, why: str) -> None:
        """End the episode, and let the result of a goal go to its client while the executor goes on."""
        if self._session is not None:
            self._session.deactivate(why)
            await self._session.until_answered()

    async def prepare(self) -> None:
        """Check what can be checked at once, and load the model. Raises what `on_configure` has to report."""
        self.close("configured anew")  # a session that an error in a later transition left behind
        self._warn_of_unknown_parameters()
        self._say_converter()
        model, settings = self.values["model"], ScorerSettings.from_parameters(self.values)
        calibrations = calibrations_for(self.values)  # before minutes are spent on loading
        monitor, layout, cameras = self._settings(), self.values["camera_layout"], self._cameras()
        self._instructions = InstructionTopic(self, self._take_instruction)
        try:
            worker = await self._load_scorer(
                model,
                settings,
                partial(check_before_loading, calibrations, model, monitor, settings, layout, cameras),
            )
            try:
                self._use(calibrations, setup_of(worker.info, monitor, settings, layout, cameras))
            except BaseException:
                worker.stop()
                raise
            self._worker = worker
        except BaseException:
            self._end_instructions()
            raise

    def _cameras(self) -> list[str]:
        """The names of the cameras that are scored. Raises `ValueError` for a topic that cannot be one's."""
        names = [
            camera_name(places(self, topic, self.values["image_transport"])[0].name, self.get_namespace())
            for topic in self.values["image_topics"]
        ]
        return names if self.values["camera_layout"] == "tile" else names[:1]

    def _use(self, calibrations: Calibrations, here: Setup) -> None:
        """Decide by ``calibrations`` from now on. Raises `CalibrationError` where they are for another setup
        and that is not accepted."""
        if difference := check_setup(calibrations, here):
            self.get_logger().warning(difference)
        self._calibrations = calibrations
        self._monitor.settings = self._settings()
        if calibrations:
            self.get_logger().info(calibrations.text)

    def _settings(self) -> MonitorSettings:
        """The settings that the parameters say, and the calibrations that are in use."""
        return replace(MonitorSettings.from_parameters(self.values), calibrations=self._calibrations)

    def break_off(self) -> None:
        """Wait no longer for the model."""
        if self._loading is not None and not self._loading.done():
            self._loading.set_exception(Interrupted())

    def cannot_prepare(self, error: Exception) -> str:
        """What to say of an error of `prepare` or `on_configure`; empty where nothing has to be said."""
        if isinstance(error, Interrupted):
            return ""
        if isinstance(error, UserError):
            return str(error)
        if isinstance(error, (InvalidTopicNameException, ValueError)):
            return f"{error}; check image_topics and remappings"
        return super().cannot_prepare(error)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open a session with every interface, now that the model is loaded."""
        assert self._worker is not None, "`prepare` has loaded its model"
        worker, self._worker = self._worker, None
        try:
            self._session = Session(self, self.values, self._monitor, worker)
        except BaseException:
            self._end_instructions()
            raise
        self._warn_of_unknown_parameters()
        self.company.failed.discard(self.get_fully_qualified_name())
        return super().on_configure(state)

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
        self.close("cleaned up")
        self._tell_absence(RestDiagnostics, self._unconfigured())
        let_go()
        return result

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up from any state."""
        result = super().on_shutdown(state)
        self.close("shut down")
        self._tell_absence(
            RestDiagnostics, "the monitor was shut down (finalized): start it again to have it watch"
        )
        return result

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up, as the node is unconfigured from now on."""
        self.close("an error in a transition")
        self.failed("an error in a transition")
        return super().on_error(state)

    def destroy_node(self) -> None:
        """Leave ROS 2. Nothing of the node stays, least of all its shared memory of 64 MB (Fast DDS)."""
        super().destroy_node()
        # rclpy forgets this one, and it keeps the node alive until the interpreter takes everything apart.
        self.__dict__.pop("_state_machine", None)

    def close(self, why: str) -> None:
        """Undo `on_configure`: end the episode, which is told with the reason, and close every interface.

        May be called at any time; returns within 2 s.
        """
        if self._session is not None:
            self._session.close(why)
        self._session = None
        self._end_instructions()
        if self._absence is not None:
            self._absence.destroy()
        self._absence = None

    def failed(self, why: str) -> None:
        """Tell it in the diagnostics until the next transition: the log may have gone by long ago."""
        self._tell_absence(
            FailureDiagnostics,
            f"{why}; `ros2 lifecycle set {self.get_fully_qualified_name()} configure` tries the same again; "
            "for another model, or another value of any read-only parameter, start the monitor again",
        )

    def _unconfigured(self) -> str:
        name = self.get_fully_qualified_name()
        return f"the monitor is unconfigured: `ros2 lifecycle set {name} configure` loads its model"

    def _tell_absence(self, kind: type[FailureDiagnostics], why: str) -> None:
        """Say in the diagnostics, until the next transition, why nothing is watched."""
        self._absence = kind(self, why, self.values["model"], self.values["diagnostics_rate"])

    def _end_instructions(self) -> None:
        if self._instructions is not None:
            self._instructions.destroy()
        self._instructions = None

    def _take_instruction(self, text: str) -> None:
        """Take a text on task_instruction: the parameter keeps it until a session is there."""
        what = "the text on task_instruction"
        if self._session is not None:
            self._session.follow(text, what, why="another task came on task_instruction")
        elif (task := clean_task(text, what)) != clean_task(self.values["task"]):
            self.set_parameters([Parameter("task", value=task)])

    def _say_converter(self) -> None:
        """Say once what converts raw images, and what is wrong with a cv_bridge that cannot be used."""
        chosen = converter()
        if chosen.problem:
            self.get_logger().warning(chosen.problem, once=True)
        self.get_logger().info(f"images are converted by {chosen.name}", once=True)

    async def _load_scorer(
        self, model: str, settings: ScorerSettings, check: Callable[[], None]
    ) -> ScoringWorker:
        """Load in a thread, so that everything else goes on even while gigabytes are read.

        ``check`` is called before, in that thread; raises `UserError` where it is not worth while.
        """
        executor = self.executor
        assert executor is not None, "transitions are made while the executor runs"
        self._loading = loading = Future(executor=executor)

        def take(place: Place | None, error: Exception | None) -> None:
            if loading.done():  # nobody waits any more
                if place is not None:
                    place.worker.stop()
            elif error is not None:
                loading.set_exception(error)
            else:
                loading.set_result(place)
            executor.wake()  # for the one who waits

        def load() -> None:
            place, failed = None, None
            work_for(self)
            try:
                check()
                with beside_others(partial(import_libraries, model)):
                    times.done("libraries and checks")
                    if advice := check_wish(model, settings):
                        self.get_logger().warning(advice)
                place = self._take_place(model, settings, loading, waiting)
            except UserError as error:
                failed = error
            except BaseException as error:
                failed = ScorerError(f"model '{model}': {type(error).__name__}: {error}")
            executor.create_task(take, place, failed)

        self.get_logger().info(f"loading model '{model}' ...")
        waiting = WaitingDiagnostics(self, model, self.values["diagnostics_rate"])
        times = StartTimes()
        try:
            threading.Thread(target=load, name="loading", daemon=True).start()
            worker, said = await loading
        finally:
            waiting.destroy()
        if said:
            self.get_logger().info(said)
        if said != SHARED and worker.scorer.start_times is not None:
            times.add(worker.scorer.start_times)
            self.get_logger().info(f"the model was ready after {times}")
        found: ScoringWorker = worker
        return found

    def _take_place(
        self, model: str, settings: ScorerSettings, loading: Future, waiting: WaitingDiagnostics
    ) -> Place:
        """A place at the model's scorer; where a server has it that cannot be reached, once it can.

        A robot may be up before its server, and nobody is there to start it again. So this waits for as long
        as somebody waits for ``loading``, and says why. Raises `ScorerError` for all that waiting mends not.
        """
        while True:
            try:
                with beside_others(partial(import_libraries, model)):
                    return self.company.pool.take(model, settings)
            except LinkError as error:
                if loading.done():
                    raise
                waiting.reason = f"{error}: waiting for it"
                self.get_logger().warning(waiting.reason, throttle_duration_sec=10.0)
                time.sleep(_SERVER_PERIOD_S)

    def _look_at_clock(self) -> None:
        if self._session is not None:
            self._session.look_at_clock()

    # ---- parameters -----------------------------------------------------------------------------

    def _warn_of_unknown_parameters(self) -> None:
        """Name the parameters that were given and mean nothing; those of QoS come with their topic."""
        topics = None if self._session is None else self._session.image_topics()
        for name, warning in parameters.unknown(self, topics).items():
            if name not in self.company.parameters and name not in parameters.MONITOR:
                self._say_once.warn(name, partial(str, warning))
        company = self.company.monitors and (self.company.process, *self.company.monitors)
        for warning in parameters.for_others(sys.argv, self.get_fully_qualified_name(), company):
            self._say_once.warn(warning, partial(str, warning))

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        for parameter in changed:
            known = parameters.MONITOR.get(parameter.name)
            if known is not None and (problem := known.problem_with(parameter.value)):
                self.get_logger().error(f"{problem}; the parameter stays as it is")
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        names = {parameter.name for parameter in changed if parameter.name in self.values}
        before = {name: self.values[name] for name in names}
        self.values.update({p.name: p.value for p in changed if p.name in names})
        if names:
            self._monitor.settings = self._settings()
            self._warn_of_calibrated(names)
        if self._session is None or not names:
            return
        for name in sorted(names - {"task"}):
            if self.values[name] != before[name]:
                self.get_logger().info(f"parameter {name} is {self.values[name]} now, and was {before[name]}")
        if "task" in names:
            self._session.follow(self.values["task"], "the parameter task", why="the parameter task was set")
        if self._session.active and names != {"task"}:
            self._session.publish_info()

    def _warn_of_calibrated(self, names: set[str]) -> None:
        """Say it where a setting was changed that the present task has from its calibration."""
        changed = sorted(name for name in names if name.startswith("success_"))
        if changed and self._monitor.settings_in_force.success != self._settings().success:
            self.get_logger().warning(
                f"{', '.join(changed)} acts on tasks without a calibration alone: the present one has its "
                f"detector from {printable(self._calibrations.source, 300)}"
            )

    def _new_episode_id(self) -> str:
        self._episodes_named += 1
        return f"{self._episode_prefix}-{self._episodes_named:03d}"


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until a signal, and end the process: status 1 when it could not start, else 0.

    Everything of ROS 2 has been closed by then. An ordinary exit would still take a second to take
    PyTorch apart, and wait for or crash on a scorer that hangs in native code.
    """
    end_process(_run_until_signal(args))


def _run_until_signal(args: list[str] | None) -> int:
    make_libraries_printable()
    leave_out_unusable_folder()
    signals = EndSignals()
    try:
        start(args)
        return run(MonitorNode(), signals)
    except Exception as error:
        if isinstance(error, (UserError, RCLError)):
            print(f"monitor: {printable(said_by_ros(error))}", file=sys.stderr)
            return 1
        for line in traceback.format_exc().splitlines():
            print(f"monitor: {printable(line)}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


def run(node: MonitorNode, signals: EndSignals) -> int:
    """Run a node, in an executor of its own, until a signal; 1 where it could not start, else 0.

    One that could not start stays, to be configured again, as long as others of its company run or may start.
    The node is destroyed by then, whatever happens.
    """
    name, failed = node.get_fully_qualified_name(), node.company.failed
    work_for(node)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    signals.call(executor.wake)
    why = "the process failed"
    try:
        started = executor.create_task(node.start) if node.values["autostart"] else None
        while not signals:
            executor.spin_once()
            if started is not None and started.done():
                if not started.result():
                    failed.add(name)
                started = None
            if node.company.is_lost:
                return 1
        why = f"the monitor was ended by {signals.name}"
        executor.spin_until_future_complete(executor.create_task(node.end, why), timeout_sec=1.0)
    except ExternalShutdownException:
        pass
    finally:
        node.close(why)
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()
    return int(name in failed)


if __name__ == "__main__":
    main()
