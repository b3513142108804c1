"""HTTP to one endpoint: one answer per request, within a time and of a size, or a sentence that says why not.

The server is not trusted. An answer is JSON of at most `LARGEST_ANSWER` bytes that has come completely before
the deadline, whatever the pace at which its bytes come; a redirect is not followed, so that the key goes to
no other host; what the server says is quoted on one line without the key. Nothing is tried again here. A
server that asks for a pause (429, 503 with Retry-After) is not asked before it is over.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf, isfinite
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from topreward_ros.core.json_text import JsonError, parsed_json
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import BusyError, LinkError, ScorerError
from topreward_ros.scoring.openai_api.address import Endpoint, key_hint

LARGEST_ANSWER = 4 << 20  #: bytes; one with a log-probability has some thousand
LONGEST_PAUSE_S = 300.0  #: that a server may ask for; a longer one counts as this

_CONNECT_S = 5.0
_QUOTED = 200  # characters of what a server says
_SEARCHED = 5000  # characters of it that are looked at
_SECRET = 6  # letters in a row that tell something of a key
_CHUNK = 1 << 16
_DEEPEST = 30  # levels of JSON
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses of what may be over soon
_USUAL_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class RefusedError(ScorerError):
    """The server refused a request as it is (HTTP 400 or 422); asked otherwise it may answer."""

    def __init__(self, text: str, said: str) -> None:
        super().__init__(text)
        self.said = said  #: what the server said, on one line


class MissingError(ScorerError):
    """The server has nothing at this path (HTTP 404 or 405)."""


class Client:
    """Asks one endpoint. May be used by several threads at once."""

    def __init__(self, endpoint: Endpoint, key: str, timeout_s: float, connections: int = 1) -> None:
        """``timeout_s``: for a whole request, answer included; ``connections`` are kept open."""
        self.endpoint = endpoint
        self._key = key
        self._timeout_s = timeout_s
        self._not_before_s = 0.0  # monotonic: end of the pause that the server asked for
        self._pause_s = 0.0  # the whole of it
        watched = {"http": _WatchedConnection, "https": _WatchedTlsConnection}
        kinds = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
        self._pool = kinds[endpoint.scheme](
            endpoint.host, endpoint.port, maxsize=connections, block=False, retries=False
        )
        self._pool.ConnectionCls = watched[endpoint.scheme]
        self._own = _pieces(key)  # of the key; None: there is none

    def get(self, path: str) -> Any:
        """The JSON at ``path``, see `post`."""
        return self._ask("GET", path, None)

    def post(
        self, path: str, content: Mapping[str, Any], *, beside: bool = False, most_s: float = inf
    ) -> Any:
        """The JSON that the server answers to ``content``.

        ``path`` is below that of the API, or ``beside`` it; ``most_s`` bounds this request further.
        Raises `ScorerError`, or one of the kinds of it that are above, or `LinkError`.
        """
        body = json.dumps(content, ensure_ascii=True, allow_nan=False).encode()
        return self._ask("POST", path, body, beside=beside, most_s=most_s)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _ask(
        self, method: str, path: str, body: bytes | None, *, beside: bool = False, most_s: float = inf
    ) -> Any:
        timeout_s = min(self._timeout_s, most_s)
        base = self.endpoint.path
        path = (base.rpartition("/")[0] if beside else base) + path
        shown = f"{self.endpoint.origin}{path}"
        if (left_s := self._not_before_s - time.monotonic()) > 0:
            raise BusyError(
                f"{shown} is not asked yet: the server wanted a pause of {self._pause_s:.0f} s", left_s
            )
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # so that a small answer cannot become a large one
            "User-Agent": "topreward_ros",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        with _deadline(timeout_s) as late:
            try:
                response = self._pool.urlopen(
                    method,
                    path,
                    body=body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s),
                )
                content = self._read(response, shown)
            except (HTTPError, OSError, ValueError, AttributeError) as error:
                raise self._broken(
                    error, shown, timeout_s, late.is_set()
                ) from None  # the error may quote the key
            if late.is_set():  # what had come by then may look like a whole answer
                raise _too_late(shown, timeout_s)
        self._check_status(response, content, shown)
        return self._parsed(content, shown)

    def _read(self, response: urllib3.BaseHTTPResponse, shown: str) -> bytes:
        """The body; the connection is kept for the next request only where it was read to its end."""
        content = bytearray()
        try:
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise ScorerError(f"{shown} answers compressed, which it was asked not to: check the proxy")
            while chunk := response.read(_CHUNK):
                content += chunk
                if len(content) > LARGEST_ANSWER:
                    raise ScorerError(
                        f"{shown} answers with more than {LARGEST_ANSWER >> 20} MiB: it is no server of this "
                        "protocol, check the URL"
                    )
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return bytes(content)

    def _broken(self, error: Exception, shown: str, timeout_s: float, was_late: bool) -> ScorerError:
        said = self._quoted(f"{type(error).__name__}: {error}")
        if was_late or isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return _too_late(shown, timeout_s)
        if isinstance(error, urllib3.exceptions.SSLError):
            return ScorerError(f"{shown} cannot be trusted ({said}): check its certificate and the URL")
        if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
            return LinkError(f"{shown} cannot be reached ({said}): start the server, or check the URL")
        return LinkError(f"{shown} broke off ({said}): look at the server")

    def _check_status(self, response: urllib3.BaseHTTPResponse, content: bytes, shown: str) -> None:
        status = response.status
        if 200 <= status < 300:
            return
        said = self._quoted(_message_of(content))
        answer = f"{shown} answers {status}" + (f" ({said})" if said else "")
        if 300 <= status < 400:
            place = self._quoted(response.headers.get("Location", "somewhere else"))
            raise ScorerError(
                f"{shown} sends on to {place}, which is not followed, because a key would go along: name the "
                "URL where the API is"
            )
        if status in (401, 403):
            raise ScorerError(
                f"{answer}: check the key in the environment variable {key_hint(self.endpoint)}"
            )
        if status in (404, 405):
            raise MissingError(f"{answer}: check the path of the API in the URL, and the model after #")
        if status in (400, 422):
            raise RefusedError(answer, said)
        if status == 413:
            raise ScorerError(
                f"{answer}: the pictures are too many bytes for it, lower max_pixels or max_frames"
            )
        if status not in _PASSING:
            raise ScorerError(f"{answer}: check the URL")
        pause_s = retry_after_s(response.headers.get("Retry-After", ""), datetime.now(UTC))
        if pause_s is not None:
            self._not_before_s, self._pause_s = time.monotonic() + pause_s, pause_s
        why = "too many requests, or the quota is used up" if status == 429 else "look at the server"
        wait = f"; it asks for a pause of {pause_s:.0f} s" if pause_s else ""
        raise BusyError(f"{answer}: {why}{wait}", _USUAL_PAUSE_S if pause_s is None else pause_s)

    def _parsed(self, content: bytes, shown: str) -> Any:
        try:
            parsed = parsed_json(content)
        except JsonError:
            raise ScorerError(
                f"{shown} answers with something that is no JSON "
                f"('{self._quoted(content[:_QUOTED].decode(errors='replace'))}'): check the URL"
            ) from None
        return parsed

    def quoted(self, text: object) -> str:
        """What a server says, on one line, cut, and without the key."""
        return self._quoted(str(text))

    def holds_key(self, text: str) -> bool:
        """Whether a part of the key stands in ``text``, in whatever case."""
        return self._own is not None and self._own.search(text) is not None

    def _quoted(self, text: str) -> str:
        text = " ".join(text[:_SEARCHED].split())
        if self._own is not None:
            text = self._own.sub("***", text)
        return printable(text, _QUOTED)


def _pieces(key: str) -> re.Pattern[str] | None:
    """What is not to be shown of a key: all of it, and every part of some letters, in whatever case.

    A server may quote it cut, or its beginning and end.
    """
    if not key:
        return None
    size = min(len(key), _SECRET)
    pieces = dict.fromkeys([key, *(key[k : k + size] for k in range(len(key) - size + 1))])
    return re.compile("|".join(map(re.escape, pieces)), re.IGNORECASE)


def _message_of(content: bytes) -> str:
    """The text of an error in ``content``, in whichever of the usual places it is."""
    try:
        parsed = parsed_json(content[: 1 << 16])
    except JsonError:
        return re.sub(r"<[^>]*>", " ", content[:2000].decode(errors="replace"))
    for _ in range(3):
        if isinstance(parsed, list) and parsed:
            parsed = parsed[0]
        if isinstance(parsed, dict):
            parsed = next((parsed[name] for name in ("error", "message", "detail") if parsed.get(name)), "")
    return parsed if isinstance(parsed, str) else ""


def retry_after_s(header: str, now: datetime) -> float | None:
    """The pause [s] that a Retry-After asks for, in seconds or as a date; None where it says nothing.

    >>> now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    >>> retry_after_s("2", now), retry_after_s("Fri, 02 Jan 2026 03:04:15 GMT", now), retry_after_s("x", now)
    (2.0, 10.0, None)
    """
    text = header.strip()[:100]
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_PAUSE_S) if isfinite(seconds) else None


# ---- the deadline ------------------------------------------------------------------------------------

_this_thread = threading.local()


class _Watch:
    """The sockets of this thread's request, to be shut down when it is late."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._late = threading.Event()
        self._socket: socket.socket | None = None

    def is_set(self) -> bool:
        """Whether the deadline has passed."""
        return self._late.is_set()

    def follow(self, duplicate: socket.socket) -> None:
        with self._lock:
            self._socket = duplicate
            if self._late.is_set():
                _shut_down(duplicate)

    def end(self) -> None:
        with self._lock:
            self._late.set()
            if self._socket is not None:
                _shut_down(self._socket)


@contextmanager
def _deadline(seconds: float) -> Iterator[_Watch]:
    """Shut down the connection that this thread uses within, once so many seconds have passed.

    The timeouts of a socket start anew with every byte, and so would wait for ever for a slow sender.
    """
    watch = _this_thread.watch = _Watch()
    timer = threading.Timer(seconds, watch.end)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        _this_thread.watch = None


def _shut_down(duplicate: socket.socket) -> None:
    with suppress(OSError):
        duplicate.shutdown(socket.SHUT_RDWR)


class _Watched:
    """A connection that tells the thread's watch which socket it uses."""

    _duplicate: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        # A second handle of the same connection: it stays valid while TLS takes the first one over.
        self._duplicate = made.dup()
        self._tell()
        return made

    def request(self, *arguments: Any, **named: Any) -> None:
        self._tell()
        super().request(*arguments, **named)  # type: ignore[misc]

    def close(self) -> None:
        if self._duplicate is not None:
            self._duplicate.close()
            self._duplicate = None
        super().close()  # type: ignore[misc]

    def _tell(self) -> None:
        watch = getattr(_this_thread, "watch", None)
        if watch is not None and self._duplicate is not None:
            watch.follow(self._duplicate)


class _WatchedConnection(_Watched, HTTPConnection):
    """See `_Watched`."""


class _WatchedTlsConnection(_Watched, HTTPSConnection):
    """See `_Watched`."""


def _too_late(shown: str, timeout_s: float) -> LinkError:
    return LinkError(f"{shown} has not answered within {round(timeout_s, 1):g} s")
