"""One connection to a server, kept open between requests; every answer is bounded in time and size.

Proxies of the environment are not used, and redirections are not followed: the server is the one that was
named. What is asked, and what an answer means, is not known here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import BadStatusLine, HTTPException
from socket import SHUT_RDWR, create_connection
from ssl import (
    MemoryBIO,
    SSLCertVerificationError,
    SSLError,
    SSLWantReadError,
    create_default_context,
)
from time import monotonic
from typing import NamedTuple

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import LinkError, ScorerError

#: What OpenSSL calls an answer in plain HTTP.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
_HINT_OF_TLS = "; where it serves with a certificate, write https://"
_TLS_RECORDS = (b"\x15", b"\x16")  # how an alert and a handshake begin (RFC 8446, 5.1)
_CONNECT_S = 2.0  # until a machine that does not answer is given up


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


class Link:
    """A connection to one server, for one thread."""

    def __init__(self, scheme: str, host: str, port: int, headers: Mapping[str, str]) -> None:
        """``headers`` go with every request. Nothing is opened yet."""
        kind = HTTPSConnection if scheme == "https" else HTTPConnection
        self._connection: HTTPConnection = kind(host, port, timeout=_CONNECT_S)
        self._url = f"{scheme}://{host}:{port}"
        self._headers = dict(headers)
        self._used = False

    def ask(
        self,
        method: str,
        path: str,
        *,
        seconds: float,
        longest: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read its answer of ``longest`` bytes at most, within ``seconds`` together.

        Raises `LinkError`; for a certificate that is not trusted `ScorerError`.
        """
        end = monotonic() + seconds
        again = self._used  # a connection that was idle may have been closed by the server
        while True:
            try:
                return self._ask_once(method, path, body, {**self._headers, **(headers or {})}, end, longest)
            except _TooLong:
                self.close()
                raise LinkError(
                    f"{self._url} answered with more than {longest} bytes: is it a topreward server?"
                ) from None
            except (HTTPError, HTTPException, OSError, ValueError) as error:
                if isinstance(inner := _innermost(error), SSLCertVerificationError):
                    file = os.environ.get("SSL_CERT_FILE", "")
                    absent = ", and names no file now" if file and not os.path.isfile(file) else ""
                    raise ScorerError(
                        f"{self._url} shows a certificate that is not trusted ({inner.verify_message}): set "
                        f"SSL_CERT_FILE in the environment to the file of its authority{absent}"
                    ) from error
                if isinstance(inner, SSLError) and inner.reason in _NO_TLS:
                    raise ScorerError(
                        f"{self._url} does not speak TLS ({inner.reason}): write http:// where the server "
                        "was started without a certificate"
                    ) from error
                connected = self._connection.sock is not None
                self.close()
                if monotonic() >= end or (connected and isinstance(error, TimeoutError)):
                    raise LinkError(f"{self._url} has not answered within {seconds:.0f} s") from error
                if not again:
                    cut = isinstance(inner, BadStatusLine | ConnectionResetError)  # one of no line, too
                    hint = _HINT_OF_TLS if cut and self._wants_tls(end) else ""
                    raise LinkError(f"{self._url} cannot be reached ({_cause(error)}{hint})") from error
                again = False

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        with suppress(OSError, HTTPError):
            self._connection.close()
        self._used = False

    def _ask_once(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], end: float, longest: int
    ) -> Answer:
        connection = self._connection
        if connection.sock is None:
            connection.timeout = max(0.01, min(_CONNECT_S, end - monotonic()))
            connection.connect()
        over = threading.Timer(max(0.0, end - monotonic()), self._break_off)
        over.daemon = True
        over.start()  # a socket's own time-out begins anew with every byte
        try:
            connection.timeout = max(0.01, end - monotonic())
            connection.request(
                method, path, body or None, headers, preload_content=False, decode_content=False
            )
            response = connection.getresponse()
            length = response.length_remaining  # None: it comes in chunks, or was cut off
            if length is not None and length > longest:
                raise _TooLong
            data = response.read(longest + 1, decode_content=False)
            if len(data) > longest:
                raise _TooLong
            if len(data) != length and not response.chunked:
                raise OSError("the answer was cut off")
            if response.headers.get("connection", "").lower() == "close":
                self.close()
            else:
                self._used = True
            response.release_conn()
            return Answer(response.status, data)
        finally:
            over.cancel()

    def _wants_tls(self, end: float) -> bool:
        """Whether a server that broke off speaks TLS, and was asked in plain HTTP; asks it before ``end``.

        A server with a certificate drops a request in plain HTTP without a word, as one that dies does.
        """
        connection = self._connection
        if isinstance(connection, HTTPSConnection):
            return False
        seconds = max(0.01, min(_CONNECT_S, end - monotonic()))
        return _speaks_tls(connection.host, connection.port, seconds)

    def _break_off(self) -> None:
        """Called in another thread once the time is over."""
        sock = self._connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(SHUT_RDWR)


class _TooLong(Exception):
    """An answer is longer than it may be."""


def _speaks_tls(host: str, port: int, seconds: float) -> bool:
    """Whether a server answers the greeting of TLS with a record of TLS; of anything else: no.

    Connecting, sending and waiting take ``seconds`` each at most.
    """
    greeting = MemoryBIO()
    ours = create_default_context().wrap_bio(MemoryBIO(), greeting, server_hostname=host)
    with suppress(SSLWantReadError):
        ours.do_handshake()
    try:
        with create_connection((host, port), seconds) as sock:
            sock.sendall(greeting.read())
            return sock.recv(1) in _TLS_RECORDS
    except OSError:
        return False


def _innermost(error: BaseException) -> BaseException:
    """The error that all others came from: it names the reason, and not the classes around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _cause(error: BaseException) -> str:
    error = _innermost(error)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(text.split()), 200)
