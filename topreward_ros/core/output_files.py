"""Files that this package writes: at any moment the old one is there or the new one, never a part of one.

The content goes to a temporary file beside the target, is brought to the disk (fsync) and takes the target's
name by a rename. Whoever is killed on the way leaves the target as it was and at most a hidden file whose
name ends in `TEMPORARY`, which the next writer of the same target removes. The writer holds a lock (flock)
on its temporary file, which the kernel releases with the process: that tells the dead from the living.

A file whose name cannot be taken is the exception: one that is a mount point itself (a file that a container
is given), or one of somebody else in a folder such as /tmp. It is written in place, so whoever is killed in
that moment leaves a part, and two writers at once are not kept apart.

A folder that is filled over a longer time has a name of its own meanwhile (`FolderInProgress`), in the sight
of people, and keeps it when its writer is killed: somebody may want what is in it.

Folders for files that are needed for the time of a run only are made here as well, and removed by the next
run where this one was killed. What a file holds, and which options name it, is not known here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

TEMPORARY = ".topreward-tmp"  #: the end of the name of every temporary file
PARTIAL = ".partial"  #: the end of the name of a folder that is still being written
_NAME_PART = 48  # characters of the target's name in that of its temporary file, which has at most 255 bytes
_MOST_LINKS = 40  # that are followed, as Linux does
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of file systems that have no fsync


class OutputFileError(UserError):
    """A file cannot be written. What was there before is unchanged, unless the message says otherwise."""


class NameTakenError(OutputFileError):
    """A new folder cannot have its name: something of that name is there."""


def write_file(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, all of it or nothing. Raises `OutputFileError`.

    A file that is there is replaced and hands down its mode and, where that is allowed, its owner, but no
    access list (ACL) and no extended attribute; one that is read-only is refused. A symbolic link stays, and
    the file that it leads to is replaced; a second hard link keeps the old file. A file that cannot be
    replaced because it is a mount point, or for its owner, is written in place, with what it had before
    restored where that fails. What is no file (`/dev/stdout`, a named pipe) is written to directly.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        if names_a_folder(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_stream(path):
            with open(path, "ab") as stream:  # to append also where the shell put a file there
                stream.write(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        number, why = getattr(error, "errno", None), getattr(error, "strerror", None) or error
        mend = "make room, or name a file on another disk" if number in _NO_ROOM else "name another file"
        was = "is lost" if isinstance(error, _NotRestoredError) else "is unchanged"
        raise OutputFileError(
            f"{printable(os.fspath(path))} cannot be written ({why}): {mend}; what was there before {was}"
        ) from error


def names_a_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` can only be a folder, whatever is there: it ends in a slash or a dot of its own."""
    return os.path.basename(os.fspath(path)) in ("", os.curdir, os.pardir)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` leads to something that cannot be replaced by a file: a device, a pipe, a descriptor.

    Raises `OSError` where that cannot be looked up.
    """
    step = os.fspath(path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(step)
        step = os.path.join(os.path.realpath(folder), name)
        if step.startswith("/proc/"):  # where /dev/stdout and /dev/fd lead: a file that is open already
            return True
        if not os.path.islink(step):
            break
        step = os.path.join(os.path.dirname(step), os.readlink(step))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths, of which none need exist, lead to one file, by whatever names and links.

    Of two that do not exist, names that differ in case alone count as one: on some disks they are.
    """
    there = os.path.exists(one), os.path.exists(other)
    if all(there):
        return os.path.samefile(one, other)
    if any(there):
        return False
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return first.name.casefold() == second.name.casefold() and (
        first.parent == second.parent or is_same_file(first.parent, second.parent)
    )


def _replace(target: Path, data: bytes) -> None:
    try:
        before = os.stat(target)
    except FileNotFoundError:
        before = None
    if before is not None:
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    start = f".{target.name[:_NAME_PART]}."
    _remove_leftovers(target.parent, start)
    temporary, file = _create(target.parent, start)
    try:
        with file:
            if before is not None:
                with suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(data)
            file.flush()
            _sync(file.fileno())
            try:
                os.replace(temporary, target)
            except OSError:
                if before is None:
                    raise
                _write_in_place(target, data)
                temporary.unlink()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError), _opened(target.parent) as folder:  # the rename, too, is to outlive a power cut
        os.fsync(folder)


class _NotRestoredError(OSError):
    """A file could be neither written in place nor restored."""


def _write_in_place(target: Path, data: bytes) -> None:
    """Write over the file ``target``; where that fails, its content is restored. Raises `OSError`."""
    with open(target, "r+b") as file:
        before = file.read()
        try:
            _write_over(file.fileno(), data)
        except BaseException as error:
            try:
                _write_over(file.fileno(), before)  # for which there is room: nothing has been cut off yet
            except OSError as again:
                raise _NotRestoredError(again.errno, again.strerror) from error
            raise


def _write_over(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], written)
    os.ftruncate(descriptor, len(data))
    _sync(descriptor)


def _create(folder: Path, start: str) -> tuple[Path, BinaryIO]:
    """A temporary file in ``folder`` that nobody else uses, opened and locked."""
    while True:
        path = folder / f"{start}{token_hex(4)}{TEMPORARY}"
        # With this mode the umask decides, as for every new file.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if _lock(descriptor) is not False and path.exists():  # not taken for a leftover in between
            return path, os.fdopen(descriptor, "wb")
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _lock(descriptor: int) -> bool | None:
    """Take the lock of a file or folder until it is closed. False: another has it; None: no locks here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path, start: str) -> None:
    """Remove temporary files in ``folder`` whose names begin with ``start`` and whose writers are dead."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(start) and name.endswith(TEMPORARY):
                with suppress(OSError), _opened(folder / name) as descriptor:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
                        os.unlink(folder / name)


def copy_into(source: Path, target: Path) -> None:
    """Copy a file to ``target`` in a `written_folder`, which brings it to the disk. Raises `OSError`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@contextmanager
def kept_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder ``path``, made where it is missing, for one process at a time; it stays, for the next one.

    One that is left empty is removed. Raises `OutputFileError` where another process has it, or where it
    cannot be made.
    """
    folder = Path(os.path.abspath(path))
    shown = printable(str(folder))
    try:
        descriptor = _made_and_opened(folder)
    except OSError as error:
        raise OutputFileError(
            f"{shown} cannot be made ({error.strerror or error}): name an output in a folder that you may "
            "write to"
        ) from error
    try:
        if _lock(descriptor) is False:
            raise OutputFileError(f"another process works in {shown}: wait until it is done, or end it")
        try:
            yield folder
        finally:
            _remove_empty([folder])
    finally:
        os.close(descriptor)


def _made_and_opened(folder: Path) -> int:
    """A descriptor of ``folder``, which is made where it is missing. Raises `OSError`."""
    while True:
        folder.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process has just removed it
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextmanager
def folder_for(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have the folder ``path`` for what is to come into it, and those above it.

    Of the folders that were missing, those that are still empty at the end are removed. Raises
    `OutputFileError` where it cannot be made.
    """
    try:
        made = _make_folders(Path(path))
    except (OSError, ValueError) as error:
        raise _folder_error(Path(path), error) from error
    try:
        yield
    finally:
        _remove_empty(made)


def _make_folders(path: Path) -> list[Path]:
    """Make ``path`` and the folders above it; those that were missing, the deepest first. Raises `OSError`.

    Where one of them cannot be made, none is left.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except BaseException:
        _remove_empty(missing)
        raise
    return missing


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()  # which refuses one in which something is


@contextmanager
def temporary_folder(start: str, *, keep_on_error: bool = False) -> Iterator[Path]:
    """A folder in the system's temporary directory, with a name that begins with ``start``.

    It is removed at the end. Earlier ones of the same user are removed first where their process is dead: it
    was killed, or ended by an error with ``keep_on_error``. Raises `OSError`.
    """
    _remove_left_folders(start)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=start))
        with _opened(folder) as descriptor:
            if _lock(descriptor) is False or not folder.exists():  # taken for a left one in between
                continue
            try:
                yield folder
            except BaseException:
                if not keep_on_error:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return


def _remove_left_folders(start: str) -> None:
    home = Path(tempfile.gettempdir())
    with suppress(OSError):
        for name in os.listdir(home):
            if name.startswith(start):
                with suppress(OSError), _opened(home / name) as descriptor:
                    found = os.fstat(descriptor)
                    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and _lock(descriptor):
                        shutil.rmtree(home / name, ignore_errors=True)


class FolderInProgress:
    """A new folder that is named ``NAME.partial`` while it is being written, and NAME when it is whole.

    Its writer holds a lock on it. Where that is killed the folder stays as it is, for `left_folders` to find.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        """Make the folder, and those above it. Raises `OutputFileError` where either name is taken."""
        self.target = Path(target)  #: the name that it is to have
        self.path = self.target.with_name(self.target.name + PARTIAL)  #: the name that it has until then
        self._descriptor = -1
        self._made: list[Path] = []  # of the folders above it
        if names_a_folder(target) or os.path.lexists(self.target):
            raise NameTakenError(f"{printable(str(target))} is there already: name another folder")
        try:
            self._made = _make_folders(self.target.parent)
            self.path.mkdir()
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileExistsError as error:
            raise NameTakenError(
                f"{printable(str(self.path))} is there already: somebody is writing it, or was killed while "
                "doing so; name another folder, or move it away"
            ) from error
        except (OSError, ValueError) as error:
            _remove_empty([self.path, *self._made])
            raise _folder_error(self.path, error) from error
        _lock(self._descriptor)

    @classmethod
    def left(cls, path: Path) -> FolderInProgress | None:
        """Take over the folder ``path`` that a dead writer has left; None where the writer lives."""
        folder = cls.__new__(cls)
        folder._made = []
        folder.path = path
        folder.target = path.with_name(path.name.removesuffix(PARTIAL))
        try:
            folder._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _folder_error(path, error) from error
        if _lock(folder._descriptor) is False or not path.exists():
            folder._close()
            return None
        return folder

    def finish(self, target: str | os.PathLike[str] | None = None) -> Path:
        """Bring all to the disk and give the folder its name, or ``target`` beside it. Returns the name.

        Raises `OutputFileError` where the name was taken meanwhile; the folder then keeps the one it has.
        """
        self.target = Path(target) if target is not None else self.target
        try:
            for above, _, names in os.walk(self.path):
                for name in names:
                    with _opened(Path(above) / name) as descriptor:
                        _sync(descriptor)
            _sync(self._descriptor)
            if os.path.lexists(self.target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.target))
            os.rename(self.path, self.target)  # which refuses a folder that somebody has just filled
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise _folder_error(self.target, error, f"; what was written is in {self.path}") from error
            raise NameTakenError(
                f"{printable(str(self.target))} is there already: what was written is in "
                f"{printable(str(self.path))}"
            ) from error
        with suppress(OSError), _opened(self.target.parent) as folder:
            os.fsync(folder)
        self._close()
        return self.target

    def discard(self) -> None:
        """Remove the folder and all that is in it, and those above it that were made for it alone."""
        shutil.rmtree(self.path, ignore_errors=True)
        _remove_empty(self._made)
        self._close()

    def release(self) -> None:
        """Leave the folder as it is, as if its writer had been killed."""
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def written_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A `FolderInProgress` that has its name ``path`` once it is filled, and is removed where that fails.

    One that a killed writer has left is removed first: whoever comes again makes it anew. Raises
    `OutputFileError`, also for an `OSError` of the filling.
    """
    target = Path(path)
    partial = target.with_name(target.name + PARTIAL)
    if partial.is_dir() and not partial.is_symlink() and not os.path.lexists(target):
        left = FolderInProgress.left(partial)
        if left is None:
            raise OutputFileError(
                f"{printable(str(target))} is being written by another process: wait for it, or name another "
                "folder"
            )
        left.discard()
    folder = FolderInProgress(target)
    try:
        yield folder.path
        folder.finish()
    except BaseException as error:
        folder.discard()
        if isinstance(error, OSError):
            raise _folder_error(target, error, "; nothing of it is left") from error
        raise


def left_folders(parent: Path) -> list[Path]:
    """The folders in ``parent`` that writers have left who were killed, by name."""
    found = []
    with suppress(OSError):
        for path in sorted(parent.iterdir()):
            if path.name.endswith(PARTIAL) and path.is_dir() and not path.is_symlink():
                with suppress(OutputFileError):
                    if folder := FolderInProgress.left(path):
                        folder.release()
                        found.append(path)
    return found


def _folder_error(path: Path, error: Exception, more: str = "") -> OutputFileError:
    number, why = getattr(error, "errno", None), getattr(error, "strerror", None) or error
    mend = "make room, or name a folder on another disk" if number in _NO_ROOM else "name another folder"
    return OutputFileError(f"{printable(str(path))} cannot be written ({why}): {mend}{printable(more)}")
