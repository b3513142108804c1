"""Fields of JSON that may hold anything: each is asked for what it must be; an error says where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from topreward_ros.core.printable import printable

_QUOTED = 60  # characters of a value
_NUMBER = "a finite number"


class FieldError(ValueError):
    """A field is missing, or of another kind; the text names it by its path."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value of parsed JSON, and where it stands. All methods raise `FieldError`.

    >>> Field({"episodes": [{"done": "late"}]})["episodes"].items()[0]["done"].number()
    Traceback (most recent call last):
    topreward_ros.offline.json_fields.FieldError: episodes[0].done is 'late', and must be a finite number
    """

    value: Any
    path: str = ""

    def __getitem__(self, name: str) -> Field:
        """A field of an object."""
        if name not in self.members():
            raise FieldError(f"{self._at(name)} is missing")
        return Field(self.value[name], self._at(name))

    def get(self, name: str) -> Field:
        """A field of an object that may be missing; then it is null."""
        return Field(self.members().get(name), self._at(name))

    def members(self) -> dict[str, Any]:
        """The object itself."""
        if not isinstance(self.value, dict):
            raise self.error("an object")
        return self.value

    def items(self) -> list[Field]:
        """The items of a list."""
        if not isinstance(self.value, list):
            raise self.error("a list")
        return [Field(item, f"{self.path}[{number}]") for number, item in enumerate(self.value)]

    def text(self) -> str:
        """A text."""
        if not isinstance(self.value, str):
            raise self.error("a text")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def whole(self, least: int = 0) -> int:
        """A whole number."""
        if type(self.value) is not int or self.value < least:
            raise self.error(f"a whole number, {least} or more")
        return self.value

    def number(self) -> float:
        """A finite number."""
        if not _is_number(self.value):
            raise self.error(_NUMBER)
        return float(self.value)

    def number_or_nan(self) -> float:
        """A finite number; NaN for null."""
        return nan if self.value is None else self.number()

    def error(self, wanted: str) -> FieldError:
        """The error that says that something else is ``wanted``."""
        shown = "null" if self.value is None else printable(repr(self.value), _QUOTED)
        return FieldError(f"{self.path or 'all of it'} is {shown}, and must be {wanted}")

    def _at(self, name: str) -> str:
        return printable(f"{self.path}.{name}" if self.path else name, 200)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
