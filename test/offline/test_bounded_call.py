"""A call in a process of its own, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from topreward_ros.core.errors import UserError
from topreward_ros.core.text_files import TextFileError, read_text
from topreward_ros.offline.bounded_call import call_bounded

LONG = 100.0  # [s]


def test_a_result_comes_back():
    assert call_bounded(divmod, 7, 2, time_limit_s=LONG, what="dividing") == (3, 1)


def test_ctrl_c_is_blocked_in_the_process_from_its_first_moment():
    """A terminal sends it to all of its processes, and one that comes among imports leaves a trace."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    mask = call_bounded(signal.pthread_sigmask, signal.SIG_BLOCK, (), time_limit_s=LONG, what="asking")
    assert signal.SIGINT in mask and signal.SIGTERM not in mask
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_ctrl_c_is_blocked_in_the_first_process_of_all():
    """With it, Python starts the tracker of resources, and unblocks signals that were blocked before."""
    code = (
        "import signal; from topreward_ros.offline.bounded_call import call_bounded\n"
        "if __name__ == '__main__':\n"
        "    mask = call_bounded(\n"
        "        signal.pthread_sigmask, signal.SIG_BLOCK, (), time_limit_s=100.0, what='asking'\n"
        "    )\n"
        "    print(signal.SIGINT in mask, signal.SIGTERM in mask)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG)
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_an_error_for_the_user_comes_back_as_it_is(tmp_path: Path):
    with pytest.raises(TextFileError, match="nowhere cannot be read"):
        call_bounded(read_text, tmp_path / "nowhere", time_limit_s=LONG, what="reading")


def test_what_does_not_end_is_ended():
    with pytest.raises(
        UserError, match=r"sleeping was not done after 0.5 s: .* --time-limit gives it longer"
    ):
        call_bounded(time.sleep, 10 * LONG, time_limit_s=0.5, what="sleeping")


@pytest.mark.parametrize(
    ("function", "argument", "said"),
    [
        (signal.raise_signal, signal.SIGKILL, "it was killed, as where memory runs out: use a smaller model"),
        (signal.raise_signal, signal.SIGSEGV, "it broke off with exit status -11: copy the model again"),
        (os._exit, 3, "it broke off with exit status 3: copy the model again"),
    ],
)
def test_a_process_that_dies_is_told(function, argument, said):
    with pytest.raises(UserError, match=said):
        call_bounded(function, argument, time_limit_s=LONG, what="it")
