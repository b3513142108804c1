"""Loading a model in a thread beside an executor that goes on answering.

Three things of Python keep its interpreter for themselves, each for tenths of a second, while PyTorch and a
model come into memory: the linker that maps PyTorch's libraries, the search for garbage among a million new
objects, and a thread that is long in giving its turn to others. Nearly all of these objects are code, which
stays; a model has some ten thousand, and may go. What a model is, nothing here knows.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

_SWITCH_S = 0.0005  # after so long the thread that loads lets others run; Python's own number: 5 ms
_LIBRARIES = "libtorch.so"  # pulls in all of PyTorch's that know nothing of Python

_lock = threading.Lock()
_within = 0  # threads that are within `beside_others`
_switch_s = 0.0  # Python's number, while there are some
_put_off = False  # what is no longer used is to be collected once there are none
_lasts = False  # the code of models counts as lasting


@contextmanager
def beside_others(import_code: Callable[[], bool]) -> Iterator[None]:
    """Within this, a thread may build a model while others go on running.

    ``import_code`` imports what the model needs, before that, and returns whether that is what makes up the
    process. It counts as lasting then, with all that is there: the search for garbage leaves it alone.
    """
    _enter()
    try:
        _map_libraries()
        _import(import_code)
        yield
    finally:
        _leave()


def _import(import_code: Callable[[], bool]) -> None:
    """Import in a thread of its own: PyTorch keeps the frames of whoever imports it, and so what these hold.

    What cannot be imported is left to who loads the model, and says what is wrong.
    """
    global _lasts
    done: list[bool] = []

    def run() -> None:
        with suppress(Exception):
            done.append(import_code())

    thread = threading.Thread(target=run, name="importing", daemon=True)
    thread.start()
    thread.join()
    with _lock:
        if any(done) and not _lasts:  # once: later there are models
            gc.freeze()
            _lasts = True


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
    if _put_off:
        let_go()


def let_go() -> None:
    """Collect what is no longer used, such as a model; takes milliseconds. While another model is loaded this
    is put off to the end of that, when its code counts as lasting."""
    global _put_off
    _put_off = bool(_within)
    if not _put_off:
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
