"""A server of the protocol in this process, for the tests of both its ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from test.http_server import HttpServer
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.remote.protocol import ServerInfo
from topreward_ros.serving.app import Application
from topreward_ros.serving.engine import Engine, Limits

SETTINGS = ScorerSettings.from_parameters(monitor_defaults())


@dataclass
class Served:
    """A server with its engine."""

    http: HttpServer
    engine: Engine

    @property
    def url(self) -> str:
        return self.http.url

    def stop(self) -> None:
        self.http.run(self.engine.close())
        self.http.stop()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers of scorers; all of them are stopped at the end."""
    running: list[Served] = []

    def start(
        scorer: PrefixScorer | None = None,
        settings: ScorerSettings = SETTINGS,
        limits: Limits | None = None,
        token: str = "",
        port: int = 0,
        around: Callable[[Application], Any] = lambda application: application,
        **info: Any,
    ) -> Served:
        made = scorer or load_scorer("embedded", settings)
        engines: list[Engine] = []

        async def application() -> Any:
            said = replace(ServerInfo.of("1.2.3", made, settings), **info)
            engines.append(Engine(made, said, limits or Limits()))
            return around(Application(engines[0], token))

        http = HttpServer(application, port)
        running.append(Served(http, engines[0]))
        return running[-1]

    yield start
    for served in running:
        if not served.http.is_over:
            served.stop()
