"""A lifecycle node that answers while it configures, however long that takes.

rclpy runs a transition inside the callback of the service that asks for it. Until it returns, the executor
does nothing else, so that a model which takes minutes to load would leave every service without an answer.
Here a node `prepare`s first, as a coroutine, while the executor goes on and the state is "configuring";
`on_configure` follows at once. The other transitions are rclpy's own.

Requests that come meanwhile: another configure waits, too, and gets the same answer; a shutdown breaks the
preparation off; everything else is refused. A transition that the state does not have is refused with a line
in the log; rclpy raises an error for it, which would end the process.
"""

from __future__ import annotations

import traceback
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.task import Future

from topreward_ros.core.printable import printable

_SHUTDOWN = "shutdown"
_CLOSING = {"cleanup": "cleaned up", _SHUTDOWN: "shut down"}  # transitions that close interfaces, in words
_SHUTDOWNS = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)


class PatientLifecycleNode(LifecycleNode):
    """A lifecycle node with a coroutine before `on_configure`. One thread, the executor's, owns it."""

    def __init__(self, name: str, **options: Any) -> None:
        """As LifecycleNode, with ``options`` of Node, but the lifecycle services are in a group of callbacks
        of their own: a request that waits for its answer must not hold up the others."""
        Node.__init__(self, name, **options)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._configured: Future | None = None  # while configuring: done when that is over
        self.broken_off = False  #: somebody wanted the last configuring, or the present one, to end early
        self._triggers = {
            "activate": self.trigger_activate,
            "deactivate": self.trigger_deactivate,
            "cleanup": self.trigger_cleanup,
            _SHUTDOWN: self.trigger_shutdown,
        }
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = self._on_change_state
            elif service.srv_name.endswith("/get_available_transitions"):
                self._rclpy_available_transitions = service.callback
                service.callback = self._on_get_available_transitions

    # ---- what a node adds -----------------------------------------------------------------------

    async def prepare(self) -> None:
        """Do what takes long before `on_configure`. An exception means that the node stays unconfigured."""

    async def wind_up(self, why: str) -> None:
        """Do what takes a while before the interfaces are closed by a cleanup or a shutdown."""

    def break_off(self) -> None:
        """Let `prepare` end soon, with an exception."""

    def cannot_prepare(self, error: Exception) -> str:
        """What the log says of an exception of `prepare` or `on_configure`; empty: nothing."""
        return "".join(traceback.format_exception(error))

    def failed(self, why: str) -> None:
        """Take note, where configuring failed, of ``why`` the node is unconfigured."""

    # ---- transitions ----------------------------------------------------------------------------

    @property
    def state_label(self) -> str:
        """The lifecycle's state: unconfigured, configuring, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    async def change_state(self, wanted: str | int) -> bool:
        """Make a transition, given by its label or number; whether it was made and succeeded."""
        if self._configured is not None:
            if wanted in ("configure", Transition.TRANSITION_CONFIGURE):
                return bool(await self._configured)
            if wanted != _SHUTDOWN and wanted not in _SHUTDOWNS:
                return self._refuse(wanted, "wait until it has configured")
            wanted = _SHUTDOWN
            await self.end_configuring()
        label = self._label_of(wanted)
        if label == "configure":
            return await self._configure()
        if (trigger := self._triggers.get(label)) is None:
            return self._refuse(wanted, f"it can {' or '.join(self._labels().values()) or 'do nothing more'}")
        if why := _CLOSING.get(label, ""):
            await self.wind_up(why)
            if self._label_of(label) != label:  # meanwhile somebody else was served
                return self._refuse(wanted, f"it is {self.state_label} by now")
        return bool(trigger() == TransitionCallbackReturn.SUCCESS)

    async def end_configuring(self) -> None:
        """Break `prepare` off, if that is under way, and wait until the node is unconfigured again."""
        if self._configured is not None:
            self.broken_off = True  # said now: who waited for the configuring goes on before we do
            self.break_off()
            self._wake()
            await self._configured

    async def _configure(self) -> bool:
        begun = LifecycleState(State.PRIMARY_STATE_UNCONFIGURED, self.state_label)
        self._configured = configured = Future(executor=self.executor)
        self.broken_off = False
        result = TransitionCallbackReturn.FAILURE
        try:
            self._state_machine.trigger_transition_by_id(Transition.TRANSITION_CONFIGURE, True)
            await self.prepare()
            result = self.on_configure(begun)
        except Exception as error:
            lines = self.cannot_prepare(error).splitlines()
            for line in lines:
                self.get_logger().error(f"cannot configure: {line}")
            if lines:
                self.failed(
                    f"cannot configure: {lines[-1] if lines[0].startswith('Traceback') else lines[0]}"
                )
        self._state_machine.trigger_transition_by_label(result.to_label(), True)
        self._configured = None
        configured.set_result(result == TransitionCallbackReturn.SUCCESS)
        self._wake()
        return bool(configured.result())

    def _wake(self) -> None:
        """Let the executor look whether what a coroutine waits for is there."""
        if self.executor is not None:
            self.executor.wake()

    def _labels(self) -> dict[int, str]:
        """What can be asked for in this state, by number; the ends of a transition are ours alone."""
        return {
            number: _SHUTDOWN if number in _SHUTDOWNS else label
            for number, label, *_ in self._state_machine.available_transitions
            if number <= Transition.TRANSITION_ACTIVE_SHUTDOWN
        }

    def _label_of(self, wanted: str | int) -> str:
        """The label of a transition that this state has; empty for any other."""
        labels = self._labels()
        return labels.get(wanted, "") if isinstance(wanted, int) else wanted * (wanted in labels.values())

    def _refuse(self, wanted: str | int, mend: str) -> bool:
        self.get_logger().warning(
            f"transition '{printable(str(wanted), 100)}' is refused in state {self.state_label}: {mend}"
        )
        return False

    # ---- services -------------------------------------------------------------------------------

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        response.success = await self.change_state(request.transition.label or request.transition.id)
        return response

    def _on_get_available_transitions(
        self, request: GetAvailableTransitions.Request, response: GetAvailableTransitions.Response
    ) -> GetAvailableTransitions.Response:
        answer: Any = self._rclpy_available_transitions(request, response)
        if self._configured is not None:  # rclpy names the ends of the transition, but nobody else ends it
            answer.available_transitions = answer.available_transitions[:1]
            for offered in answer.available_transitions:
                offered.transition = Transition(
                    id=Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, label=_SHUTDOWN
                )
                offered.goal_state = State(id=State.PRIMARY_STATE_FINALIZED, label="finalized")
        return answer
