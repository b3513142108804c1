"""Text files that people write: their bytes become text, or a sentence that says why they cannot.

A file is UTF-8, with a byte order mark (BOM) or without, as Windows' Notepad writes it. It may be UTF-16
where a byte order mark says so, as PowerShell's `>` writes it. Any other encoding is refused, because a guess
could turn letters into others without a word. Line ends become ``\\n``. What a text means is not looked at
here.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from topreward_ros.core.errors import UserError
from topreward_ros.core.plain_files import PlainFileError, TooLargeError, read_plain
from topreward_ros.core.printable import printable

#: How the pointer begins that git leaves in the place of a file which git LFS keeps elsewhere.
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_MOST = 100 << 20  # [bytes]; the largest tokenizer.json that is known has a third
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TextFileError(UserError):
    """A file is no text that can be read."""


def read_text(path: Path) -> str:
    """The text in the file ``path``. Raises `TextFileError`, which names file, line and mend."""
    try:
        content = read_plain(path, _MOST)
    except TooLargeError as error:
        raise TextFileError(
            f"{printable(str(path))} {error}, which no text file here needs: restore it, or name another file"
        ) from error
    except PlainFileError as error:
        raise TextFileError(f"{printable(str(path))} {error}") from error
    except OSError as error:
        raise TextFileError(
            f"{printable(str(path))} cannot be read ({error.strerror or error}): name a text file in UTF-8"
        ) from error
    if is_git_lfs_pointer(content):
        raise TextFileError(f"{printable(str(path))} {lfs_mend(path.parent)}")
    return decode(content, str(path))


def decode(content: bytes, name: str) -> str:
    """``content`` of a file ``name`` as text. Raises `TextFileError`, which names file, line and mend."""
    where = printable(name)
    if content.startswith(_UTF32):
        raise TextFileError(f"{where} is in UTF-32: save it in UTF-8")
    encoding = "utf-16" if content.startswith(_UTF16) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise TextFileError(
            f"{where}, line {line}: there is a NUL byte, so this is no text, or UTF-16 without its mark: "
            "save the file in UTF-8"
        )
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise TextFileError(f"{where} is damaged UTF-16 ({error.reason}): save it in UTF-8") from error
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
        raise TextFileError(
            f"{where}, line {line}: the byte 0x{byte:02x} is not UTF-8: save the file in UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_git_lfs_pointer(content: bytes) -> bool:
    """Whether a file with ``content`` (the beginning will do) only says where git LFS keeps the file."""
    return content.startswith(_GIT_LFS)


def lfs_mend(folder: Path) -> str:
    """What to say of a pointer of git LFS in ``folder``, after its name."""
    return f"is a pointer of git LFS, not the file itself: run `git lfs pull` in {printable(str(folder))}"
