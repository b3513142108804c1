"""Ray Serve around the engine: replicas, their place on CPUs and GPUs, health and metrics.

Ray is an optional library, and imported here alone. Serve's own parts do what they are there for: its proxy
speaks HTTP, its consistent-hash router sends the calls of an episode to one replica for as long as the
replicas stay the same, its controller starts a replica anew that dies or whose scorer hangs, and its metrics
go out for Prometheus.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from typing import Any, NamedTuple

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import make_libraries_printable, printable
from topreward_ros.scoring.base import ScorerSettings, in_a_line
from topreward_ros.scoring.remote.protocol import ServerInfo
from topreward_ros.scoring.remote.scorer import token_of_environment
from topreward_ros.serving.app import Application
from topreward_ros.serving.engine import Engine, Limits

APPLICATION = "topreward"

_NO_RAY = "topreward serve needs Ray Serve: pip install 'topreward_ros[serve]' (or 'ray[serve]')"
_HANGS_S = 10.0  # how often the scorer is looked at
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_OBJECTS_BYTES = 80 << 20  # of Ray's object store, which calls do not go through
_STOP_S = 5.0
_LISTENS_S = 10.0
_OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # where one who listens to all is reached
#: Read by Ray when it is imported. The second one has all of Ray's own ports on 127.0.0.1, on Linux too.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",  # processes of Ray know each other by one that Ray makes
}
#: Read by Ray Serve, and settings of its operator come first. A call of ours is short, and never blocks the
#: loop that takes it, so it needs no thread of its own; by gRPC it takes half the processor time of an
#: actor's call.
_FOR_SHORT_CALLS = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}


class ServeError(UserError):
    """The server cannot be started."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and where."""

    model: str  #: as `load_scorer` takes it
    settings: ScorerSettings
    version: str  #: of the package
    host: str
    port: int
    replicas: int  #: 0: one per GPU of this machine, or one where it has none
    limits: Limits
    certificate: str = ""  #: file of a TLS certificate, and of its key; empty: plain HTTP
    key: str = ""
    metrics_port: int = 0  #: of Prometheus; 0: none that is fixed


class Served(NamedTuple):
    """What runs."""

    replicas: int
    metrics_port: int  #: of Prometheus, on 127.0.0.1
    look: Callable[[], None]  #: raises `ServeError` where Ray has died; to be called now and then


class Replica:
    """One scorer, in a process of its own that Ray Serve starts, watches and ends."""

    def __init__(self, serving: Serving) -> None:
        """Load the model; called in the event loop. A `ScorerError` ends the start."""
        from topreward_ros.scoring.registry import load_scorer

        make_libraries_printable()
        _listen_here_alone()
        scorer = load_scorer(serving.model, serving.settings)
        info = ServerInfo.of(serving.version, scorer, serving.settings)
        self._engine = Engine(scorer, info, serving.limits)
        self._meters = _Meters()
        self._application = Application(self._engine, token_of_environment(), self._count)

    def __serve_build_asgi_app__(self) -> Application:
        """What Ray Serve calls for the application."""
        return self._application

    def check_health(self) -> None:
        """What Ray Serve calls now and then; an error ends this replica, and another one takes its place."""
        self._meters.episodes.set(self._engine.episodes)
        self._meters.frame_bytes.set(self._engine.frame_bytes)
        self._meters.calls.set(self._engine.calls)
        if hang := self._engine.hang():
            raise RuntimeError(hang)

    async def __del__(self) -> None:
        with suppress(AttributeError):  # it was not loaded
            await self._engine.close()

    def _count(self, status: int) -> None:
        self._meters.replies.inc(tags={"status": str(status)})


class _Meters:
    """What is counted beside Ray Serve's own counts of requests, times, errors and queues."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self.replies = Counter("topreward_replies", "Replies of the replica, by HTTP status.", ("status",))
        self.episodes = Gauge("topreward_episodes", "Episodes that the replica holds.")
        self.frame_bytes = Gauge("topreward_frame_bytes", "Bytes of the frames that the replica holds.")
        self.calls = Gauge("topreward_calls", "Calls that are being answered.")


@contextmanager
def served(serving: Serving) -> Iterator[Served]:
    """Within this, the server runs. Raises `ServeError` where it does not start.

    Ray is started on this machine, reachable from it alone; no dashboard, no statistics of use.
    """
    os.environ |= _ENVIRONMENT | {name: os.environ.get(name, it) for name, it in _FOR_SHORT_CALLS.items()}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import ray
        from ray import serve
        from ray.serve.config import HTTPOptions, RequestRouterConfig
    except ImportError as error:
        raise ServeError(_NO_RAY) from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # Serve sets it when it is imported
    gpus = _gpus(serving.settings.device)
    count = serving.replicas or max(1, gpus)
    if gpus and count > gpus:
        raise ServeError(
            f"--replicas {count}: this machine has {gpus} GPUs, and a replica takes one: give at most "
            f"{gpus}, or --set device=cpu"
        )
    check_port(serving.host, serving.port)
    if serving.certificate:
        check_certificate(serving.certificate, serving.key)
    limits = serving.limits
    tls: dict[str, Any] = {}
    if serving.certificate:
        tls = {"ssl_certfile": serving.certificate, "ssl_keyfile": serving.key}
    ours = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(
                address="local",
                num_cpus=count + 1,
                num_gpus=gpus,
                object_store_memory=_OBJECTS_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _metrics_export_port=serving.metrics_port or None,
            )
            signal.signal(signal.SIGTERM, ours)  # Ray has put its own in its place
            serve.start(
                http_options=HTTPOptions(host=serving.host, port=serving.port, **tls),
                proxy_location="HeadOnly",
            )
            deployment = serve.deployment(serve.ingress()(Replica)).options(
                name="Replica",
                num_replicas=count,
                ray_actor_options={"num_cpus": 1, "num_gpus": 1 if gpus else 0},
                max_ongoing_requests=limits.calls,
                max_queued_requests=limits.calls,
                health_check_period_s=_HANGS_S,
                graceful_shutdown_timeout_s=_STOP_S,
                request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
            )
            serve.run(deployment.bind(serving), name=APPLICATION, route_prefix="/")
        except Exception as error:  # Ray has many kinds
            raise ServeError(_why(_said_by_a_replica(serve) or str(error))) from error
        _check_that_it_listens(serving.host, serving.port)

        def look() -> None:
            try:
                alive = any(node["Alive"] for node in ray.nodes())
            except Exception as error:  # Ray has many kinds
                raise ServeError(
                    f"Ray has died under the server ({in_a_line(error)}): start it anew"
                ) from error
            if not alive:
                raise ServeError("Ray has died under the server: start it anew")

        yield Served(count, int(ray.nodes()[0]["MetricsExportPort"]), look)
    finally:
        end(ray, serve)


def check_ray() -> None:
    """Raise `ServeError` where Ray is not installed, without importing it."""
    if find_spec("ray") is None:
        raise ServeError(_NO_RAY)


def end(ray: Any, serve: Any) -> None:
    """End the server. The modules are Ray's."""
    # Serve's controller is ended while it ends all else, and Ray tells that on our standard output as a task
    # that failed and will be tried again.
    with redirect_stdout(StringIO()):
        with suppress(Exception):
            serve.shutdown()
        ray.shutdown()


def check_port(host: str, port: int) -> None:
    """Raise `ServeError` where nobody can listen there.

    Ray Serve opens its port so that several may listen at it (SO_REUSEPORT): of two servers on one port, each
    would get some of the calls of all monitors.
    """
    try:
        kind, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(place[:2], family=kind):
            pass
    except OSError as error:
        raise ServeError(
            f"nobody can listen at {printable(host, 100)}:{port} ({error.strerror}): "
            "give another --port or --host, or end the server that is there"
        ) from error


def _listen_here_alone() -> None:
    """Have the port by which Ray Serve's own processes reach this replica on 127.0.0.1.

    Serve opens it on all addresses, and has no setting for that. It takes calls with Ray's token alone; still
    nobody outside has business there.
    """
    from ray.serve._private import replica

    add_port = getattr(replica, "add_port_to_grpc_server", None)
    if add_port is not None:
        replica.add_port_to_grpc_server = lambda server, _: add_port(server, "127.0.0.1:0")


def _gpus(device: str) -> int:
    """How many GPUs replicas can have, one each."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return 0
    return 1 if ":" in device else torch.cuda.device_count()


def check_certificate(certificate: str, key: str) -> None:
    """Raise `ServeError` where these files are no certificate and its key: Ray Serve would not tell."""
    try:
        # A key with a password would be asked for on the terminal, where nobody of Ray's processes could.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, _no_password)
    except (OSError, ValueError) as error:
        raise ServeError(
            f"--tls-cert {printable(certificate, 200)} and --tls-key {printable(key, 200)} are no "
            f"certificate with its key, without a password ({in_a_line(error)})"
        ) from error


def _no_password() -> str:
    raise ValueError("the key has a password")


def _check_that_it_listens(host: str, port: int) -> None:
    """Raise `ServeError` where nobody answers at the port: Ray Serve does not say so."""
    end_s = time.monotonic() + _LISTENS_S
    while True:
        try:
            with socket.create_connection((_OF_ALL.get(host, host), port), timeout=1.0):
                return
        except OSError as error:
            if time.monotonic() > end_s:
                raise ServeError(
                    f"Ray Serve does not listen at {printable(host, 100)}:{port} ({in_a_line(error)}): "
                    "its logs in /tmp/ray/session_latest/logs/serve tell why"
                ) from error
        time.sleep(0.1)


def _why(text: str) -> str:
    return f"the server cannot be started: {printable(' '.join(text.split()), 1500)}"


def _said_by_a_replica(serve: Any) -> str:
    """What kept a replica from starting, which Ray's own error does not tell; empty: nobody knows."""
    with suppress(Exception):  # Ray has many kinds, and this may be another version
        for application in serve.status().applications.values():
            for deployment in application.deployments.values():
                if said := last_error(deployment.message):
                    return said
    return ""


def last_error(traceback: str) -> str:
    """The error at the end of a ``traceback``, without the name of its class where it is one of ours; empty:
    there is none.

    >>> last_error("Traceback:\\n  File ...\\ntopreward_ros.scoring.base.ScorerError: a needs b: do c\\n")
    'a needs b: do c'
    >>> last_error("... for details.")
    ''
    """
    last = next((line for line in reversed(traceback.splitlines()) if line.strip()), "")
    kind, colon, text = last.partition(": ")
    if not colon or not re.fullmatch(r"[\w.]+", kind):
        return ""
    return text if kind.startswith("topreward_ros.") else f"{kind.rpartition('.')[2]}: {text}"
