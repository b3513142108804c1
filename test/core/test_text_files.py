"""Files of text as people's editors write them."""

from __future__ import annotations

import codecs
import os

import pytest

from topreward_ros.core.text_files import TextFileError, read_text

TEXT = "open the drawer\nfermer le caf\u00e9\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
        TEXT.replace("\n", "\r").encode(),
        TEXT.replace("\n", "\r\n").encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
)
def test_what_an_editor_writes_is_read(tmp_path, content):
    (tmp_path / "mine.txt").write_bytes(content)
    assert read_text(tmp_path / "mine.txt") == TEXT


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (TEXT.encode("latin-1"), r"mine\.txt, line 2: the byte 0xe9 is not UTF-8: save the file in UTF-8"),
        (TEXT.encode("utf-16-le"), r"mine\.txt, line 1: there is a NUL byte.*save the file in UTF-8"),
        (b"a\nb\n\0", r"mine\.txt, line 3: there is a NUL byte"),
        (TEXT.encode("utf-16")[:-1], r"mine\.txt is damaged UTF-16 .*save it in UTF-8"),
        (TEXT.encode("utf-32"), r"mine\.txt is in UTF-32: save it in UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "run `git lfs pull` in /"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, named):
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(TextFileError, match=named):
        read_text(tmp_path / "mine.txt")


def test_what_may_have_no_end_is_refused_unread(tmp_path):
    endless, pipe, huge = (tmp_path / name for name in ("endless", "pipe", "huge"))
    endless.symlink_to("/dev/zero")
    os.mkfifo(pipe)  # nobody writes into it
    with huge.open("wb") as file:
        file.truncate(3 << 30)
    for path in (endless, pipe):
        with pytest.raises(
            TextFileError, match=rf"{path.name} is a pipe or a device, and no file: name a file"
        ):
            read_text(path)
    with pytest.raises(TextFileError, match=r"huge has more than 100 MiB, which no text file here needs"):
        read_text(huge)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TextFileError, match=r"nowhere\.txt cannot be read \(No such file"):
        read_text(tmp_path / "nowhere.txt")
    with pytest.raises(TextFileError, match=r"cannot be read \(Is a directory"):
        read_text(tmp_path)
