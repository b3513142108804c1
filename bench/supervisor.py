"""How fast and how reliably a supervisor acts: from an event's publication to the call of a service.

The supervisor is a process of its own, as a user starts it. This one is what is around it: a monitor that
begins episodes and publishes events, and the service that resets the scene, in an executor's thread; the time
is taken before an event is published and when the service is entered. The second part disturbs: events come
twice, out of order, late, from a bag; the monitor and the supervisor (SIGKILL, with a state file) are started
anew. Every episode must be followed by one reset, but those that the supervisor reports as not known.

    .venv/bin/python bench/supervisor.py                          # both, some minutes
    .venv/bin/python bench/supervisor.py --episodes 1000 --stream 300 --json supervisor.json
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rich.console import Console
from rich.table import Table
from std_srvs.srv import Trigger
from topreward_ros.msg import SupervisorState, TaskEvent, TaskProgress
from topreward_ros.srv import SetTask

from options import add_files, parser
from output import write_json
from playing import TASK, machine_around
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.nodes import qos
from topreward_ros.nodes.demo import Child, free_domain, stop
from topreward_ros.views.bench import machine_line

LONGEST_S = 60.0  # for an episode, which may have to wait for a process that starts
PARAMETERS = {
    "dry_run": False,
    "tasks": [TASK],
    "act_on_uncalibrated": True,
    "reset_calls": ["service /reset timeout 5 else go_on"],
    "on.SUCCESS": "reset",
    "on.FAILURE": "retry 100000",
    "on.MONITOR_RESTARTED": "retry 100000",
    "on.MONITOR_VANISHED": "retry 100000",
    "on.SUPERVISOR_RESTARTED": "retry 100000",
    "monitor_timeout": 4.0,
}


class Around:
    """A monitor and a scene. Its executor has a thread of its own."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node("around", context=self.context)
        self.begun: list[str] = []  # episodes
        self.resets: Counter[int] = Counter()  # by the number of the episode before
        self.entered_ns: dict[int, int] = {}  # when the service was, by the same
        self.states: list[SupervisorState] = []
        self.followed: set[str] = set()  # episodes that the supervisor watched
        self.outcomes: dict[str, str] = {}  # what the supervisor says of its calls, by episode
        self.sequence = 0
        self.episode, self.ended = "", False
        self._open_monitor()
        self.node.create_service(SetTask, "monitor/set_task", self._on_set_task)
        self.node.create_service(Trigger, "/reset", self._on_reset)
        self.node.create_subscription(SupervisorState, "supervisor/state", self._on_state, qos.latched())
        self.node.create_timer(0.5, self._report)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _open_monitor(self) -> None:
        self.events = self.node.create_publisher(TaskEvent, "task_event", qos.events())
        self.reports = self.node.create_publisher(TaskProgress, "task_progress", qos.progress())

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self.executor.spin()

    def close(self) -> None:
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)
        self.thread.join()

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        self.episode, self.ended = request.episode_id, False
        response.success, response.episode_id = True, request.episode_id
        if request.instruction:
            self.begun.append(request.episode_id)
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        number = len(self.begun)
        self.entered_ns.setdefault(number, time.monotonic_ns())
        self.resets[number] += 1
        response.success = True
        return response

    def _on_state(self, message: SupervisorState) -> None:
        self.states.append(message)
        if message.state == SupervisorState.WATCHING:
            self.followed.add(message.episode_id)
        for decision in message.history:
            self.outcomes[decision.episode_id] = decision.outcome

    def _report(self) -> None:
        running = TaskProgress.SUCCEEDED if self.ended else TaskProgress.RUNNING
        state = running if self.episode else TaskProgress.IDLE
        self.reports.publish(TaskProgress(episode_id=self.episode, state=state))

    def event(self, kind: int) -> TaskEvent:
        """The next event of the episode at hand."""
        self.sequence += 1
        return TaskEvent(sequence=self.sequence, episode_id=self.episode, type=kind)

    def restart_monitor(self) -> None:
        """Another process would have other publishers, no episode, and numbers from one."""
        self.node.destroy_publisher(self.events)
        self.node.destroy_publisher(self.reports)
        self.sequence, self.episode, self.ended = 0, "", False
        self._open_monitor()

    def has_begun(self, number: int) -> bool:
        """Whether the ``number``-th episode was begun."""
        return len(self.begun) >= number

    def watched(self, number: int) -> bool:
        """Whether the supervisor watches the newest episode, the ``number``-th or a later one."""
        if not (self.states and self.begun) or len(self.begun) < number:
            return False
        newest = self.states[-1]
        is_newest = newest.episode_id == self.begun[-1] == self.episode
        return bool(newest.state == SupervisorState.WATCHING and is_newest)


def wait_for(done: Callable[[], bool], what: str, child: Child) -> None:
    end = time.monotonic() + LONGEST_S
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {LONGEST_S:g} s\n{child.last_lines()}")
        time.sleep(0.002)


@contextmanager
def around() -> Iterator[tuple[Around, Path]]:
    os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with temporary_folder("topreward-bench-") as folder:
        world = Around()
        try:
            yield world, folder
        finally:
            world.close()


def latencies(episodes: int, *, with_file: bool) -> list[float]:
    """From publication to the entry of the service [ms], of so many episodes."""
    with around() as (world, folder):
        file = {"state_file": str(folder / "state.json")} if with_file else {}
        child = Child("supervisor", PARAMETERS | file, folder, os.environ)
        try:
            times = []
            for number in range(1, episodes + 1):
                wait_for(partial(world.watched, number), f"episode {number} is watched", child)
                time.sleep(0.02)
                published_ns = time.monotonic_ns()
                world.events.publish(world.event(TaskEvent.SUCCESS))
                world.events.publish(world.event(TaskEvent.EPISODE_ENDED))
                wait_for(partial(world.entered_ns.__contains__, number), f"reset {number}", child)
                times.append((world.entered_ns[number] - published_ns) / 1e6)
            return times
        finally:
            stop([child])


def stream(episodes: int, seed: int) -> dict[str, int]:
    """Disturb so many episodes; what came of their resets."""
    random = Random(seed)
    counts: Counter[str] = Counter()
    with around() as (world, folder):
        parameters = PARAMETERS | {"state_file": str(folder / "state.json")}
        child = Child("supervisor", parameters, folder, os.environ)
        past: list[TaskEvent] = []
        try:
            while len(world.begun) <= episodes:
                wait_for(lambda: world.watched(len(world.begun)), "an episode is watched", child)
                number = len(world.begun)
                luck = random.random()
                if luck < 0.04:
                    counts["restarts of the monitor"] += 1
                    world.restart_monitor()
                    wait_for(partial(world.has_begun, number + 1), "the next episode", child)
                    continue
                if luck < 0.08:
                    counts["restarts of the supervisor"] += 1
                    child = restart(child, parameters, folder)
                    wait_for(lambda: bool(world.states), "the supervisor is back", child)
                    continue
                events = [
                    *[world.event(TaskEvent.STALL) for _ in range(random.randrange(3))],
                    world.event(random.choice([TaskEvent.SUCCESS, TaskEvent.FAILURE])),
                    world.event(TaskEvent.EPISODE_ENDED),
                ]
                foreign = TaskEvent(
                    sequence=random.randrange(1, 99), episode_id="bag", type=TaskEvent.SUCCESS
                )
                sent = [*events, *random.sample(past, min(3, len(past))), foreign]
                if random.random() < 0.3:
                    random.shuffle(sent)
                    counts["streams out of order"] += 1
                sent += [event for event in events if random.random() < 0.3]
                counts["events"] += len(sent)
                world.ended = True
                for event in sent:
                    world.events.publish(event)
                if luck > 0.96:
                    counts["restarts of the supervisor within 20 ms of an event"] += 1
                    time.sleep(random.uniform(0.0, 0.02))
                    child = restart(child, parameters, folder)
                past = [*past, *events][-200:]
                wait_for(partial(world.has_begun, number + 1), "the next episode", child)
            wait_for(lambda: world.watched(len(world.begun)), "the last episode is watched", child)
        finally:
            stop([child])
        for number, episode in enumerate(world.begun[:-1], start=1):
            resets = world.resets[number]
            if resets == 1:
                counts["one reset"] += 1
            elif resets > 1:
                counts["reset twice"] += 1
            elif "not known" in world.outcomes.get(episode, ""):
                counts["no reset, as reported"] += 1
            elif episode not in world.followed:
                counts["begun as the supervisor was killed, and begun again"] += 1
            else:
                counts["no reset, not reported"] += 1
    return dict(counts)


def restart(child: Child, parameters: dict[str, Any], folder: Path) -> Child:
    """Kill a supervisor and start the next one with the same file."""
    os.kill(child.pid, signal.SIGKILL)
    child.wait_or_kill(time.monotonic() + 10.0)
    return Child("supervisor", parameters, folder, os.environ)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--episodes", type=int, default=300, help="to take the time of (%(default)s)")
    command.add_argument("--stream", type=int, default=100, help="episodes to disturb; 0: none (%(default)s)")
    command.add_argument("--seed", type=int, default=1)
    add_files(command, plot=False)
    options = command.parse_args()
    machine = machine_around()
    table = Table(title="from event to service", caption=machine_line(machine))
    for name in ("state file", "episodes", "p50 [ms]", "p95", "p99", "longest"):
        table.add_column(name, justify="right")
    rows = {}
    for with_file in (False, True):
        times = latencies(options.episodes, with_file=with_file)
        rows["with a state file" if with_file else "without"] = times
        shown = [f"{value:.1f}" for value in (*np.quantile(times, (0.5, 0.95, 0.99)), max(times))]
        table.add_row("yes" if with_file else "no", str(len(times)), *shown)
    Console().print(table)
    counts = stream(options.stream, options.seed) if options.stream else {}
    for name, count in sorted(counts.items()):
        Console().print(f"{name}: {count}")
    write_json(options.json, json.loads(json.dumps({"machine": machine, "ms": rows, "stream": counts})))


if __name__ == "__main__":
    main()
