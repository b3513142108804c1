"""Namespaces of ROS 2, as a user writes several of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

_NAMESPACE = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*/?")


class NamespaceError(UserError):
    """A list of namespaces cannot be used."""


def read_namespaces(given: str | Sequence[str], base: str = "/") -> list[str]:
    """The namespaces in ``given``, with a leading slash: a list, or text with spaces or commas between.

    One without a leading slash lies below ``base``. Raises `NamespaceError`.

    >>> read_namespaces("[/arm1, arm2]", base="/lab")
    ['/arm1', '/lab/arm2']
    """
    texts = [given] if isinstance(given, str) else given
    names = [name for text in texts for name in re.sub(r"[\[\],\"']", " ", text).split()]
    if not names:
        raise NamespaceError(
            'namespaces is empty: name one for each monitor, as in --ros-args -p namespaces:="[/arm1,/arm2]"'
        )
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise NamespaceError(
                f"namespaces: {printable(name, 100)} is no namespace; it takes letters, digits, _ and /"
            )
    found = [
        name.rstrip("/") if name.startswith("/") else f"{base.rstrip('/')}/{name.rstrip('/')}"
        for name in names
    ]
    for name in found:
        if found.count(name) > 1:
            raise NamespaceError(f"namespaces: {name} comes twice; each monitor needs one of its own")
    return found
