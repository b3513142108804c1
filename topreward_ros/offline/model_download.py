"""Downloads a model from the Hugging Face hub into its local cache, as a step of the setup.

Before gigabytes are fetched it is checked that the model is of the right kind and that the disk has room.
Large files are fetched here, to the cache's own places, because the library starts an unfinished file again,
and a model of 4 GB may be one file. What has arrived is kept, whatever interrupts, and a file counts only
when its SHA-256 is right. Small files are left to the library's `snapshot_download`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from topreward_ros.core.errors import UserError
from topreward_ros.scoring.base import in_a_line
from topreward_ros.scoring.checkpoint.checkpoint import read_config
from topreward_ros.scoring.checkpoint.folder import EMBEDDED, is_hub_id, missing_files
from topreward_ros.scoring.checkpoint.weight_files import WHOLE, shards_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_HUB_TIMEOUT = 10.0  # [s] until a hub that does not answer is given up
_BLOCK = 1 << 20  # [bytes] written and read at once
_SMALL_FILES = ("*.json", "*.jinja", "README.md", "LICENSE*")


class DownloadError(UserError):
    """A model cannot be downloaded."""


class DownloadProgress(Protocol):
    """Receives the progress of a download."""

    def begin(self, files: int, size: int, folder: Path) -> None:
        """A download begins: of ``files`` files with ``size`` bytes together, to ``folder``."""

    def advance(self, size: int) -> None:
        """``size`` more bytes have arrived; negative where bytes had to be discarded."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a repository on the hub."""

    name: str
    size: int  #: [bytes]
    sha256: str  #: empty for a small file, which the hub keeps in another way


def why_nothing_to_download(name: str) -> str:
    """Why the model ``name`` needs no download; empty where it may be on the hub."""
    if name == EMBEDDED:
        return f"'{name}' is part of this package: nothing is to be downloaded"
    try:
        is_folder = bool(name) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError):
        is_folder = False
    return f"{name} is a folder on this machine: nothing is to be downloaded" if is_folder else ""


def download_model(name: str, progress: DownloadProgress) -> Path:
    """Download the model ``name`` of the hub, or what is missing of it; returns its folder.

    The next call resumes where one was interrupted. Raises `DownloadError` and, for a model that cannot be
    scored with, `ScorerError`.
    """
    import huggingface_hub

    if not is_hub_id(name):
        raise DownloadError(
            f"{name!r} is no model of the hub: those are written ORG/NAME, as Qwen/Qwen3-VL-8B-Instruct"
        )
    with _hub_call(name):
        about = huggingface_hub.HfApi().model_info(name, timeout=_HUB_TIMEOUT, files_metadata=True)
    commit, offered = str(about.sha), about.siblings or []
    if "config.json" not in [sibling.rfilename for sibling in offered]:
        raise DownloadError(f"{name} has no config.json: it is no checkpoint; choose another")
    with _hub_call(name):
        config = Path(huggingface_hub.hf_hub_download(name, "config.json", revision=commit))
    read_config(config.parent)
    files = _needed(offered, _weight_names(name, commit, {sibling.rfilename for sibling in offered}))
    repository = config.parent.parent.parent  # of the cache: blobs/, refs/ and snapshots/
    missing = [file for file in files if not _is_here(file, config.parent, repository)]
    size = sum(file.size - _arrived(repository, file) for file in missing)
    _check_room(repository, size)
    if missing:
        progress.begin(len(missing), size, repository)
    with _hub_call(name):
        for file in missing:
            if file.sha256:
                _fetch(name, commit, file, repository, progress.advance)
        # Small files, the links from names to contents, and `main`, which makes the model present.
        folder = huggingface_hub.snapshot_download(name, allow_patterns=[file.name for file in files])
    if lacking := missing_files(Path(folder)):
        raise DownloadError(
            f"{name} has no {' and no '.join(lacking)} on the hub: it is no whole checkpoint; choose another"
        )
    return Path(folder)


def _weight_names(name: str, commit: str, offered: set[str]) -> list[str]:
    """The files of weights that will be loaded of those that a repository offers."""
    import huggingface_hub

    for whole in WHOLE:
        index = f"{whole}.index.json"
        if whole in offered:
            return [whole]
        if index in offered:
            with _hub_call(name):
                path = huggingface_hub.hf_hub_download(name, index, revision=commit)
            return [shard for shard in shards_of(Path(path)) if shard in offered]
    return []


def _needed(offered: list[RepoSibling], weights: list[str]) -> list[_File]:
    """The files that we need of a repository: ``weights``, and the small files beside them."""
    by_name = {sibling.rfilename: sibling for sibling in offered if "/" not in sibling.rfilename}
    small = [name for name in by_name if any(fnmatch(name, pattern) for pattern in _SMALL_FILES)]
    return [
        _File(name, by_name[name].size or 0, lfs.sha256 if (lfs := by_name[name].lfs) else "")
        for name in [*small, *weights]
    ]


def _blob(repository: Path, file: _File) -> Path:
    return repository / "blobs" / file.sha256


def _partial(repository: Path, file: _File) -> Path:
    """Where a file grows; the cache's own name for it, so that its cleaning tools know it."""
    return repository / "blobs" / f"{file.sha256}.incomplete"


def _is_here(file: _File, folder: Path, repository: Path) -> bool:
    return (folder / file.name).is_file() or bool(file.sha256 and _blob(repository, file).is_file())


def _arrived(repository: Path, file: _File) -> int:
    """Bytes that an interrupted download has left."""
    partial = _partial(repository, file)
    return partial.stat().st_size if file.sha256 and partial.is_file() else 0


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{needed / 1e9:.2f} GB are to be downloaded and {free / 1e9:.2f} GB are free in {folder}: "
            "make room, or set HF_HOME to a folder on another disk"
        )


def _fetch(name: str, commit: str, file: _File, repository: Path, advance: Callable[[int], None]) -> None:
    """Fetch a file from where an earlier attempt ended, and keep it if its SHA-256 is right."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(name, file.name, revision=commit)
    partial = _partial(repository, file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab", buffering=0) as growing:
        _lock(growing, name)
        while (before := growing.tell()) < file.size:
            try:
                _append(url, growing, advance)
            except Exception:
                if growing.tell() <= before:  # else some arrived, and the next attempt may bring the rest
                    raise
        if _sha256(partial) != file.sha256:
            partial.unlink()
            raise DownloadError(
                f"{file.name} of {name} arrived damaged (its SHA-256 is not {file.sha256[:16]}...), and was "
                "removed: run the same command again"
            )
        partial.rename(_blob(repository, file))


def _append(url: str, growing: BinaryIO, advance: Callable[[int], None]) -> None:
    """Request what is missing of a file and write what arrives. Raises `EOFError` where nothing does."""
    from huggingface_hub import get_session, get_token, utils

    library: Any = utils  # exports more than it declares
    start = growing.tell()
    headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    with get_session().stream("GET", url, headers=headers, timeout=_HUB_TIMEOUT) as response:
        library.hf_raise_for_status(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:  # all of it comes, from the first byte on
            growing.truncate(0)
            advance(-start)
        for block in response.iter_bytes(_BLOCK):
            growing.write(block)
            advance(len(block))
    if growing.tell() == start:
        raise EOFError("the hub sent nothing")


def _lock(file: BinaryIO, name: str) -> None:
    """Hold the file until it is closed, or this process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise DownloadError(f"{name} is being downloaded by another process: wait for it") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _hub_call(name: str) -> Iterator[None]:
    """Turn what the library raises into a `DownloadError`, and hide the library's own lines and bars."""
    from huggingface_hub import errors, utils

    library: Any = utils  # exports more than it declares
    log = logging.getLogger("huggingface_hub")
    level, has_bars = log.level, not library.are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    library.disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(f"{name} cannot be downloaded: HF_HUB_OFFLINE is set; unset it") from error
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{name} is gated: accept its terms on its page on the hub, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"the hub knows no model {name}: check the name (a private one needs `hf auth login`)"
        ) from error
    except Exception as error:  # of network libraries that change between versions
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "make room, or set HF_HOME to a folder on another disk"
        elif isinstance(error, OSError) and error.filename is not None:
            fix = "the hub's local cache must be writable; set HF_HOME to another folder"
        else:
            fix = "check the network"
        raise DownloadError(
            f"{name} cannot be downloaded ({in_a_line(error)}): {fix}, then run the same command "
            "again; what has arrived is kept"
        ) from error
    finally:
        log.setLevel(level)
        if has_bars:
            library.enable_progress_bars()
