"""What is found out before Ray is started."""

from __future__ import annotations

import socket

import pytest

from topreward_ros.serving.deployment import ServeError, check_port


def test_a_port_that_is_taken_even_by_one_that_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServeError, match=rf"127.0.0.1:{port} .Address already in use.*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_host_that_is_none_of_ours() -> None:
    with pytest.raises(ServeError, match=r"listen at 203\.0\.113\.1:8100 \("):
        check_port("203.0.113.1", 8100)
