"""A small HTTP/1.1 server for tests, in a thread of this process: it speaks for an ASGI application.

The part of Ray Serve's proxy that the application needs, and no more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")
Application = Callable[[Any, Any, Any], Awaitable[None]]

_CHUNK = 1 << 16


class HttpServer:
    """Serves the application that ``make`` gives, which is called in the loop that serves; on 127.0.0.1."""

    def __init__(self, make: Callable[[], Awaitable[Application]], port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="http")
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._make = make
        self.is_over = False
        self.port = self.run(self._start(port))
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do something in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120.0)

    async def _start(self, port: int) -> int:
        self._application = await self._make()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, reuse_address=True)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Break off every connection, and listen no more."""
        self.is_over = True
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60.0)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            while await self._exchange(reader, writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection stays."""
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        method, path, _ = lines[0].split(b" ")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (it.partition(b":") for it in lines[1:-2])
        ]
        left = int(dict(headers).get(b"content-length", b"0"))
        closes = False

        async def receive() -> dict[str, Any]:
            nonlocal left
            part = await reader.read(min(left, _CHUNK)) if left else b""
            if left and not part:
                return {"type": "http.disconnect"}
            left -= len(part)
            return {"type": "http.request", "body": part, "more_body": left > 0}

        async def send(message: dict[str, Any]) -> None:
            nonlocal closes
            if message["type"] == "http.response.start":
                closes = (b"connection", b"close") in message["headers"]
                writer.write(b"HTTP/1.1 %d status\r\n" % message["status"])
                for name, value in message["headers"]:
                    writer.write(name + b": " + value + b"\r\n")
                writer.write(b"\r\n")
            else:
                writer.write(message["body"])
                await writer.drain()

        scope = {"type": "http", "method": method.decode(), "path": path.decode(), "headers": headers}
        await self._application(scope, receive, send)
        return not closes and not left
