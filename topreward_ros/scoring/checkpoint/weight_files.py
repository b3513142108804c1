"""The files of weights of a checkpoint: which are loaded, what is in them, and what tells them from others.

Only the files that transformers loads count: `model.safetensors`, or the shards that its index names, or the
same of the older `pytorch_model.bin`. An optimizer's state, an adapter, the same weights in another format
and shards that the index does not name are left out. The heads of safetensors files are read here, no weights
are loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import is_zipfile

from topreward_ros.core.json_text import parsed_json
from topreward_ros.core.text_files import is_git_lfs_pointer, lfs_mend
from topreward_ros.scoring.base import ScorerError, in_a_line
from topreward_ros.scoring.json_files import read_json, refuse_byte_order_mark

#: The file that holds all weights, in the order in which transformers looks for it. Where there are shards,
#: an index beside them has this name with .index.json.
WHOLE = ("model.safetensors", "pytorch_model.bin")

_LONGEST_HEAD = 100_000_000  # [bytes], as safetensors itself has it

# What `sampled_hash` reads. A tensor of up to 32 KiB is read whole, as are all norms and biases.
_BLOCK = 4096  # [bytes]
_BLOCKS = 8  # of a tensor
_READ_WHOLE = 256 << 20  # [bytes] of weights up to which all of them are hashed


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the head of a safetensors file describes it."""

    name: str
    dtype: str  #: as the format names it, such as BF16
    shape: tuple[int, ...]
    begin: int  #: [bytes] from the start of the file
    end: int


def loaded_files(folder: Path) -> list[Path]:
    """The files of weights that are loaded, in order of names; some may be missing.

    Empty where there are none. Raises `ScorerError` for a damaged index.
    """
    if (index := _index_in_use(folder)) is not None:
        return [folder / shard for shard in shards_of(index)]
    return [folder / whole for whole in WHOLE if (folder / whole).is_file()][:1]


def _index_in_use(folder: Path) -> Path | None:
    """The index of the shards that are loaded; None where one file holds all weights, and without weights."""
    for whole in WHOLE:
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return None
        if index.is_file():
            return index
    return None


def shards_of(index: Path) -> list[str]:
    """Names of the files that together hold all weights, in order. Raises `ScorerError`."""
    return sorted(set(_weight_map(index).values()))


def _weight_map(index: Path) -> dict[str, str]:
    """The file of every tensor, as the index says."""
    refuse_byte_order_mark(index)
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise ScorerError(
            f"{index} cannot be read (weight_map must say the file of every tensor): "
            "restore it from the checkpoint"
        )
    if outside := next((file for file in where.values() if Path(file).name != file), None):
        raise ScorerError(f"{index} names a file of another folder, {outside!r}: restore the index")
    kind = Path(index.name.removesuffix(".index.json")).suffix
    if other := next((file for file in where.values() if not file.endswith(kind) or "\0" in file), None):
        raise ScorerError(f"{index} names {other!r}, which is no {kind} file: restore the index")
    return where


def read_head(path: Path) -> list[StoredTensor]:
    """What a safetensors file says that it holds, in order of its bytes. Raises `ScorerError`."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            begin = file.read(64)
            if is_git_lfs_pointer(begin):
                raise ScorerError(f"{path} {lfs_mend(path.parent)}")
            if not size:
                raise ScorerError(f"{path} is empty (0 bytes): copy it again")
            length = int.from_bytes(begin[:8], "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEAD):
                raise ValueError("it has no head of a safetensors file, or is cut short within it")
            file.seek(8)
            tensors = list(_tensors(parsed_json(file.read(length)), 8 + length))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        said = str(error) if type(error) is ValueError else in_a_line(error)
        raise ScorerError(f"{path} cannot be read ({said}): copy it again") from error
    whole = max((tensor.end for tensor in tensors), default=8 + length)
    if whole != size:
        state = "cut short" if size < whole else "longer than it should be"
        raise ScorerError(
            f"{path} cannot be read (it has {size} bytes and is {state}: its head tells of {whole}): "
            "copy it again"
        )
    return sorted(tensors, key=lambda tensor: tensor.begin)


def _tensors(head: Any, start: int) -> Iterator[StoredTensor]:
    for name, said in head.items():
        if name != "__metadata__":
            begin, end = said["data_offsets"]
            yield StoredTensor(name, str(said["dtype"]), tuple(said["shape"]), start + begin, start + end)


def check_files(folder: Path) -> dict[str, StoredTensor]:
    """The tensors in the safetensors files that are loaded, by name; empty for files of another format.

    Raises `ScorerError` for a file that is damaged, a tensor that is in two files, and one that the index
    names and no file holds.
    """
    found: dict[str, tuple[Path, StoredTensor]] = {}
    for path in loaded_files(folder):
        if path.suffix != ".safetensors":
            _check_pickled(path)
            continue
        for tensor in read_head(path):
            if tensor.name in found:
                first = found[tensor.name][0].name
                raise ScorerError(
                    f"{folder}: the weight {tensor.name!r} is in {first} and in {path.name}, and one of them "
                    "would be dropped: copy the checkpoint again"
                )
            found[tensor.name] = path, tensor
    if (index := _index_in_use(folder)) is not None:
        if not isinstance(read_json(index).get("metadata"), dict):
            raise ScorerError(f"{index} has no metadata, which transformers needs: restore the index")
        for name, file in _weight_map(index).items():
            if found and name not in found:
                raise ScorerError(
                    f"{index} says that {file} holds the weight {name!r}, which no file does: index and "
                    "files are of different checkpoints; copy all of them again"
                )
    return {name: tensor for name, (_, tensor) in found.items()}


def _check_pickled(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError as error:
        raise ScorerError(f"{path} cannot be read ({in_a_line(error)}): copy it again") from error
    if is_git_lfs_pointer(begin):
        raise ScorerError(f"{path} {lfs_mend(path.parent)}")
    if not begin:
        raise ScorerError(f"{path} is empty (0 bytes): copy it again")
    # PyTorch writes a ZIP archive, whose list of contents is at its end, and before version 1.6 bare pickles.
    if begin.startswith(b"PK\x03\x04"):
        if not is_zipfile(path):
            raise ScorerError(f"{path} is cut short ({path.stat().st_size} bytes): copy it again")
    elif not begin.startswith(b"\x80"):
        raise ScorerError(f"{path} is no file of PyTorch: copy it again")


def full_hash(files: Sequence[Path]) -> str:
    """SHA-256 in hex over one file after the other. Raises `ScorerError`."""
    digest = hashlib.sha256()
    for path in files:
        with _opened(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def short_hash(files: Sequence[Path]) -> str:
    """What tells these weights from others, in little time.

    Up to 256 MB it is the first 16 hex digits of `full_hash`; above, ``sampled-`` and 16 digits of
    `sampled_hash`. Raises `ScorerError`.
    """
    if sum(path.stat().st_size for path in files if path.is_file()) <= _READ_WHOLE:
        return full_hash(files)[:16]
    return f"sampled-{sampled_hash(files)[:16]}"


def sampled_hash(files: Sequence[Path]) -> str:
    """SHA-256 in hex over names, sizes and heads of the files and a fixed sample of every tensor.

    The sample is 8 blocks of 4096 bytes, evenly spread from the first byte of a tensor to its last; a tensor
    of no more than that is read whole. So a model that was trained further differs, as training changes
    numbers all over a tensor, but a change of a few rows of a large tensor may be missed.
    Raises `ScorerError`.
    """
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        tensors = read_head(path) if path.suffix == ".safetensors" else []
        parts = [(tensor.begin, tensor.end) for tensor in tensors]
        head = (0, tensors[0].begin) if tensors else (0, 0)
        with _opened(path) as file:
            digest.update(_read(file, *head))
            for begin, end in parts or _even_parts(size):
                for start, stop in _sample(begin, end):
                    digest.update(_read(file, start, stop))
    return digest.hexdigest()


def _even_parts(size: int) -> list[tuple[int, int]]:
    """A file whose tensors are not known, in 256 parts of equal size."""
    edges = [size * part // 256 for part in range(257)]
    return list(pairwise(edges))


def _sample(begin: int, end: int) -> list[tuple[int, int]]:
    """The parts of the bytes from ``begin`` to ``end`` that are read.

    >>> _sample(0, 100)
    [(0, 100)]
    >>> [start for start, _ in _sample(0, 8192 * 8)]
    [0, 8777, 17554, 26331, 35108, 43885, 52662, 61440]
    """
    if end - begin <= _BLOCK * _BLOCKS:
        return [(begin, end)]
    room = end - begin - _BLOCK
    starts = [begin + room * block // (_BLOCKS - 1) for block in range(_BLOCKS)]
    return [(start, start + _BLOCK) for start in starts]


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ScorerError(f"{path} cannot be read ({in_a_line(error)}): copy it again") from error


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)
