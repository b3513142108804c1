"""What every test session needs and owes: Ctrl-C reaches its children; dead shared memory is given back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

# Which inputs hypothesis draws. In `make test` they are the same every time, so that a failure comes from a
# change and not from luck; `make test-random` draws new ones, and more, to find what nobody thought of. How
# long an example takes is never judged: it says how busy the machine is. Tests that need fewer or more
# examples than others take a share of the profile's: `settings(max_examples=settings().max_examples // 4)`.
settings.register_profile("same", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("random", derandomize=False, deadline=None, max_examples=400, print_blob=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    # Whoever starts us in the background may have Ctrl-C ignored, and our children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "installed: depends on how the package was installed (QUICK_TESTS)")


def _remove_dead_segments() -> None:
    """Removes what killed processes left of Fast DDS in /dev/shm, as `fastdds shm clean` does.

    /dev/shm is memory: 64 MB for each process, and some tests kill on purpose. A living process holds a lock
    on the file beside its segment or port that ends in _el or _sl. Fast DDS 2 (ROS 2 Jazzy) and 3 (Kilted)
    give different names. The tool does not start everywhere, and a test session must not depend on it.
    """
    for path in Path("/dev/shm").glob("fast*_[es]l"):
        if not re.fullmatch(r"fast(rtps|dds)_([0-9a-z]{16}|port\d+)_[es]l", path.name):
            continue
        with suppress(OSError):  # locked, gone meanwhile, or another user's
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                segment = path.name[: -len("_el")]
                for name in (segment, f"sem.{segment}_mutex", path.name):
                    path.with_name(name).unlink(missing_ok=True)
            finally:
                os.close(lock)


def _free_dead_shared_memory(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # one of xdist's processes: their head does it, once
    _remove_dead_segments()


def pytest_sessionstart(session: pytest.Session) -> None:
    _free_dead_shared_memory(session)  # an earlier session may have been killed


def pytest_sessionfinish(session: pytest.Session) -> None:
    _free_dead_shared_memory(session)


@pytest.fixture(scope="session")
def remove_dead_segments() -> Callable[[], None]:
    """See `_remove_dead_segments`."""
    return _remove_dead_segments


@pytest.fixture(scope="session")
def interrupted_on_a_terminal() -> Callable[[Sequence[str], Mapping[str, str], bytes], tuple[int, bytes]]:
    """Runs a command on a terminal until it has said something, then presses Ctrl-C: status and output."""

    def run(command: Sequence[str], environment: Mapping[str, str], until: bytes) -> tuple[int, bytes]:
        leader, follower = pty.openpty()
        process = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment)
        os.close(follower)
        said = b""
        while until not in said:
            said += os.read(leader, 4096)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(leader, 4096):
                said += chunk
        except OSError:  # the other end is closed
            pass
        os.close(leader)
        return process.wait(timeout=60), said

    return run
