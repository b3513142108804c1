"""`topreward demo`: a video player and a monitor as two processes on a real topic, and a watch in front.

The three meet over DDS on this machine only, in a ROS domain of their own unless ROS_DOMAIN_ID is set. The
demonstration is over when the player has ended and the score of the last due frame has come. Nothing here
knows how frames are scored; the processes are the same nodes that run on a robot.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

import topreward_ros.nodes.watch as watch
from topreward_ros.defaults import (
    DEMO_TASK,
    DEMO_VIDEO,
    large_image_environment,
    monitor_defaults,
    shared_file,
)
from topreward_ros.offline.score_video import due_times
from topreward_ros.offline.video import VideoError
from topreward_ros.terminal import RANDOM_WARNING, number
from topreward_ros.watch_view import WatchLog, event_line

_DOMAINS = range(1, 102)  # those whose ports lie below the ones that Linux hands out
_WAIT_FOR_MONITOR_S = 3600.0  # of the player; whether the monitor has died is seen here
_LAST_SCORE_S = 30.0  # without a score after the video, until the last one is given up
_STOP_S = 2.5  # for a child to end after SIGTERM, before it is killed
_LOG_LINES = 15  # shown of a child that failed


class DemoError(RuntimeError):
    """The demonstration failed. The text names the thing, the value and the mend."""


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
        params_file.write_text(_parameter_file(parameters), encoding="utf-8")
        module = f"topreward_ros.nodes.{name}"
        # SIGTERM when we are killed and can no longer see to it (setpriv is part of util-linux); the shell
        # sees whether that has happened before there was anybody to send it to.
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
        """Of the process."""
        return self._process.pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM, unless it has ended."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, until_s: float) -> None:
        """Wait until ``until_s`` of the monotonic clock, then end it for good."""
        try:
            self._process.wait(max(until_s - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_lines(self) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:])


def run(video: str | None, task: str | None, model: str, svg: Path | None) -> int:
    """Run the demonstration to its end and return the exit status. Raises `DemoError` and `WatchError`."""
    path = str(Path(video).expanduser().absolute() if video else shared_file(DEMO_VIDEO))
    task = task or DEMO_TASK
    try:
        expected = due_times(path, monitor_defaults()["sample_rate"])
    except VideoError as error:
        raise DemoError(str(error)) from error
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    shared = bool(os.environ.get("ROS_DOMAIN_ID"))  # empty is as not set, also for ROS 2
    if not shared:
        os.environ["ROS_DOMAIN_ID"] = str(free_domain())
    folder = Path(tempfile.mkdtemp(prefix="topreward-demo-"))
    with watch.stop_signals() as signals, watch.Watcher("task_progress", [sys.argv[0]]) as watcher:
        watcher.log.title = f"topreward demo (ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']})"
        watcher.log.waiting = f"starting the monitor with model {model} ..."
        children: list[Child] = []
        if shared:
            _refuse_company(watcher)
        try:
            children.append(Child("monitor", {"task": task, "model": model}, folder, os.environ))
            player = {"video": path, "wait_for_subscriber": _WAIT_FOR_MONITOR_S}
            children.append(Child("video_player", player, folder, os.environ))
            with watch.Screen(watcher.log) as screen:
                end = _End(watcher.log, children, expected[-1])
                watcher.follow(screen, done=lambda: bool(signals) or end.reached(), advise=False)
        finally:
            stop(children)
        if signals:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"topreward: stopped by {signal.Signals(signals[0]).name}", file=sys.stderr)
            return 128 + signals[0]
    log = watcher.log
    if svg is not None:
        watch.save_svg(log, svg, f"topreward demo: {Path(path).name}, model {model}")
    if end.dead is not None:
        raise DemoError(
            f"the {end.dead.name} ended with status {end.dead_status}; its last lines "
            f"(all of {end.dead.log}):\n{end.dead.last_lines()}"
        )
    if not log.score_count:
        raise DemoError(f"no score came; see {children[0].log}, which ends with\n{children[0].last_lines()}")
    shutil.rmtree(folder, ignore_errors=True)
    print(summary(log, len(expected)) + why_not_all(log, len(expected), end.gave_up), flush=True)
    return 0


def _refuse_company(watcher: watch.Watcher) -> None:
    """Raise `DemoError` when somebody publishes what ours will: scores or frames would be mixed."""
    for topic, names in watcher.meet(["task_progress", *monitor_defaults()["image_topics"]]).items():
        raise DemoError(
            f"{', '.join(names)} already publishes {topic} in ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}; "
            "end it, or have a free domain drawn: ROS_DOMAIN_ID= topreward demo"
        )


class _End:
    """Notices the end: the last score, or the death of a child."""

    def __init__(self, log: WatchLog, children: list[Child], last_due_s: float) -> None:
        self.dead: Child | None = None
        self.dead_status = 0
        self.gave_up = False  # waiting for the last score
        self._log = log
        self._monitor, self._player = children
        self._last_due_s = last_due_s
        self._quiet_since_s = 0.0
        self._scores_then = -1

    def reached(self) -> bool:
        """Whether there is nothing more to come."""
        for child in (self._monitor, self._player):
            status = child.status()
            if status is not None and (status != 0 or child is self._monitor):
                self.dead, self.dead_status = child, status
                return True
        if self._player.status() is None:
            return False
        if self._scores_then != self._log.score_count:
            self._scores_then, self._quiet_since_s = self._log.score_count, time.monotonic()
        self.gave_up = time.monotonic() - self._quiet_since_s > _LAST_SCORE_S
        return self._last_score_came() or self.gave_up

    def _last_score_came(self) -> bool:
        scores, events = self._log.scores, self._log.events
        ended = bool(events) and events[-1].type == "EPISODE_ENDED"
        return ended or (bool(scores) and scores[-1].elapsed_s >= self._last_due_s - 1e-3)


def summary(log: WatchLog, expected: int) -> str:
    """What came of it, in one line."""
    kinds = ("SUCCESS", "FAILURE", "TIMEOUT", "ABORTED", "SCORER_ERROR", "STALE_IMAGES")
    events = [event_line(log, event).strip().split(":")[0] for event in log.events if event.type in kinds]
    note = f" ({RANDOM_WARNING})" if log.random_weights else ""
    return (
        f"demo: {log.score_count} scores of {expected} due frames, "
        f"final progress {number(log.scores[-1].progress, 2)}, "
        f"events: {', '.join(events) or 'none'}, median latency {number(log.median_latency_s(), 2)} s{note}"
    )


def why_not_all(log: WatchLog, expected: int, gave_up: bool) -> str:
    """A second line of the summary when there are not as many scores as frames were due."""
    missing = expected - log.score_count
    if missing < 0:
        return f"\ndemo: {-missing} scores too many: {'; '.join(log.warnings) or 'somebody else publishes'}"
    if missing == 0:
        return ""
    if log.events and log.events[-1].type == "EPISODE_ENDED":
        why = f"the episode ended before ({log.events[-1].message})"
    elif gave_up:
        why = f"the monitor gave none for {_LAST_SCORE_S:.0f} s: too slow for this video, or stuck"
    else:
        why = "their frames were lost on the way, or dropped because the monitor was still at an earlier one"
    return f"\ndemo: {missing} of the scores missing: {why}"


def free_domain() -> int:
    """A ROS domain, drawn by chance, that no process of this machine uses."""
    domains = random.sample(_DOMAINS, len(_DOMAINS))
    return next((domain for domain in domains if _is_free(domain)), domains[0])


def _is_free(domain: int) -> bool:
    """Whether the first participant's discovery port of the domain (DDSI-RTPS 9.6.1.1) can be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7410 + 250 * domain))
        except OSError:
            return False
    return True


def stop(children: list[Child]) -> None:
    """End them, and kill what does not end in time."""
    for child in children:
        child.ask_to_stop()
    until_s = time.monotonic() + _STOP_S
    for child in children:
        child.wait_or_kill(until_s)


def _parameter_file(parameters: Mapping[str, object]) -> str:
    """Parameters as a ROS 2 parameter file in which text stays as it is, whatever it holds."""
    lines = ["/**:", "  ros__parameters:"]
    for name, value in parameters.items():
        # Quoted and on one line: ROS 2's reader would take an unquoted yes or 5 for another type.
        text = yaml.safe_dump(
            value,
            default_style='"' if isinstance(value, str) else None,
            allow_unicode=True,
            width=sys.maxsize,
        )
        lines.append(f"    {name}: {text.splitlines()[0]}")
    return "\n".join(lines) + "\n"


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    environment = {**environ, **large_image_environment(environ)}
    # Not the folder that the user happens to stand in, but the one that this file lies in.
    environment["PYTHONSAFEPATH"] = "1"
    here = str(Path(__file__).absolute().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [here, environment.get("PYTHONPATH")]))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
