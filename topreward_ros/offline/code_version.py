"""Which code made a number: the package's version, and a hash of the sources that numbers depend on."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

from topreward_ros.defaults import shared_file

_ROOMS = ("core", "scoring", "offline")  # of the package; the others show numbers, and make none


def package_version() -> str:
    """The version in the package.xml that belongs to the running code."""
    return ElementTree.parse(shared_file("package.xml")).findtext("version", default="unknown")


@cache
def code_hash() -> str:
    """A hash of the sources from frames to scores and measures, wherever they are installed."""
    package = Path(__file__).parents[1]
    digest = sha256()
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
            digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
