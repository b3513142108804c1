"""A monitor for a long time while everything goes wrong: does it tell the truth, and is its memory flat?

A video player and a monitor run in processes of their own. Between them, this process passes on the images,
with faults: unreadable and cut messages, random bytes, wrong stamps, a clock that is set, another shape,
silence. It sets tasks, resets, disables; stops both processes for a while (SIGSTOP), ends and kills them.
Everything that the monitor publishes is held against bench/invariants.py. The monitor is only killed in the
first part of the time, so that one process is measured over the rest.

    .venv/bin/python bench/soak.py                                # a minute, as in .ci/run
    .venv/bin/python bench/soak.py --seconds 3600 --plot soak.png --json soak.json

The exit status is 1 where an invariant was broken, or where memory grew by more than ``--growth`` and enough
was measured to say so. ``--seed`` repeats a run as far as its plan goes; processes and DDS have no seed.
"""

from __future__ import annotations

import math
import os
import random
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from topreward_ros.msg import MonitorInfo, TaskEvent, TaskProgress, TaskReward
from topreward_ros.srv import SetTask

from invariants import Invariants
from options import add_files, parser
from output import BLUE, GREY, RED, YELLOW, legend_above, new_axes, write_json
from playing import machine_around
from process_memory import memory_mib, status_of
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, large_image_environment, shared_file
from topreward_ros.nodes import qos
from topreward_ros.nodes.demo import Child, free_domain, stop
from topreward_ros.views.bench import machine_line
from topreward_ros.views.picture import write_picture

STALE_TIMEOUT = 2.0
PARAMETERS = {
    "task": DEMO_TASK,
    "image_topics": ["camera"],  # the player's images, with faults
    "sample_rate": 10.0,
    "stale_timeout": STALE_TIMEOUT,
    "episode_timeout": 60.0,
    "heartbeat_rate": 5.0,
    "success_dwell": 0.5,
}
TASKS = (
    *(DEMO_TASK, DEMO_TASK, DEMO_TASK, "close the drawer", "push the red button"),
    f"{DEMO_TASK}\nclose the drawer",  # in stages
)
PAUSE_S = (1.0, 4.0)  # between two faults
_LOG_SHOWN = 12_000  # characters
KILLING_S, KILLING_SHARE = 30.0, 0.2  # the monitor is killed for so long, or in this share of the time
WARM_UP_S = 120.0  # of a process, before its memory is judged
SHORTEST_MEASURED_S = 1200.0  # below that, growth is noise
MIB = 2.0**20


@dataclass(frozen=True, slots=True)
class Sample:
    """What the monitor holds at one time."""

    seconds: float  #: since the begin of the run
    life: int
    rss_mib: float
    private_mib: float  #: of that, what is not of files or shared (RssAnon)
    threads: int
    files: int  #: open file descriptors
    shared_mib: float  #: /dev/shm in use on this machine, whoever holds it


def sample_of(pid: int, seconds: float, life: int) -> Sample:
    status = status_of(pid)
    shared = os.statvfs("/dev/shm")
    return Sample(
        seconds=round(seconds, 1),
        life=life,
        rss_mib=memory_mib(status, "VmRSS"),
        private_mib=memory_mib(status, "RssAnon"),
        threads=int(status["Threads"]),
        files=len(os.listdir(f"/proc/{pid}/fd")),
        shared_mib=(shared.f_blocks - shared.f_bfree) * shared.f_frsize / MIB,
    )


class Camera:
    """Passes on the player's images, serialised, with the fault that is in force."""

    def __init__(self, node: Node, judge: Invariants, dice: random.Random) -> None:
        self.fault = ""  #: of the images: a name of `FAULTS`; empty: none
        self.until = 0.0
        self.offset_ns = 0  #: by which the camera's clock was set
        self._newest_ns: deque[int] = deque(maxlen=3)  # stamps; so many are too few to tell who is wrong
        self._judge, self._dice = judge, dice
        self._publisher = node.create_publisher(Image, "camera", qos.image_source())
        node.create_subscription(Image, "image", self._pass_on, qos.images(), raw=True)

    def set_clock(self, by_ns: int) -> None:
        """Set the camera's clock. An episode that has just begun may take its first stamps for wrong ones."""
        self.offset_ns += by_ns
        self._judge.false_stamps.update(self._newest_ns)

    def _pass_on(self, raw: bytes) -> None:
        now = time.monotonic()
        if now > self.until:
            self.fault = ""
        if self.fault == "silence":
            return
        image = bytearray(raw)
        set_stamp(image, stamp_of(image) + self.offset_ns)
        usable = not self.fault
        if self.fault:
            FAULTS[self.fault](image, self._dice)
            if len(image) >= 12 and stamp_of(image) != stamp_of(raw) + self.offset_ns:
                self._judge.false_stamps.add(stamp_of(image))
                if stamp_of(image) == 0:  # the first one of an episode gets the time of its arrival
                    self._judge.unstamped_ns.append(time.time_ns())
        else:
            self._newest_ns.append(stamp_of(image))
        self._publisher.publish(bytes(image))
        self._judge.shown(now, usable, may_be_usable=self.fault in MAY_BE_USABLE)


def stamp_of(image: bytes | bytearray) -> int:
    """header.stamp of a serialised image [ns]; images of this machine are little endian."""
    seconds, nanoseconds = struct.unpack_from("<iI", image, 4)
    return int(seconds) * NS_PER_S + int(nanoseconds)


def set_stamp(image: bytearray, stamp_ns: int) -> None:
    struct.pack_into("<iI", image, 4, *divmod(stamp_ns, NS_PER_S))


def _unreadable(image: bytearray, dice: random.Random) -> None:
    image[:] = image.replace(b"rgb8\0", b"xyz8\0", 1)


def _cut(image: bytearray, dice: random.Random) -> None:
    del image[dice.randrange(4, len(image)) :]


def _random_bytes(image: bytearray, dice: random.Random) -> None:
    """Anywhere behind the stamp: lengths, sizes, texts, pixels."""
    for _ in range(dice.randrange(1, 8)):
        image[dice.randrange(12, dice.choice([80, len(image)]))] = dice.randrange(256)


def _false_stamp(image: bytearray, dice: random.Random) -> None:
    """Half of them, so that good ones stand between most."""
    if dice.random() < 0.5:
        wrong_ns = dice.choice(
            [0, 1, stamp_of(image) - 3600 * NS_PER_S, stamp_of(image) + dice.randrange(10**13)]
        )
        set_stamp(image, max(0, wrong_ns))


def _standing_stamp(image: bytearray, dice: random.Random) -> None:
    set_stamp(image, stamp_of(image) // (10 * NS_PER_S) * 10 * NS_PER_S)


def _other_shape(image: bytearray, dice: random.Random) -> None:
    message = deserialize_message(bytes(image), Image)
    if dice.random() < 0.5:
        message.width, message.height = message.height, message.width
        message.step = 3 * message.width
    image[:] = serialize_message(message)


FAULTS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "unreadable": _unreadable,
    "cut": _cut,
    "random bytes": _random_bytes,
    "false stamps": _false_stamp,
    "standing stamp": _standing_stamp,
    "another shape": _other_shape,
}
MAY_BE_USABLE = {"random bytes", "false stamps", "standing stamp", "another shape"}


class Soak:
    """One run. Everything happens in the thread that calls `run`; use it as a context manager."""

    def __init__(self, seconds: float, seed: int, folder: Path) -> None:
        self.seconds = seconds
        self.samples: list[Sample] = []
        self.done: dict[str, int] = {}  #: what was done to the monitor and its camera, and how often
        self.judge = Invariants(STALE_TIMEOUT)
        self.life = 0  #: of the monitor
        self._dice = random.Random(seed)
        self._folder = folder
        self._began = time.monotonic()
        self._infos: list[MonitorInfo] = []
        self._numbers = iter(range(10**9))
        self._hung_until: dict[Child, float] = {}  # stopped by SIGSTOP

    def __enter__(self) -> Soak:
        os.environ |= {"ROS_DOMAIN_ID": str(free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        os.environ |= large_image_environment(os.environ)
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("soak", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        for kind, topic, profile, take in (
            (TaskEvent, "task_event", qos.events(), self.judge.event),
            (TaskReward, "task_reward", qos.progress(), self.judge.reward),
            (TaskProgress, "task_progress", qos.progress(), self._on_progress),
            (MonitorInfo, "monitor/info", qos.latched(), self._infos.append),
        ):
            self._node.create_subscription(kind, topic, take, profile)
        self.camera = Camera(self._node, self.judge, self._dice)
        self._task = self._node.create_publisher(String, "task_instruction", qos.instruction_volatile())
        self._clients = {
            name: self._node.create_client(kind, f"monitor/{name}")
            for name, kind in (("set_task", SetTask), ("reset", Trigger), ("enable", SetBool))
        }
        self._start_monitor()
        self._start_player()
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._hung_until:
            os.kill(child.pid, signal.SIGCONT)
        stop([self._player, self._monitor])
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def run(self, tell: Callable[[str], None]) -> None:
        """Let it go wrong for `seconds`, then end the monitor in order, in the middle of an episode.

        ``tell`` is called with every invariant that is broken, as it is seen.
        """
        self.judge.tell = tell
        begun = time.monotonic()
        killing_until = begun + max(KILLING_S, KILLING_SHARE * self.seconds)
        next_fault = next_sample = begun + 3.0
        deck: list[tuple[str, Callable[[], None]]] = []  # every deed once, before any is done again
        while (now := time.monotonic()) < begun + self.seconds:
            self._spin(0.02)
            self._go_on()
            if not self._hung_until:
                self.judge.look(now)
            if now >= next_sample:
                next_sample = now + 2.0
                self.samples.append(sample_of(self._monitor.pid, now - self._began, self.life))
            if now >= next_fault:
                if not deck:
                    deck = self._deeds(may_kill=now < killing_until)
                name, deed = deck.pop()
                self.done[name] = self.done.get(name, 0) + 1
                deed()
                next_fault = time.monotonic() + self._dice.uniform(*PAUSE_S)
            self._check_children()
        self._go_on(all_of_them=True)
        self.camera.fault = ""
        self._call("set_task", instruction=DEMO_TASK)
        self._wait_for(lambda: bool(self.judge.open_episodes()), "an episode begins")
        self._monitor.ask_to_stop()
        self._wait_for(lambda: self._monitor.status() is not None, "the monitor ends")
        self._spin(1.0)
        if self._monitor.status() != 0:
            self.judge.say(f"the monitor ended with status {self._monitor.status()}")
        self.judge.finish()

    # ---- what goes wrong --------------------------------------------------------------------------

    def _deeds(self, *, may_kill: bool) -> list[tuple[str, Callable[[], None]]]:
        """What can be done, in a random order, the last one first."""
        deeds: list[tuple[str, Callable[[], None]]] = [
            ("reset", lambda: self._call("reset")),
            ("task by service", lambda: self._set_task(DEMO_TASK, "")),
            ("task with a name", lambda: self._set_task(DEMO_TASK, f"soak-{next(self._numbers)}")),
            ("task by topic", lambda: self._say(self._dice.choice(TASKS))),
            ("disabled", self._disable),
            ("clock of the camera set", self._set_clock),
            ("silence", lambda: self._begin_fault("silence")),
            ("player killed", self._kill_player),
            ("player stopped for a while", lambda: self._hang(self._player)),
            ("monitor stopped for a while", lambda: self._hang(self._monitor)),
            *((f"images: {name}", lambda name=name: self._begin_fault(name)) for name in FAULTS),
        ]
        self._dice.shuffle(deeds)
        if may_kill:
            deeds += [("monitor killed", self._kill_monitor), ("monitor ended", self._end_monitor)]
        return deeds

    def _set_task(self, instruction: str, episode_id: str) -> None:
        self._call("set_task", instruction=instruction, episode_id=episode_id)

    def _say(self, instruction: str) -> None:
        self.judge.held(time.monotonic())
        self._task.publish(String(data=instruction))

    def _disable(self) -> None:
        self._call("enable", data=False)
        self._spin(self._dice.uniform(0.1, 1.0))
        self._call("enable", data=True)

    def _set_clock(self) -> None:
        self.camera.set_clock(round(self._dice.choice([-20.0, -5.0, -1.0, 1.0, 5.0, 20.0]) * NS_PER_S))

    def _begin_fault(self, name: str) -> None:
        self.camera.fault = name
        self.camera.until = time.monotonic() + self._dice.uniform(0.2, 3 * STALE_TIMEOUT)

    def _hang(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGSTOP)
        self._hung_until[child] = time.monotonic() + self._dice.uniform(0.1, 2 * STALE_TIMEOUT)

    def _go_on(self, *, all_of_them: bool = False) -> None:
        """Let processes run again whose time is over."""
        for child, until in list(self._hung_until.items()):
            if all_of_them or time.monotonic() >= until:
                del self._hung_until[child]
                os.kill(child.pid, signal.SIGCONT)
                self.judge.held(time.monotonic())

    def _kill(self, child: Child) -> None:
        self._go_on(all_of_them=True)
        os.kill(child.pid, signal.SIGKILL)
        child.wait_or_kill(time.monotonic() + 5.0)

    def _kill_player(self) -> None:
        self._kill(self._player)
        self._start_player()

    def _kill_monitor(self) -> None:
        self._kill(self._monitor)
        self._spin(0.5)  # what it said before
        self._start_monitor()

    def _end_monitor(self) -> None:
        self._go_on(all_of_them=True)
        self._monitor.ask_to_stop()
        self._wait_for(lambda: self._monitor.status() is not None, "the monitor ends")
        self._spin(0.5)
        self.judge.finish()
        self._start_monitor()

    # ---- processes ----------------------------------------------------------------------------------

    def _start_monitor(self) -> None:
        self.life += 1
        self._infos.clear()
        self.judge.new_life(time.monotonic())
        self._monitor = self._start("monitor", PARAMETERS)
        self._wait_for(lambda: bool(self._infos), "the monitor watches")
        self.judge.held(time.monotonic())

    def _start_player(self) -> None:
        self._player = self._start("video_player", {"video": str(shared_file(DEMO_VIDEO)), "loop": True})

    def _start(self, name: str, parameters: dict[str, Any]) -> Child:
        folder = self._folder / f"{next(self._numbers)}"
        folder.mkdir()
        return Child(name, parameters, folder, os.environ | {"PYTHONFAULTHANDLER": "1"})

    def _check_children(self) -> None:
        for child in (self._monitor, self._player):
            if child.status() is not None:
                raise SystemExit(f"the {child.name} ended with {child.status()}:\n{child.last_lines()}")

    # ---- DDS ------------------------------------------------------------------------------------------

    def _on_progress(self, message: TaskProgress) -> None:
        self.judge.progress(message, time.monotonic())

    def _call(self, name: str, **request: Any) -> None:
        """Call a service of the monitor and wait for its answer."""
        self._go_on(all_of_them=True)
        client = self._clients[name]
        self._wait_for(client.service_is_ready, f"{name} is there")
        answer = client.call_async(client.srv_type.Request(**request))
        self._wait_for(answer.done, f"{name} answers")
        self.judge.held(time.monotonic())

    def _wait_for(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 60.0
        while not done():
            if time.monotonic() > end or (self._monitor.status() and "ends" not in what):
                raise SystemExit(f"waited until {what}:\n{self._where_the_monitor_is()}")
            self._spin(0.02)

    def _where_the_monitor_is(self) -> str:
        """The end of its log, with what its threads were doing; it has ended then."""
        if self._monitor.status() is None:
            os.kill(self._monitor.pid, signal.SIGABRT)  # Python writes the stacks of all threads
            self._monitor.wait_or_kill(time.monotonic() + 5.0)
        return self._monitor.log.read_text(encoding="utf-8", errors="replace")[-_LOG_SHOWN:]

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


def growth_of(samples: Sequence[Sample]) -> tuple[float, float]:
    """How fast the memory of the last monitor grew after its warm-up [MiB/h], and over how long [s]."""
    last = [sample for sample in samples if sample.life == samples[-1].life]
    judged = [sample for sample in last if sample.seconds >= last[0].seconds + WARM_UP_S]
    if len(judged) < 2:
        return math.nan, 0.0
    slope, _ = np.polyfit([s.seconds for s in judged], [s.rss_mib for s in judged], 1)
    return float(slope) * 3600.0, judged[-1].seconds - judged[0].seconds


def table_of(soak: Soak, seed: int, machine: dict[str, Any]) -> Table:
    """What was done, what came, what the monitor held at the begin and at the end."""
    growth, over_s = growth_of(soak.samples)
    judge, samples = soak.judge, soak.samples
    last = [sample for sample in samples if sample.life == soak.life]
    table = Table(title=f"soak of {soak.seconds:g} s, seed {seed}", caption=machine_line(machine))
    table.add_column("what", no_wrap=True)
    table.add_column("how much", justify="right")
    for name, number in sorted(soak.done.items()):
        table.add_row(name, str(number))
    table.add_section()
    for kind, number in sorted(judge.by_type.items()):
        table.add_row(EventType(kind).name, str(number))
    table.add_row("scores, with heartbeats", str(judge.scores))
    table.add_row("rewards", str(judge.rewards))
    table.add_row("monitors", str(soak.life))
    table.add_section()
    for title, values in (
        ("RSS [MiB]", [sample.rss_mib for sample in last]),
        ("of that private [MiB]", [sample.private_mib for sample in last]),
        ("threads", [sample.threads for sample in last]),
        ("open files", [sample.files for sample in last]),
        ("/dev/shm of the machine [MiB]", [sample.shared_mib for sample in last]),
    ):
        table.add_row(f"{title}: first, last, most", f"{values[0]:.0f}, {values[-1]:.0f}, {max(values):.0f}")
    rate = "too short to tell" if math.isnan(growth) else f"{growth:+.2f} MiB/h over {over_s / 60:.0f} min"
    table.add_row("growth of RSS after warm-up", rate)
    table.add_row("[bold]invariants broken[/]", f"[bold]{len(judge.broken)}[/]")
    return table


def plot(soak: Soak, machine: dict[str, Any], picture: Path) -> None:
    """Plot RSS, private memory and counts of the monitor over time; lines show where it was started again."""
    figure, axes = new_axes(10, 4.6, grid="y")
    minutes = [sample.seconds / 60 for sample in soak.samples]
    for label, colour, values in (
        ("RSS [MiB]", BLUE, [s.rss_mib for s in soak.samples]),
        ("of that private [MiB]", YELLOW, [s.private_mib for s in soak.samples]),
        ("threads", GREY, [s.threads for s in soak.samples]),
        ("open files", RED, [s.files for s in soak.samples]),
    ):
        axes.plot(minutes, values, color=colour, linewidth=1.2, label=label)
    for before, sample in pairwise(soak.samples):
        if sample.life != before.life:
            axes.axvline(sample.seconds / 60, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time [min]; dashed: the monitor was killed or ended, and started again")
    axes.set_title(f"A monitor that is disturbed\n{machine_line(machine)}", fontsize=9, loc="left")
    legend_above(axes)
    write_picture(figure, picture)


def main() -> int:
    command = parser(__doc__)
    command.add_argument("--seconds", type=float, default=60.0, help="(%(default)s)")
    command.add_argument("--seed", type=int, help="of the plan; default: drawn, and printed")
    command.add_argument("--growth", type=float, default=1.0, metavar="MIB", help="per hour (%(default)s)")
    add_files(command)
    options = command.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    console = Console()
    console.print(f"soak of {options.seconds:g} s: --seed {seed}")
    machine = machine_around()
    with temporary_folder("topreward-bench-") as folder, Soak(options.seconds, seed, folder) as soak:
        soak.run(lambda sentence: console.print(f"broken: {sentence}", markup=False, highlight=False))
    growth, over_s = growth_of(soak.samples)
    console.print(table_of(soak, seed, machine))
    content = {
        "machine": machine,
        "seed": seed,
        "seconds": options.seconds,
        "done": soak.done,
        "events": {EventType(kind).name: number for kind, number in soak.judge.by_type.items()},
        "broken": soak.judge.broken,
        "growth_mib_per_hour": None if math.isnan(growth) else growth,
        "samples": [asdict(sample) for sample in soak.samples],
    }
    write_json(options.json, content)
    if options.plot:
        plot(soak, machine, options.plot)
    grew = over_s >= SHORTEST_MEASURED_S and growth > options.growth
    if grew:
        console.print(f"memory grew by {growth:.2f} MiB/h, more than {options.growth:g}")
    return 1 if soak.judge.broken or grew else 0


if __name__ == "__main__":
    sys.exit(main())
