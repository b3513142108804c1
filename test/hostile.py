"""Texts that nobody should send, put in turn into every place of a value that takes a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

#: What a line break is to make look like one of our own lines.
FAKE = "[INFO] [1700000000.000000000] [monitor]: SUCCESS in episode 'e1'"

#: By what is wrong with them; each begins and ends with letters, so that it can be found again.
TEXTS = {
    "C0": "ab" + "".join(map(chr, range(0x20))) + "\x7fyz",
    "C1": "ab" + "".join(map(chr, range(0x80, 0xA0))) + "yz",
    "escapes": "ab\x1b[2J\x1b[31m\x1b]0;title\x07\x1b]8;;http://x\x1b\\\x9b2J\x9d0;t\x9cyz",
    "lines": f"ab\n{FAKE}\r\n{FAKE}\x0b\x0c\x85{FAKE}\u2028{FAKE}\u2029yz",
    "direction": "ab\u202e\u2066\u2069\u200f\u061c\u202ayz",
    "no text": "ab\ufffe\uffff\U0001ffff\ufdd0\U000e0041\ue000\u200b\ufeffyz",
    "surrogates": "ab\udc80\udcff\ud83dyz",
    "markup": "ab[/red][bold]\\[link=http://x]<b>&amp;]]><!-- $x^$ -->yz",
    "wide": "ab" + "\u8a9e\U0001f600e\u0301" * 60 + "yz",
    "long": "ab" + "long text " * 100_000 + "yz",
}
#: Those that ROS 2 can send: its texts are UTF-8 and end at a zero.
SENT = {name: text.replace("\0", "") for name, text in TEXTS.items() if name != "surrogates"}


def variants(value: Any, text: str) -> Iterator[tuple[str, Any]]:
    """Copies of a dataclass, each with ``text`` in one of its fields that hold text, at any depth; and where.

    Texts in tuples, in mappings (as keys, too) and in paths count. An empty tuple of texts gets one.
    """
    for field in dataclasses.fields(value):
        if not field.init:
            continue
        for where, changed in _changed(getattr(value, field.name), text):
            yield f"{field.name}{where}", dataclasses.replace(value, **{field.name: changed})


def _changed(value: Any, text: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, str):
        yield "", text
    elif isinstance(value, Path):
        yield "", Path("/", text.replace("\0", "").replace("/", "|"))
    elif dataclasses.is_dataclass(value):
        yield from ((f".{where}", changed) for where, changed in variants(value, text))
    elif isinstance(value, tuple):
        for k, item in enumerate(value):
            for where, changed in _changed(item, text):
                yield f"[{k}]{where}", (*value[:k], changed, *value[k + 1 :])
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield " (key)", {text: item}
            for where, changed in _changed(item, text):
                yield f"[{key!r}]{where}", {**value, key: changed}


def check_lines(shown: str, lines: int | None = None) -> None:
    """That ``shown`` is printable but for its own line ends, and has so many lines, where it is given."""
    rows = shown.removesuffix("\n").split("\n")
    for row in rows:
        assert row.isprintable(), f"{[hex(ord(c)) for c in row if not c.isprintable()][:9]} in {row[:200]!r}"
        assert not row.startswith("[INFO]"), "a line that looks like one of ours"
    assert lines is None or len(rows) == lines, shown[:2000]


def check_xml(svg: bytes) -> None:
    """That a picture can be read as XML, and holds nothing that cannot be printed."""
    text = "".join(ElementTree.fromstring(svg).itertext())
    check_lines(text.replace("\n", "").replace("\N{NO-BREAK SPACE}", " "))  # rich's own
