"""What is found out before Ray is started."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from topreward_ros.cli.main import main
from topreward_ros.serving.deployment import ServeError, check_certificate, check_port, end, last_error


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


def test_files_that_are_no_certificate_with_its_key(tmp_path: Path) -> None:
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(ServeError, match=r"c\.pem and --tls-key .*k\.pem are no certificate with its key"):
        check_certificate(str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    with pytest.raises(ServeError, match="No such file"):
        check_certificate(str(tmp_path / "absent.pem"), str(tmp_path / "k.pem"))


def test_a_library_that_is_missing_is_told_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["serve", "--model", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("topreward: topreward serve needs Ray Serve: pip install")
    assert main(["evaluate", "nowhere", "--ray"]) == 1
    assert capsys.readouterr().err.startswith("topreward: --ray needs Ray: pip install")


def test_what_ray_says_of_its_own_end_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ended = []

    def shutdown_of(name: str) -> SimpleNamespace:
        def shutdown() -> None:
            listener = Thread(target=print, args=("(raylet) Task ServeController.graceful_shutdown failed.",))
            listener.start()
            listener.join()
            ended.append(name)
            if name == "serve":
                raise RuntimeError("the controller is gone")

        return SimpleNamespace(shutdown=shutdown)

    end(shutdown_of("ray"), shutdown_of("serve"))
    print("ended")
    assert ended == ["serve", "ray"] and capsys.readouterr().out == "ended\n"


def test_what_kept_a_replica_from_starting_is_told() -> None:
    message = (
        "The deployment failed to start 3 times in a row. See controller logs for details. Error:\n"
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "/x/adapter.py", line 46, in import_peft\n'
        "    raise ScorerError(\n"
        "topreward_ros.scoring.base.ScorerError: an adapter needs peft (No module: 'peft'): install it\n"
    )
    assert last_error(message) == "an adapter needs peft (No module: 'peft'): install it"
    assert last_error(
        message.replace("topreward_ros.scoring.base.Scorer", "torch.cuda.OutOfMemory")
    ).startswith("OutOfMemoryError: an adapter")
    assert not last_error("") and not last_error("The deployment is being updated.")
