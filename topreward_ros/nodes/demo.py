"""What `topreward demo` does: it starts a video player and a monitor as processes, and watches the monitor.

The three talk over DDS on this machine only, in a ROS domain of their own unless ROS_DOMAIN_ID is set. One
monitor watches all videos; each has a player, which makes the monitor begin a new episode. A video is over
when its player has ended and the score of the last due frame has come. Nothing here knows how frames are
scored; the processes are the same nodes that run on a robot.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import topreward_ros.nodes.watch as watch
from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import temporary_folder, write_file
from topreward_ros.defaults import (
    DEMO_CLIPS,
    DEMO_TASK,
    DEMO_VIDEO,
    DemoClip,
    large_image_environment,
    monitor_defaults,
    shared_file,
)
from topreward_ros.nodes.end_signals import stop_signals
from topreward_ros.offline.score_video import due_times
from topreward_ros.views.demo import LAST_SCORE_S, Take, summary, takes_table
from topreward_ros.views.terminal import output_console
from topreward_ros.views.watch import WatchLog

_DOMAINS = range(1, 102)  # their ports lie below those that Linux gives to clients
_MOST_PARTICIPANTS = 32  # Fast DDS looks for so many on a machine
_WAIT_FOR_MONITOR_S = 3600.0  # the player waits so long; that the monitor has died is noticed here
_STOP_S = 2.5  # for a child to end after SIGTERM, before it is killed
_FOLDER = "topreward-demo-"  # the beginning of its name
_LOG_LINES = 15  # so many are shown of a child that failed


class DemoError(UserError):
    """The demonstration failed."""

    def __init__(self, text: str, lines: Sequence[str] = ()) -> None:
        """``lines``: of the output of a child, to be shown below the text."""
        super().__init__(text)
        self.lines = tuple(lines)


class Child:
    """A node as a process of its own, with its output in a file.

    On Linux it does not outlive the thread that made it, however that ends.
    """

    def __init__(
        self, name: str, parameters: Mapping[str, object], folder: Path, environ: Mapping[str, str]
    ) -> None:
        """Start ``topreward_ros.nodes.<name>`` with ``parameters``; ``folder`` takes its files.

        ``environ`` is completed such that it runs the code that we run, with room for camera images.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        params_file = folder / f"{name}.yaml"
        write_file(params_file, _parameter_file(parameters))
        module = f"topreward_ros.nodes.{name}"
        # The child gets SIGTERM when we are killed (setpriv is part of util-linux). The shell checks that we
        # did not die before that was set up.
        still_ours = ["sh", "-c", f'test $PPID -eq {os.getpid()} && exec "$@"', name]
        bound = ["setpriv", "--pdeathsig", "TERM", *still_ours] if shutil.which("setpriv") else []
        command = [*bound, sys.executable, "-m", module, "--ros-args", "--params-file", str(params_file)]
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C is for the demonstration, which then ends its children in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_child_environment(environ),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM, unless it has ended."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, until_s: float) -> None:
        """Wait until ``until_s`` of the monotonic clock, then kill it."""
        try:
            self._process.wait(max(until_s - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_lines(self) -> list[str]:
        """The end of its output."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]


def run(video: str | None, task: str | None, monitor: Mapping[str, Any], svg: Path | None) -> int:
    """Run the demonstration to its end and return the exit status. Raises `UserError`.

    Without ``video`` and ``task`` it plays `DEMO_CLIPS`; with a task alone, the one where the robot succeeds.
    ``monitor``: all its parameters; `task` does not count. ``svg``: where to save the last view of the first
    video.
    """
    shipped = not video and not task
    rate, model = monitor["sample_rate"], monitor["model"]
    videos = (
        [_Video(shared_file(clip.video), rate, clip) for clip in DEMO_CLIPS]
        if shipped
        else [_Video.of(video, rate)]
    )
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    shared = bool(os.environ.get("ROS_DOMAIN_ID"))  # empty is as not set, also for ROS 2
    if not shared:
        os.environ["ROS_DOMAIN_ID"] = str(free_domain())
    takes: list[Take] = []
    with stop_signals() as signals, watch.Watcher("task_progress", [sys.argv[0]]) as watcher:
        if shared:
            _refuse_other_publishers(watcher, lambda: bool(signals))
        watcher.log.title = f"topreward demo (ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']})"
        waiting = f"starting the monitor with model {model} ..."
        children: list[Child] = []
        # What the children said is kept where one failed, until the next demonstration.
        with temporary_folder(_FOLDER, keep_on_error=True) as folder:
            try:
                usual = monitor_defaults()
                changed = {name: value for name, value in monitor.items() if value != usual[name]}
                parameters = changed | {"task": task or DEMO_TASK, "model": model}
                children.append(Child("monitor", parameters, folder, os.environ))
                for number, played in enumerate(videos, start=1):
                    place = f"{number} of {len(videos)}: " if shipped else ""
                    watcher.log = watcher.log.successor(place + played.caption, waiting)
                    take = _play(played, watcher, children, folder, lambda: bool(signals))
                    if signals:
                        break
                    takes.append(take)
                    waiting = "starting the next video ..."
            finally:
                stop(children)
        if signals:
            print(f"topreward: stopped by {signal.Signals(signals[0]).name}", file=sys.stderr)
            return 128 + signals[0]
    if svg is not None:
        watch.save_svg(takes[0].log, svg, f"topreward demo: {videos[0].path.name}, model {model}")
    if shipped:
        output_console().print(takes_table(takes))
    else:
        output_console().print(summary(takes[0]), markup=False, soft_wrap=True)
    return 0


class _Video:
    """A video to be played. Raises `VideoError` for one that cannot be read."""

    def __init__(self, path: Path, rate: float, clip: DemoClip | None = None) -> None:
        """``rate`` [Hz]: of the monitor's samples."""
        self.path, self.clip = path, clip
        self.caption = clip.caption if clip else ""
        self.due_s = due_times(path, rate)

    @classmethod
    def of(cls, video: str | None, rate: float) -> _Video:
        """The user's, or the shipped one in which the robot does its task."""
        return cls(Path(video).expanduser().absolute() if video else shared_file(DEMO_VIDEO), rate)


def _play(
    video: _Video, watcher: watch.Watcher, children: list[Child], folder: Path, stopped: Callable[[], bool]
) -> Take:
    """Play ``video`` to the monitor, which is the first of ``children``, and show it. Raises `DemoError`."""
    log, monitor = watcher.log, children[0]
    with watch.Screen(log) as screen:
        if log.caption:
            screen.line(log.caption)
        end = _End(log, monitor, video.due_s[-1] - video.due_s[0])
        over = False

        def is_over() -> bool:
            nonlocal over
            over = over or stopped() or end.reached()
            return over

        # What a monitor publishes before it knows our subscriptions is lost: the first event would be.
        watcher.follow(screen, done=lambda: is_over() or watcher.is_known(), advise=False)
        if not over:
            end.player = _player(video, folder)
            children.append(end.player)
            watcher.follow(screen, done=is_over, advise=False)
    if end.dead is not None:
        raise DemoError(
            f"the {end.dead.name} ended with status {end.dead_status}; its last lines "
            f"(all of {end.dead.log}):",
            end.dead.last_lines(),
        )
    if not log.score_count and not stopped():
        raise DemoError(f"no score came; see {monitor.log}, which ends with", monitor.last_lines())
    return Take(log, len(video.due_s), end.gave_up, video.clip)


def _player(video: _Video, folder: Path) -> Child:
    """Start the player of ``video``, which makes the monitor begin a new episode."""
    parameters = {
        "video": str(video.path),
        "wait_for_subscriber": _WAIT_FOR_MONITOR_S,
        "reset_service": "monitor/reset",
    }
    return Child("video_player", parameters, folder, os.environ)


def _refuse_other_publishers(watcher: watch.Watcher, stopped: Callable[[], bool]) -> None:
    """Raise `DemoError` when somebody publishes on our topics: scores or frames would be mixed."""
    topics = ["task_progress", *monitor_defaults()["image_topics"]]
    others = _participants(int(os.environ["ROS_DOMAIN_ID"])) - 1  # without the watcher itself
    for topic, names in watcher.discover(topics, others, stopped).items():
        raise DemoError(
            f"{', '.join(names)} already publishes {topic} in ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}; "
            "end it, or have a free domain drawn: ROS_DOMAIN_ID= topreward demo"
        )


class _End:
    """Notices the end of a video: the last score has come, or a child has died."""

    def __init__(self, log: WatchLog, monitor: Child, last_elapsed_s: float) -> None:
        self.dead: Child | None = None
        self.dead_status = 0
        self.gave_up = False  # the last score did not come in time
        self._log = log
        self._monitor = monitor
        self.player: Child | None = None  # once it was started
        self._last_elapsed_s = last_elapsed_s  # of the last frame, since the first one that is taken
        self._quiet_since_s = 0.0
        self._scores_then = -1

    def reached(self) -> bool:
        """Whether nothing more will come."""
        for child in (self._monitor, self.player):
            status = child.status() if child else None
            if child and status is not None and (status != 0 or child is self._monitor):
                self.dead, self.dead_status = child, status
                return True
        if self.player is None or self.player.status() is None:
            return False
        if self._scores_then != self._log.score_count:
            self._scores_then, self._quiet_since_s = self._log.score_count, time.monotonic()
        self.gave_up = time.monotonic() - self._quiet_since_s > LAST_SCORE_S
        return self._last_score_came() or self.gave_up

    def _last_score_came(self) -> bool:
        scores, events = self._log.scores, self._log.events
        ended = bool(events) and events[-1].type == "EPISODE_ENDED"
        return ended or (bool(scores) and scores[-1].elapsed_s >= self._last_elapsed_s - 1e-3)


def free_domain() -> int:
    """A ROS domain that no process of this machine uses, drawn at random."""
    domains = secrets.SystemRandom().sample(_DOMAINS, len(_DOMAINS))  # however others seed what they draw
    return next((domain for domain in domains if not _participants(domain)), domains[0])


def _participants(domain: int) -> int:
    """How many DDS participants of this machine are in ``domain``: about one per process.

    Each takes the first discovery port that is free, unless its DDS implementation is told to do otherwise.
    """
    return sum(not _is_free(7410 + 250 * domain + 2 * number) for number in range(_MOST_PARTICIPANTS))


def _is_free(port: int) -> bool:
    """Whether the discovery port of a participant (DDSI-RTPS 9.6.1.1) can be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def stop(children: list[Child]) -> None:
    """End the children; those that do not end in time are killed."""
    for child in children:
        child.ask_to_stop()
    until_s = time.monotonic() + _STOP_S
    for child in children:
        child.wait_or_kill(until_s)


def _parameter_file(parameters: Mapping[str, object]) -> str:
    """Write parameters as a ROS 2 parameter file in which text stays text, whatever it holds."""
    lines = ["/**:", "  ros__parameters:"]
    for name, value in parameters.items():
        # Quoted and on one line: ROS 2's reader would take an unquoted yes or 5 for another type.
        text = yaml.safe_dump(
            value,
            default_style='"' if isinstance(value, str) else None,
            default_flow_style=True,  # of lists
            allow_unicode=True,
            width=sys.maxsize,
        )
        lines.append(f"    {name}: {text.splitlines()[0]}")
    return "\n".join(lines) + "\n"


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    environment = {**environ, **large_image_environment(environ)}
    # Import from the folder that this file lies in, not from the user's working directory.
    environment["PYTHONSAFEPATH"] = "1"
    here = str(Path(__file__).absolute().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [here, environment.get("PYTHONPATH")]))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
