"""Parquet files, read and made with pyarrow, an optional library; errors say which file, and what to do.

Nothing here knows what the columns mean, and nothing is written to a disk: `parquet_bytes` gives what
`core.output_files` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable
from topreward_ros.core.text_files import is_git_lfs_pointer, lfs_mend

_LONGEST_REASON = 200  # characters of what pyarrow says
_LFS_POINTER = 200  # bytes, at least, in which one says what it is


class ParquetError(UserError):
    """A parquet file cannot be read."""


def arrow() -> Any:
    """The library pyarrow, with pyarrow.parquet in it. Raises `UserError` where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"LeRobot datasets are read with pyarrow, which cannot be imported ({printable(str(error))}): "
            "pip install 'topreward_ros[lerobot]', or pip install pyarrow"
        ) from error
    return pyarrow


def columns_in(path: Path) -> tuple[str, ...]:
    """Names of the top-level columns of the file ``path``. Raises `ParquetError`."""
    pa = arrow()
    check_is_no_pointer(path)
    try:
        return tuple(pa.parquet.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """The table in the file ``path``, or its ``columns``. Raises `ParquetError`, also for a missing one."""
    pa = arrow()
    there = columns_in(path)
    missing = [name for name in columns or () if name not in there]
    if missing:
        raise ParquetError(
            f"{shown(path)} has no column {', '.join(missing)}, but {printable(', '.join(there), 400)}: "
            "it is not as LeRobot writes it"
        )
    try:
        # Not by threads of its own, of which some would outlive the work.
        return pa.parquet.read_table(
            path, columns=None if columns is None else list(columns), use_threads=False
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def numbers_in(table: Any, name: str, kind: type, path: Path) -> Any:
    """The column ``name`` as a NumPy array of ``kind`` (int or float), one number per row.

    A column of lists of one number is taken as well. Raises `ParquetError` for other types and for nulls.
    """
    import numpy as np

    pa = arrow()
    chunks = table[name].chunks
    column = pa.concat_arrays(chunks) if chunks else pa.array([], table[name].type)
    try:
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            column = column.flatten()
        if column.null_count or len(column) != table.num_rows:
            raise ValueError("there are rows without a number")
        wanted = pa.types.is_integer(column.type) or (kind is float and pa.types.is_floating(column.type))
        if not wanted:
            raise ValueError(f"it is of type {column.type}")
        return column.to_numpy(zero_copy_only=False).astype(np.int64 if kind is int else np.float64)
    except (pa.ArrowException, ValueError) as error:
        raise ParquetError(
            f"{shown(path)}: the column {printable(name)} cannot be used ({_reason(error)}); expected "
            f"{'whole numbers' if kind is int else 'numbers'}, one per row"
        ) from error


def parquet_bytes(columns: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """A parquet file of ``columns`` (NumPy arrays of one length), with ``metadata`` in its schema."""
    pa = arrow()
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    return table_bytes(table.replace_schema_metadata(dict(metadata)))


def table_bytes(table: Any) -> bytes:
    """A parquet file of ``table``."""
    sink = BytesIO()
    arrow().parquet.write_table(table, sink)
    return sink.getvalue()


def check_is_no_pointer(path: Path) -> None:
    """Raise `ParquetError` where ``path`` is not there, or only says where git LFS keeps the file."""
    try:
        with path.open("rb") as file:
            begin = file.read(_LFS_POINTER)
    except OSError as error:
        raise ParquetError(f"{shown(path)} cannot be read ({error.strerror}): restore the dataset") from error
    if is_git_lfs_pointer(begin):
        raise ParquetError(f"{shown(path)} {lfs_mend(path.parent)}")


def shown(path: Path) -> str:
    """``path`` as it may be shown."""
    return printable(str(path))


def _unreadable(path: Path, error: BaseException) -> ParquetError:
    return ParquetError(
        f"{shown(path)} cannot be read as parquet ({_reason(error)}): it is damaged or cut short; restore it"
    )


def _reason(error: BaseException) -> str:
    return printable(" ".join(str(error).split()), _LONGEST_REASON)
