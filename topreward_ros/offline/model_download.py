"""Downloads a model from the Hugging Face hub into its local cache, as a step of the setup.

Files are fetched by `hf_hub_download`, one after the other, so that Ctrl-C ends it at once. (The library's
`snapshot_download` does the same in threads, and waits for them.) What stands here is what a hub is not
trusted with: that the model is of the right kind and the disk has room, before gigabytes are fetched; that no
file is longer or shorter than the hub said; that it sends us to sleep for no longer than half a minute, and
lists its files in bounded space and time; that nothing of what it says becomes a path outside the cache; and
that the SHA-256 of all weights is right, before the model counts as present.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from topreward_ros.core.errors import UserError
from topreward_ros.core.output_files import write_file
from topreward_ros.scoring.base import EMBEDDED, in_a_line
from topreward_ros.scoring.checkpoint.checkpoint import read_config
from topreward_ros.scoring.checkpoint.folder import is_hub_id, missing_files, text_folder
from topreward_ros.scoring.checkpoint.reward_format import base_model_of
from topreward_ros.scoring.checkpoint.weight_files import WHOLE, shards_of
from topreward_ros.scoring.plugins import is_plugin
from topreward_ros.scoring.served_models import is_served

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_HUB_TIMEOUT = 10.0  # [s] until a hub that does not answer is given up
_LONGEST_WAIT_S = 30  # until another request, if the hub wants one
_LARGEST_ANSWER = 64 << 20  # [bytes] that is no file: the list of files, or an error
_LONGEST_ANSWER_S = 120.0
_BLOCK = 1 << 20  # [bytes] read at once
_SMALL_FILES = ("*.json", "*.jinja", "README.md", "LICENSE*")
_TEXT_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json"),
)
_LARGEST_TEXT_FILE = 100_000_000  # [bytes]; Qwen's tokenizer.json has 11 million
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GIT_BLOB = _COMMIT
_RESET = re.compile(r";\s*t=(\d+)")  # of the header "ratelimit": seconds until requests are answered again
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CACHE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")  # of a file in the cache: no path
_LIES = "it is no hub, or a broken one: check HF_ENDPOINT"


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
    git_blob: str = ""  #: of a small file, where the hub gives it: SHA-1 as git makes it

    @classmethod
    def of(cls, model: str, sibling: RepoSibling) -> _File:
        """What the hub says of a file of ``model``. Raises `DownloadError` where that cannot be."""
        size, sha256 = sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None
        if not isinstance(size, int) or size < 0 or (sibling.lfs and not _SHA256.fullmatch(str(sha256))):
            raise DownloadError(
                f"the hub says that {sibling.rfilename} of {model} has {size!r:.40} bytes and the SHA-256 "
                f"{sha256!r:.80}, which is no number and 64 hexadecimal digits: {_LIES}"
            )
        is_blob = not sibling.lfs and _GIT_BLOB.fullmatch(str(sibling.blob_id))
        return cls(sibling.rfilename, size, sha256 or "", str(sibling.blob_id) if is_blob else "")

    def problem(self, path: Path) -> str:
        """What is wrong with this file at ``path`` by what is quick to see: not the SHA-256 of weights."""
        if not path.is_file():
            return "is not there"
        if (size := path.stat().st_size) != self.size:
            return f"has {size} bytes instead of {self.size}"
        if self.git_blob:
            content = path.read_bytes()
            if (
                hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False).hexdigest()
                != self.git_blob
            ):
                return "has another content than the hub says"
        return ""


def why_nothing_to_download(name: str) -> str:
    """Why the model ``name`` needs no download; empty where it may be on the hub."""
    if name == EMBEDDED:
        return f"'{name}' is part of this package: nothing is to be downloaded"
    if is_served(name):
        return f"{name} is the URL of a server, which has the model: nothing is to be downloaded"
    if is_plugin(name):
        return f"{name} is a plug-in, which a package on this machine brings: nothing is to be downloaded"
    try:
        is_folder = bool(name) and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError):
        is_folder = False
    return f"{name} is a folder on this machine: nothing is to be downloaded" if is_folder else ""


def download_model(name: str, progress: DownloadProgress) -> Path:
    """Download the model ``name`` of the hub, or what is missing of it; returns its folder.

    The next call goes on with the file at which one was interrupted; within a file it does where the hub has
    it in chunks (Xet) and ``hf_xet`` is installed. A Robometer comes with the tokenizer of the model that it
    was trained from. Raises `DownloadError` and, for a model that cannot be scored with, `ScorerError`.
    """
    if not is_hub_id(name):
        raise DownloadError(
            f"{name!r} is no model of the hub: those are written ORG/NAME, as Qwen/Qwen3-VL-8B-Instruct"
        )
    commit, offered = _look_up(name)
    fetch = partial(_fetch, name, commit)
    folder = fetch(offered["config.json"]).parent
    read_config(folder)
    needs_base = "tokenizer.json" not in offered and text_folder(folder) is None
    if needs_base and is_hub_id(base := base_model_of(folder)):
        _download_text_files(base)
    files = _needed(fetch, offered)
    missing = [file for file in files if file.problem(folder / file.name)]
    size = sum(file.size for file in missing)
    cache = folder.parent.parent  # of this model: blobs/, refs/ and snapshots/
    main = cache / "refs" / "main"  # which makes the model present
    is_checked = main.is_file() and main.read_text() == commit
    _remove_leftovers(cache)
    _check_room(cache, size)
    if missing:
        progress.begin(len(missing), size, cache)
    for file in missing:
        fetch(file, progress.advance)
    for file in missing if is_checked else files:
        _check_hash(name, file, folder / file.name)
    if lacking := missing_files(folder):
        raise DownloadError(
            f"{name} has no {' and no '.join(lacking)} on the hub: it is no whole checkpoint; choose another"
        )
    if not is_checked:
        _make_present(folder)
    return folder


def _look_up(name: str) -> tuple[str, dict[str, _File]]:
    """Commit and files of a checkpoint on the hub. Raises `DownloadError`."""
    import huggingface_hub

    with _hub_call(name):
        about = huggingface_hub.HfApi().model_info(name, timeout=_HUB_TIMEOUT, files_metadata=True)
    commit = str(about.sha)
    if not _COMMIT.fullmatch(commit):
        raise DownloadError(f"the hub says that {name} is at commit {commit!r:.80}: {_LIES}")
    for sibling in about.siblings or []:
        if not isinstance(sibling.rfilename, str):
            raise DownloadError(f"the hub names a file of {name} {sibling.rfilename!r:.40}, no text: {_LIES}")
    offered = {
        sibling.rfilename: _File.of(name, sibling)
        for sibling in about.siblings or []
        if _CACHE_NAME.fullmatch(sibling.rfilename)  # others, and those in folders, are not needed
    }
    if "config.json" not in offered:
        raise DownloadError(f"{name} has no config.json: it is no checkpoint; choose another")
    return commit, offered


def _download_text_files(name: str) -> None:
    """Fetch what a Robometer takes of the model ``name``: no weights."""
    commit, offered = _look_up(name)
    for wanted in _TEXT_FILES:
        if file := offered.get(wanted):
            if file.size > _LARGEST_TEXT_FILE:
                raise DownloadError(f"the hub says that {wanted} of {name} has {file.size} bytes: {_LIES}")
            path = _fetch(name, commit, file)
            _check_hash(name, file, path)
    _make_present(path.parent)


def _make_present(folder: Path) -> None:
    """Let ``folder``, a snapshot in the cache, be that of its model."""
    main = folder.parent.parent / "refs" / "main"
    main.parent.mkdir(exist_ok=True)
    write_file(main, folder.name)


def _fetch(name: str, commit: str, file: _File, advance: Callable[[int], None] = lambda _: None) -> Path:
    """Fetch a file into the cache, unless it is there and right; returns its path. Raises `DownloadError`."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache, utils

    library: Any = utils  # exports more than it declares

    class Counter(library.tqdm):  # type: ignore[misc]
        """Takes the place of the library's progress bar, which hears of bytes before they are written."""

        arrived = 0

        def update(self, size: float | None = 1) -> None:
            self.arrived += int(size or 0)
            if self.arrived > file.size:
                raise DownloadError(
                    f"{file.name} of {name} is longer than the {file.size} bytes that the hub states, and "
                    f"was given up: {_LIES}"
                )
            advance(int(size or 0))

        def update_transfer(self, size: float | None = 1) -> None:
            """Chunks on the network (Xet), which are no bytes of the file yet."""

        def set_transfer_postfix_str(self, *_: object, **__: object) -> None:
            """What the library says of these chunks."""

    with _hub_call(name, commit):
        here = try_to_load_from_cache(name, file.name, revision=commit)
        was_here = isinstance(here, str)
        if isinstance(here, str) and file.problem(Path(here)):
            _remove(Path(here))
            was_here = False
        path = Path(
            hf_hub_download(name, file.name, revision=commit, tqdm_class=Counter, etag_timeout=_HUB_TIMEOUT)
        )
    if not was_here:
        _check_place(name, file, path)
    if problem := file.problem(path):
        _remove(path)
        raise DownloadError(
            f"{file.name} of {name} arrived damaged: it {problem}. It was removed: run the same command "
            "again; if that is of no use, the hub or a proxy on the way is broken: check HF_ENDPOINT"
        )
    return path


def _remove(path: Path) -> None:
    """Remove a file of a snapshot from the cache, and its content if that is in the cache, too."""
    content, models = path.resolve(), path.parent.parent.parent.parent.resolve()
    path.unlink()
    if models in content.parents:  # else somebody has put a link there
        content.unlink(missing_ok=True)


def _check_place(name: str, file: _File, path: Path) -> None:
    """Raise `DownloadError` where a file that was fetched to ``path`` lies outside the cache after all."""
    cache, content = path.parent.parent.parent, path.resolve()
    # blobs/ of the model, or that of all models, to which the library links; either may be a link itself.
    places = [place.resolve() for place in (cache, cache / "blobs", cache.parent / "blobs")]
    if not any(place in content.parents for place in places):
        path.unlink()
        raise DownloadError(
            f"{file.name} of {name} leads to {content}, outside the cache {cache}, and does not count: "
            f"{_LIES}, and look for links in {cache / 'blobs'}"
        )


def _needed(fetch: Callable[[_File], Path], offered: dict[str, _File]) -> list[_File]:
    """The files that we need: the small ones, and the weights that will be loaded."""
    small = [name for name in offered if any(fnmatch(name, pattern) for pattern in _SMALL_FILES)]
    weights: list[str] = []
    for whole in WHOLE:
        index = offered.get(f"{whole}.index.json")
        if whole in offered:
            weights = [whole]
        elif index:
            weights = [shard for shard in shards_of(fetch(index)) if shard in offered]
        if weights:
            break
    return [offered[name] for name in dict.fromkeys([*small, *weights])]


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{needed / 1e9:.2f} GB are to be downloaded and {free / 1e9:.2f} GB are free in {folder}: "
            "make room, or set HF_HOME to a folder on another disk"
        )


def _check_hash(name: str, file: _File, path: Path) -> None:
    """Raise `DownloadError` and remove a file whose SHA-256 is not what the hub says."""
    if not file.sha256:
        return
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != file.sha256:
        _remove(path)
        raise DownloadError(
            f"{file.name} of {name} arrived damaged (its SHA-256 is not {file.sha256[:16]}...), and was "
            "removed: run the same command again"
        )


def _remove_leftovers(cache: Path) -> None:
    """Remove what downloads that were killed have left: parts of files, under names that never come again."""
    from huggingface_hub import utils

    library: Any = utils
    for path in (cache / "blobs").glob("*.*.incomplete"):
        lock = cache.parent / ".locks" / cache.name / f"{path.name.rsplit('.', 2)[0]}.lock"
        with suppress(OSError), library.WeakFileLock(lock, timeout=0.1):  # else somebody is at it
            path.unlink()


def _refuse_long_waits(response: Any) -> None:
    """Raise `DownloadError` where the library would sleep for long, as the hub says, and tell nobody."""
    if response.status_code != 429 and response.status_code < 500:
        return
    said = [
        response.headers.get("Retry-After", "").strip(),
        *_RESET.findall(response.headers.get("ratelimit", "")),
    ]
    waits = [int(wait[:12]) for wait in said if wait.isascii() and wait.isdigit()]
    if max(waits, default=0) > _LONGEST_WAIT_S:
        raise DownloadError(
            f"the hub answers with status {response.status_code} and wants no request for {max(waits)} s: "
            "run the same command again then (`hf auth login` allows more); files that are complete are kept"
        )


def _bound(response: Any) -> None:
    """Let an answer that is no file end by an error where it is too long, or takes too long."""
    http: Any = import_module(type(response).__module__.partition(".")[0])  # which one huggingface_hub uses

    class Bounded(http.SyncByteStream):  # type: ignore[misc]
        """The bytes of an answer, up to a bound."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            arrived, end = 0, time.monotonic() + _LONGEST_ANSWER_S
            for part in self._stream:
                arrived += len(part)
                if arrived > _LARGEST_ANSWER or time.monotonic() > end:
                    raise DownloadError(
                        f"an answer of the hub was given up after {arrived / 1e6:.1f} MB: {_LIES}"
                    )
                yield part

        def close(self) -> None:
            self._stream.close()

    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"the hub compresses its answer, which it was asked not to do: {_LIES}")
    response.stream = Bounded(response.stream)


def _check_answer(response: Any, commit: str | None) -> None:
    """Look at an answer of the hub before the library does. Raises `DownloadError`."""
    _refuse_long_waits(response)
    if commit is not None:
        _refuse_paths(response, commit)
    if commit is None or response.status_code >= 300:
        _bound(response)


def _ask_for_bytes(request: Any) -> None:
    """Want no compressed answer, whose length says little."""
    request.headers["Accept-Encoding"] = "identity"


def _refuse_paths(response: Any, commit: str) -> None:
    """Raise `DownloadError` where a path that the hub says would become one of this machine."""
    chunks = response.headers.get("X-Xet-Cas-Url", "https://")  # hf_xet makes files at a local:// one
    if not chunks.startswith(("https://", "http://")):
        raise DownloadError(f"the hub sends for chunks to {chunks!r:.80}, which is no web address: {_LIES}")
    if response.request.method != "HEAD":  # of the others no header becomes a name
        return
    said = response.headers.get("X-Repo-Commit", commit)
    etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag") or "none"
    if said != commit:
        raise DownloadError(f"the hub was asked for commit {commit} and answers with {said!r:.80}: {_LIES}")
    if not _CACHE_NAME.fullmatch(etag.removeprefix("W/").strip('"')):
        raise DownloadError(f"the hub gives a file the ETag {etag!r:.80}, which is no name: {_LIES}")


@contextmanager
def _checked_answers(commit: str | None) -> Iterator[None]:
    """Let `_check_answer` look at every answer that the library gets.

    It is the factory that is replaced: the library closes its client after an error of the network, and makes
    another.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    library: Any = _http  # the factory that is in use can be set, and is told nowhere else
    make = library._GLOBAL_CLIENT_FACTORY

    def make_checked() -> Any:
        client = make()
        hooks = client.event_hooks
        check = partial(_check_answer, commit=commit)
        client.event_hooks = {
            "request": [*hooks.get("request", []), _ask_for_bytes],
            "response": [*hooks.get("response", []), check],
        }
        return client

    set_client_factory(make_checked)  # and close the client that is there
    try:
        yield
    finally:
        set_client_factory(make)


@contextmanager
def _hub_call(name: str, commit: str | None = None) -> Iterator[None]:
    """Turn what the library raises into a `DownloadError`, and hide the library's own lines and bars.

    Every answer of the hub is looked at before the library uses it; with ``commit``, for what would become a
    path, too.
    """
    from huggingface_hub import errors, utils

    library: Any = utils  # exports more than it declares
    log = logging.getLogger("huggingface_hub")
    level, has_bars = log.level, not library.are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    library.disable_progress_bars()
    try:
        with _checked_answers(commit):
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
        # Where a file is not here either, the library tells why the hub did not answer in the cause alone.
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
        why = cause or error
        if isinstance(why, OSError) and why.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fix = "make room, or set HF_HOME to a folder on another disk"
        elif isinstance(why, OSError) and why.filename is not None:
            fix = "the hub's local cache must be writable; set HF_HOME to another folder"
        elif getattr(getattr(why, "response", None), "status_code", 0) in (401, 403):
            fix = "log in by `hf auth login` as somebody who may read it"
        elif os.environ.get("HF_ENDPOINT"):
            fix = "check the network and HF_ENDPOINT"
        else:
            fix = "check the network"
        raise DownloadError(
            f"{name} cannot be downloaded ({in_a_line(why)}): {fix}, then run the same command "
            "again; files that are complete are kept"
        ) from error
    finally:
        log.setLevel(level)
        if has_bars:
            library.enable_progress_bars()
