"""The engine as an ASGI application: paths, token, sizes. Ray Serve, or any ASGI server, speaks HTTP for it.

What is wrong with a request is answered before its body is read, where its head tells. No path but those of
the protocol exists.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from topreward_ros.scoring.remote import protocol
from topreward_ros.scoring.remote.protocol import Status
from topreward_ros.serving.engine import Engine, Reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_METHODS = {protocol.INFO: "GET", protocol.SCORE: "POST"}


class _Refused(Exception):
    """A request gets this reply, and its body is not read to the end."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(status, {"error": text})


class Application:
    """Answers requests of the protocol with an engine."""

    def __init__(self, engine: Engine, token: str, on_reply: Callable[[int], None] = lambda _: None) -> None:
        """``token``: that a request must bring; empty: none. ``on_reply`` is called with each status."""
        self._engine = engine
        self._engine_name = engine.info.engine.encode()  # takes a millisecond to compute
        self._token = token.encode()
        self._on_reply = on_reply
        self._reading = 0  # bytes of bodies

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See ASGI 3.0."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        unread = True
        try:
            reply, unread = await self._reply(scope, receive)
        except _Refused as refused:
            reply = refused.reply
        self._on_reply(reply.status)
        await _answer(reply, send, close=unread)

    async def _reply(self, scope: Message, receive: Receive) -> tuple[Reply, bool]:
        """The reply, and whether there is something left to read."""
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        self._check_token(headers.get("authorization", b""))
        path = scope["path"]
        if _METHODS.get(path) != scope["method"]:
            raise _Refused(404, f"there are GET {protocol.INFO} and POST {protocol.SCORE} alone")
        if path == protocol.INFO:
            return Reply(200, {**self._engine.info.to_json(), "replica": self._engine.replica}), False
        version = headers.get(protocol.PROTOCOL_HEADER, b"").decode("latin-1")
        if version != str(protocol.VERSION):
            raise _Refused(
                Status.GARBAGE,
                f"the call is of version {version[:20] or '?'} of the protocol, and this server speaks "
                f"{protocol.VERSION}: install the same version of topreward_ros on both sides",
            )
        if headers.get(protocol.ENGINE_HEADER, b"") != self._engine_name:
            raise _Refused(
                Status.OTHER_ENGINE, "the server has another model, or other settings, than it was asked for"
            )
        body = await self._body(headers.get("content-length", b""), receive)
        return await self._engine.answer(body), False

    def _check_token(self, given: bytes) -> None:
        if not self._token:
            return
        kind, _, token = given.partition(b" ")
        if not hmac.compare_digest(token.strip(), self._token) or kind.lower() != b"bearer":
            raise _Refused(Status.NO_TOKEN, "the token is missing or wrong")

    async def _body(self, length: bytes, receive: Receive) -> bytes:
        """All of the body. Raises `_Refused`."""
        limits = self._engine.limits
        claimed = int(length) if length.isdigit() and len(length) < 20 else 0
        if claimed > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        if self._engine.calls >= limits.calls or self._reading + claimed > limits.bodies_bytes:
            raise _Refused(Status.BUSY, "there are too many calls: come again")
        try:
            return await asyncio.wait_for(self._read(receive, limits.body_bytes), limits.body_s)
        except asyncio.TimeoutError:
            raise _Refused(Status.BUSY, f"the call has not arrived within {limits.body_s:.0f} s") from None

    async def _read(self, receive: Receive, most: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Refused(Status.GARBAGE, "the client has left")
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._reading += len(part)
                if size > most:
                    raise _too_large(most)
                if self._reading > self._engine.limits.bodies_bytes:
                    raise _Refused(Status.BUSY, "there are too many calls: come again")
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self._reading -= size


def _too_large(most: int) -> _Refused:
    return _Refused(
        Status.TOO_LARGE,
        f"a call has at most {most} bytes: send JPEG (?frames=jpeg behind the URL), or start the server with "
        "a larger --call-mb",
    )


async def _answer(reply: Reply, send: Send, *, close: bool) -> None:
    body = json.dumps(reply.content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if close:  # what is left of the body is not waited for
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(reply.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
