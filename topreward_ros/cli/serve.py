"""`topreward serve`: one server that scores for many robots."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.cli.output import CommandError, add_model_option, say, seconds, tell
from topreward_ros.cli.settings import SCORING, add_set_option, check_chosen, settings_of, with_overrides
from topreward_ros.core.printable import printable
from topreward_ros.defaults import monitor_defaults

if TYPE_CHECKING:
    from topreward_ros.serving.deployment import Serving

_LOOK_S = 5.0  # between two looks whether Ray lives
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "serve",
        help="serve a model to the monitors of many robots (needs Ray Serve, no ROS 2)",
        description="Loads a model, once per GPU, and scores for all monitors that name this server: "
        "model:=http://HOST:PORT. They must have the same settings of the model, sample_rate and max_frames "
        "included. docs/fleet.md tells more.",
        epilog="Example: TOPREWARD_TOKEN=... topreward serve --model Qwen/Qwen3-VL-8B-Instruct "
        "--host 0.0.0.0",
    )
    add_model_option(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0: all of this machine's (default: %(default)s)",
    )
    parser.add_argument("--port", type=_port, default=8100, help="(default: %(default)s)")
    parser.add_argument(
        "--replicas",
        type=_count,
        default=0,
        metavar="N",
        help="how many times the model is loaded (default: once per GPU, or once on a CPU)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM): serve https")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--episodes",
        type=_count,
        default=256,
        metavar="N",
        help="that a replica holds (default: %(default)s)",
    )
    parser.add_argument(
        "--frame-mb",
        type=_count,
        default=2048,
        metavar="N",
        help="memory for their frames, per replica [MiB] (default: %(default)s)",
    )
    parser.add_argument(
        "--call-mb",
        type=_count,
        default=256,
        metavar="N",
        help="the largest call, which may bring all frames of an episode [MiB] (default: %(default)s)",
    )
    parser.add_argument(
        "--idle",
        type=seconds,
        default=120.0,
        metavar="S",
        help="seconds after which an episode is freed whose robot is silent (default: %(default)g)",
    )
    parser.add_argument(
        "--metrics-port",
        type=_port,
        default=0,
        metavar="PORT",
        help="where Prometheus finds Ray's metrics, on 127.0.0.1 (default: a free one, which is told)",
    )
    add_set_option(parser)
    parser.set_defaults(run=_run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text}: must be a port, 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1 << 20):
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number above 0")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from topreward_ros.scoring.remote.scorer import TOKEN, token_of_environment
    from topreward_ros.serving.deployment import check_ray, served

    check_ray()
    serving = _serving(options)
    if not token_of_environment() and options.host not in _LOOPBACK:
        say(
            f"everybody who reaches {printable(options.host, 100)}:{options.port} can use this server: set "
            f"{TOKEN} in the environment, here and for the monitors"
        )
    stop = threading.Event()

    def end(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    say(f"starting model '{printable(options.model, 200)}' ...")
    with served(serving) as (replicas, metrics_port, look):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"{'https' if serving.certificate else 'http'}://{host}:{options.port}"
        copies = "1 replica" if replicas == 1 else f"{replicas} replicas"
        tell(f"serving model '{printable(options.model, 200)}' at {url}, {copies}; Ctrl-C ends it")
        say(f"metrics for Prometheus: http://127.0.0.1:{metrics_port}/metrics")
        while not stop.wait(_LOOK_S):
            look()
        say("ending ...")
    return 0


def _serving(options: argparse.Namespace) -> Serving:
    from topreward_ros.offline.code_version import package_version
    from topreward_ros.scoring.question.soft_prompt import asked_of
    from topreward_ros.scoring.registry import about_model
    from topreward_ros.scoring.served_models import refuse_served
    from topreward_ros.serving.deployment import Serving
    from topreward_ros.serving.engine import Limits

    parameters = monitor_defaults()
    others = frozenset(parameters) - SCORING
    _, settings = settings_of(with_overrides(parameters, options.overrides, "serve", others))
    if (options.tls_cert is None) != (options.tls_key is None):
        raise CommandError("--tls-cert and --tls-key belong together: give both or none")
    for path in filter(None, (options.tls_cert, options.tls_key)):
        if not path.is_file():
            raise CommandError(f"{printable(str(path), 300)} is no file")
    refuse_served(options.model, "topreward serve")
    about_model(options.model, settings)  # what is wrong with it is said here, and not by Ray
    check_chosen(options.model, settings)
    asked_of(settings)  # of a plug-in, too: monitors must ask the same
    if options.replicas > 1 and not settings.threads:
        settings = replace(settings, threads=max(1, (os.cpu_count() or 1) // options.replicas))
    limits = Limits(
        episodes=options.episodes,
        frame_bytes=options.frame_mb << 20,
        body_bytes=options.call_mb << 20,
        bodies_bytes=max(1 << 30, 2 * options.call_mb << 20),
        idle_s=options.idle,
    )
    return Serving(
        model=options.model,
        settings=settings,
        version=package_version(),
        host=options.host,
        port=options.port,
        replicas=options.replicas,
        limits=limits,
        certificate=str(options.tls_cert.resolve()) if options.tls_cert else "",
        key=str(options.tls_key.resolve()) if options.tls_key else "",
        metrics_port=options.metrics_port,
    )
