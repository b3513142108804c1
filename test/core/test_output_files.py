"""Files are replaced or left alone, whatever happens meanwhile; folders of dead runs go."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from topreward_ros.core.output_files import (
    TEMPORARY,
    OutputFileError,
    is_same_file,
    is_stream,
    temporary_folder,
    write_file,
)

IS_ROOT = os.geteuid() == 0  # who may write everywhere


def python(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"from topreward_ros.core.output_files import *\n{code}"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_file(path, "ä\n")
    umask = os.umask(0)
    os.umask(umask)
    assert path.read_bytes() == "ä\n".encode() and stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    before = path.stat().st_ino
    write_file(str(path), b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino != before, "the old one is never changed in place"
    assert names(tmp_path) == ["r.json"]


@pytest.mark.skipif(not IS_ROOT, reason="only root writes the files of others")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.touch()
    os.chown(path, 1234, 1235)
    write_file(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_links_stay_and_lead_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link, dangling = tmp_path / "elsewhere" / "r.json", tmp_path / "link", tmp_path / "dangling"
    target.write_bytes(b"old")
    link.symlink_to("elsewhere/r.json")
    dangling.symlink_to("elsewhere/new.json")
    for path in (link, dangling):
        write_file(path, b"new")
        assert path.is_symlink() and path.read_bytes() == b"new"
    assert names(tmp_path / "elsewhere") == ["new.json", "r.json"]
    os.link(target, tmp_path / "hard")
    write_file(target, b"newer")
    assert (tmp_path / "hard").read_bytes() == b"new", "another name of the old file keeps the old file"


def test_what_is_no_file_is_written_directly(tmp_path: Path) -> None:
    fifo, heard = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: heard.append(fifo.read_bytes()))
    reader.start()
    write_file(fifo, b"through")
    reader.join(10.0)
    assert heard == [b"through"] and stat.S_ISFIFO(fifo.stat().st_mode)
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    with pytest.raises(OutputFileError, match=r"link cannot be written \(No space left .*\): make room"):
        write_file(link, b"x")


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """It is made here: a fault would replace the one of the machine."""
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.stat("/dev/null").st_rdev)
        null.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"devices cannot be made here: {error}")
    write_file(null, b"x")
    assert stat.S_ISCHR(null.stat().st_mode) and names(tmp_path) == ["null"]


WRITE = (
    "import sys\n"
    "try: write_file(sys.argv[1], bytes(int(sys.argv[2])))\n"
    "except OutputFileError as error: print(error)\n"
)


def test_a_mount_point_is_written_in_place(tmp_path: Path) -> None:
    """A file that a container is given by itself: no rename ever takes its place."""
    mounted, small = tmp_path / "out.json", tmp_path / "small"
    mounted.touch()
    small.mkdir()
    code = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "mounted, small, write = sys.argv[1:]\n"
        "def mount(*arguments):\n"
        "    if subprocess.run(['mount', *arguments]).returncode: sys.exit(77)\n"
        "mount('-t', 'tmpfs', '-o', 'size=64k', 'small', small)\n"
        "Path(small, 'file').write_bytes(b'old' * 100)\n"
        "mount('--bind', f'{small}/file', mounted)\n"
        "for size in ('5', '200000'):\n"
        "    subprocess.run([sys.executable, '-c', write, mounted, size])\n"
        "    print(Path(small, 'file').read_bytes(), flush=True)\n"
    )
    start = ["unshare", "--mount", *([] if IS_ROOT else ["--map-root-user"]), sys.executable, "-c", code]
    write = f"from topreward_ros.core.output_files import *\n{WRITE}"
    try:
        result = subprocess.run(
            [*start, str(mounted), str(small), write],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if result.returncode == 77 or result.stderr.startswith("unshare:"):
        pytest.skip(f"nothing can be mounted here: {result.stderr}")
    assert result.stderr == "" and result.stdout.splitlines() == [
        repr(bytes(5)),
        f"{mounted} cannot be written (No space left on device): make room, or name a file on another disk; "
        "what was there before is unchanged",
        repr(bytes(5)),
    ]
    assert names(tmp_path) == ["out.json", "small"]


@pytest.mark.skipif(not IS_ROOT, reason="only root becomes another user")
def test_a_file_of_somebody_else_in_a_sticky_folder_is_written_in_place() -> None:
    with tempfile.TemporaryDirectory() as name:  # where another user may go, other than in tmp_path
        folder, path = Path(name), Path(name) / "r.json"
        path.write_bytes(b"old" * 100)
        path.chmod(0o666)
        folder.chmod(0o1777)
        said = python(f"import os, sys; os.setgid(1234); os.setuid(1234)\n{WRITE}", path, 5)
        assert said.stdout == said.stderr == ""
        assert path.read_bytes() == bytes(5) and path.stat().st_uid == 0 and names(folder) == ["r.json"]


def test_what_can_only_be_a_folder_is_no_file(tmp_path: Path) -> None:
    for end in ("/", "/.", "//"):
        with pytest.raises(OutputFileError, match=r"new/.* cannot be written \(Is a directory\)"):
            write_file(f"{tmp_path}/new{end}", b"x")
    with pytest.raises(OutputFileError, match=r"a.b cannot be written \(embedded null .*\): name another"):
        write_file(f"{tmp_path}/a\0b", b"x")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_in_a_file_is_added_to(tmp_path: Path, name: str) -> None:
    """The shell has opened that file: whoever replaced it would take it away from the shell."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        name = str(tmp_path / "link")
    said = tmp_path / "said"
    said.write_text("before\n")
    with said.open("a") as output:
        code = "import sys; print('first', flush=True); write_file(sys.argv[1], 'then\\n')"
        assert python(code, name, stdout=output).returncode == 0
    assert said.read_text() == "before\nfirst\nthen\n"


def test_files_in_shared_memory_are_files(tmp_path: Path) -> None:
    assert not is_stream("/dev/shm/new.json") and not is_stream(tmp_path / "new.json")
    assert is_stream("/dev/stdout") and is_stream("/dev/null")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"old")
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: write_file(sys.argv[1], bytes(200_000))\n"
        "except OutputFileError as error: print(error)"
    )
    said = python(code, path)
    assert said.stdout == (
        f"{path} cannot be written (File too large): make room, or name a file on another disk; "
        "what was there before is unchanged\n"
    ), said.stderr
    assert path.read_bytes() == b"old" and names(tmp_path) == ["r.json"]


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "r.json", tmp_path / ("x" * 256)):
        with pytest.raises(OutputFileError, match=r"cannot be written .*: name another file; what was there"):
            write_file(path, b"x")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputFileError, match="Too many levels"):
        write_file(loop, b"x")
    write_file(tmp_path / ("ä" * 127), b"x")  # as long as a name may be
    assert len(names(tmp_path)) == 2


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_file_that_is_read_only_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"old")
    path.chmod(0o400)
    with pytest.raises(OutputFileError, match="Permission denied"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_an_interrupt_in_between_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["r.json"]


def test_the_temporary_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f".r.json.{drawn}{TEMPORARY}" for drawn in ("12345678", "abcdef01"))
    another = tmp_path / f".other.json.12345678{TEMPORARY}"
    for path in (dead, alive, another):
        path.write_bytes(b"part")
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_file(tmp_path / "r.json", b"new")
        assert names(tmp_path) == sorted([alive.name, another.name, "r.json"])
    write_file(tmp_path / "r.json", b"new")
    assert names(tmp_path) == sorted([another.name, "r.json"]), "another target's own"


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = "import sys\nfor _ in range(60): write_file(sys.argv[1], sys.argv[2] * 50_000)"
    path = tmp_path / "r.json"
    command = [sys.executable, "-c", f"from topreward_ros.core.output_files import *\n{code}", str(path)]
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen([*command, letter], cwd=root, stderr=subprocess.PIPE, text=True) for letter in "abc"
    ]
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == "" and writer.returncode == 0
    content = path.read_text()
    assert len(content) == 50_000 and len(set(content)) == 1 and names(tmp_path) == ["r.json"]


def test_two_names_of_one_file_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(tmp_path)
    there = tmp_path / "v.mp4"
    there.touch()
    (tmp_path / "link").symlink_to(there)
    os.link(there, "hard")
    for name in ("v.mp4", "./v.mp4", "link", "hard", "here/v.mp4"):
        assert is_same_file(there, name) and is_same_file(name, there)
    for name in ("new.png", "./new.png", "here/new.png", "NEW.png", "here/./here/New.PNG"):
        assert is_same_file(tmp_path / "new.png", name)
    assert not is_same_file("new.png", "newer.png") and not is_same_file("new.png", there)
    assert not is_same_file("v.mp4", "V.MP4") or (tmp_path / "V.MP4").exists()


def test_a_temporary_folder_goes_with_its_run_or_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    start = "topreward-test-"
    (tmp_path / "topreward-test-file").touch()  # no folder: not ours
    with temporary_folder(start) as alive, temporary_folder(start) as other:
        assert alive != other and alive.is_dir() and other.is_dir()
    with pytest.raises(ValueError, match="failed"), temporary_folder(start):
        raise ValueError("failed")
    assert names(tmp_path) == ["topreward-test-file"]

    with pytest.raises(ValueError, match="kept"), temporary_folder(start, keep_on_error=True) as kept:
        (kept / "a.log").touch()
        raise ValueError("kept")
    assert (kept / "a.log").exists()
    code = (
        "import os, signal, tempfile, sys\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "with temporary_folder('topreward-test-') as folder:\n"
        "    (folder / 'b').mkdir()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert python(code, tmp_path).returncode == -signal.SIGKILL
    (killed,) = (path for path in tmp_path.glob(f"{start}*") if path.is_dir())
    assert killed != kept, "the run before was over"
    with temporary_folder(start) as now:
        assert names(tmp_path) == sorted([now.name, "topreward-test-file"])
