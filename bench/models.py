"""The models that scripts of bench/ measure on a CPU: the shipped one, and 50 million random weights."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topreward_ros.core.output_files import temporary_folder
from topreward_ros.offline.engine_bench import SIZES
from topreward_ros.scoring.checkpoint.random_weights import make_fifty_million


def add_model(command: argparse.ArgumentParser) -> None:
    """Add ``--model``, a name for `model_folder`."""
    command.add_argument("--model", choices=SIZES, default="embedded", help="(%(default)s)")


@contextmanager
def model_folder(name: str) -> Iterator[str]:
    """The model ``name`` as `load_qwen3_vl` takes it; the random one is made here and removed afterwards."""
    with temporary_folder("topreward-bench-") as scratch:
        yield "embedded" if name == "embedded" else str(make_fifty_million(Path(scratch, name)))
