"""Loading a model in a thread beside an executor that goes on answering.

Three things of Python keep its interpreter for themselves, each for tenths of a second, while PyTorch and a
model come into memory: the linker that maps PyTorch's libraries, the search for garbage among a million new
objects, and a thread that is long in giving its turn to others. What a model is, nothing here knows.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

_SWITCH_S = 0.0005  # after so long the thread that loads lets others run; Python's own number: 5 ms
_LIBRARIES = "libtorch.so"  # pulls in all of PyTorch's that know nothing of Python

_lock = threading.Lock()
_within = 0  # threads that are within `beside_others`
_switch_s = 0.0  # Python's number, while there are some


@contextmanager
def beside_others() -> Iterator[None]:
    """Within this, a thread may import PyTorch and build a model while others go on running.

    What is there at the end counts as lasting, and is not searched for garbage again: a search of all that
    PyTorch brings would hold up a running node as well. `let_go` takes that back.
    """
    _enter()
    try:
        _map_libraries()
        yield
        gc.freeze()
    finally:
        _leave()


def _enter() -> None:
    global _within, _switch_s
    with _lock:
        if not _within:
            _switch_s = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_S)
            gc.disable()
        _within += 1


def _leave() -> None:
    global _within
    with _lock:
        _within -= 1
        if not _within:
            gc.enable()
            sys.setswitchinterval(_switch_s)


def let_go() -> None:
    """Collect what was lasting and is no longer used, such as a model; takes some tenths of a second."""
    gc.unfreeze()
    gc.collect()


def _map_libraries() -> None:
    """Map PyTorch's libraries before it is imported, without holding the interpreter as the import does.

    Where that cannot be done the import does it, and says what is wrong.
    """
    if "torch" in sys.modules or sys.platform != "linux":
        return
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return
    path = Path(spec.origin).parent / "lib" / _LIBRARIES
    # `ctypes.CDLL(path)` would hold the interpreter; a call of a function of C does not.
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    dlopen(os.fsencode(path), os.RTLD_NOW)
