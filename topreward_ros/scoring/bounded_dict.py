"""A dictionary that never holds more than a given number of entries."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedDict(dict[Key, Value]):
    """Keeps the newest ``capacity`` keys: a new one beyond them drops the oldest.

    Only assignment by key is bounded, not `update` or `setdefault`.

    >>> squares = BoundedDict(2)
    >>> for number in (1, 2, 1, 3):
    ...     squares[number] = number**2
    >>> squares
    {2: 4, 3: 9}
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def __setitem__(self, key: Key, value: Value) -> None:
        if key not in self and len(self) >= self._capacity:
            del self[next(iter(self))]
        super().__setitem__(key, value)
