"""What the test session itself removes from /dev/shm (see conftest.py)."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm to look into")
@pytest.mark.parametrize("prefix", ["fastrtps", "fastdds"], ids=["Fast DDS 2", "Fast DDS 3"])
def test_segments_that_no_process_holds_are_removed_and_others_are_kept(
    prefix: str, remove_dead_segments: Callable[[], None]
) -> None:
    dead, living = (f"{prefix}_{secrets.token_hex(8)}" for _ in range(2))
    files = [SHARED_MEMORY / f"{name}{end}" for name in (dead, living) for end in ("", "_el")]
    unrelated = SHARED_MEMORY / f"{prefix}_of_a_test_{secrets.token_hex(8)}_el"
    lock = SHARED_MEMORY / f"lock_of_a_test_{secrets.token_hex(8)}"
    try:
        with lock.open("wb") as held:
            # It has its name only when it is locked: another test session may be cleaning up, too.
            fcntl.flock(held, fcntl.LOCK_EX)
            lock.rename(files[3])
            for path in (*files[:3], unrelated):
                path.touch()
            remove_dead_segments()
            assert [path.exists() for path in files] == [False, False, True, True]
            assert unrelated.exists()
    finally:
        for path in (*files, unrelated, lock):
            path.unlink(missing_ok=True)
