"""A dictionary of bounded size: the newest that were put in."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Newest(dict[Key, Value]):
    """Where a new key would be one too many, the oldest goes.

    >>> known = Newest(2)
    >>> for number in (1, 2, 1, 3):
    ...     known[number] = number**2
    >>> known
    {2: 4, 3: 9}
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: Key, value: Value) -> None:
        if key not in self and len(self) >= self._most:
            del self[next(iter(self))]
        super().__setitem__(key, value)
