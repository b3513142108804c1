"""Where PyTorch's compiler keeps what it made. Importing this needs no PyTorch.

PyTorch makes the folder that the environment names as soon as a part of it is imported, whether anything is
compiled or not, and cannot be imported where that fails.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def leave_out_unusable_folder() -> None:
    """Where the environment names a folder that cannot be used, say so and take it out of the environment.

    To be called before PyTorch is imported; the processes that this one starts have it from here.
    """
    named = os.environ.get(VARIABLE)
    if named is not None and not (named and _is_usable(Path(named))):
        _log.warning("%s=%r is left out: that folder cannot be made or written", VARIABLE, named)
        del os.environ[VARIABLE]


def use_folder_of_user() -> str:
    """Let PyTorch keep what it compiles in the user's cache folder, unless the environment names another.

    What PyTorch put into the environment itself when it was imported names none. Where the user's cache
    folder cannot be written, it stays in the folder for temporary files. Returns the folder.
    """
    default = _default()
    if os.environ.get(VARIABLE, default) == default:
        with suppress(OSError, RuntimeError):  # no home either
            base = os.environ.get("XDG_CACHE_HOME", "")
            cache = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
            folder = cache / "topreward_ros" / "compiled"
            if _is_usable(folder):
                os.environ[VARIABLE] = str(folder)
    return os.environ.get(VARIABLE, default)


def _is_usable(folder: Path) -> bool:
    """Whether there is this folder, or could be made, and may be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _default() -> str:
    """What PyTorch takes, and puts into the environment, where that names nothing."""
    with suppress(Exception):  # no part of it that others are meant to call
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        return os.path.abspath(default_cache_dir())
    return ""
