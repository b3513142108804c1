"""Folders that are no checkpoint which can be loaded: what they are instead, and what to do about it.

Every answer is a mend, to be written after what is missing. Nothing is loaded, and no weights are read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint.weight_files import WHOLE
from topreward_ros.scoring.json_files import read_json

#: Files of weights in formats that are not read, by how their names end.
_FORMATS = {
    ".gguf": "GGUF",
    ".onnx": "ONNX",
    ".msgpack": "Flax",
    ".h5": "TensorFlow",
    ".pth": "PyTorch's .pth",
    ".pt": "PyTorch's .pt",
    ".ckpt": "a trainer's .ckpt",
    ".bin": "PyTorch's .bin under another name",
    ".npz": "NumPy",
}
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state")  #: of a trainer, with such endings
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")  # which lack their index
#: Older forms of a tokenizer.
_TOKENIZERS = ("tokenizer.model", "vocab.json", "vocab.txt")
_MAKE_TOKENIZER = (
    "import sys; from transformers import AutoTokenizer as T; "
    'T.from_pretrained(sys.argv[1]).backend_tokenizer.save(sys.argv[1] + "/tokenizer.json")'
)
_MOST_NAMED = 3


def refuse_adapter(folder: Path) -> None:
    """Raise `ScorerError` where an adapter lies in ``folder``: weights beside it would be used without it."""
    found = [name for name in _ADAPTER if (folder / name).exists()]
    if found:
        raise ScorerError(
            f"{folder} holds an adapter ({found[0]}) beside the weights, which would not be applied: move "
            "its files to a folder of their own and name that as adapter, or leave it out; or "
            f"{_merge_mend(folder)}"
        )


def what_to_do_about(folder: Path) -> str:
    """What to do about a folder that lacks something; empty where nothing more can be told."""
    names = {path.name for path in folder.iterdir()}
    if "model_index.json" in names:
        return "it is a model of diffusers, which makes pictures; name one that reads images and text"
    if names & {*_ADAPTER}:
        return (
            f"it holds an adapter alone: name {_base_name(folder) or 'the model that it belongs to'} as "
            f"model, and this folder as adapter; or {_merge_mend(folder)}"
        )
    if links := sorted(path.name for path in folder.iterdir() if path.is_symlink() and not path.exists()):
        return f"{_listed(links)} is a link to a file that is not there; copy the files and not the links"
    wanted = ("config.json", "tokenizer.json", *WHOLE)
    if folders := [name for name in wanted if (folder / name).is_dir()]:
        return f"{_listed(folders)} is a folder, and must be a file; copy the checkpoint again"
    if any(_unfinished(folder)):
        return "a download into this folder was interrupted; start it again, and it goes on"
    if "snapshots" in names and folder.name.startswith("models--"):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        return f"it is a folder of the hub's cache; name the model, {name}, or the folder in snapshots/"
    if "config.json" not in names and (inner := _checkpoints_in(folder)):
        return f"the checkpoint lies one level deeper; name {_listed([str(folder / name) for name in inner])}"
    return _names_mend(names) or format_mend(folder.iterdir()) or _tokenizer_mend(folder, names)


def _tokenizer_mend(folder: Path, names: set[str]) -> str:
    """What to do where tokenizer.json alone is missing; empty where there is nothing to make it from."""
    source = next((name for name in _TOKENIZERS if name in names), None)
    if "tokenizer.json" in names or "config.json" not in names or source is None:
        return ""
    return (
        f"transformers can make it from {source}: run python -c '{_MAKE_TOKENIZER}' "
        f"{shlex.quote(printable(str(folder), 300))}"
    )


def _names_mend(names: set[str]) -> str:
    """What to do about safetensors files of which none has a name that is looked for; empty without them."""
    others = sorted(
        name for name in names if name.endswith(".safetensors") and not name.startswith("consolidated.")
    )
    if not others or WHOLE[0] in names or any(_SHARD.fullmatch(name) for name in others):
        return ""
    if len(others) == 1:
        return (
            f"{printable(others[0])} is not looked for under that name; if it holds all weights of this "
            f"model, rename it to {WHOLE[0]}"
        )
    return (
        f"{_listed(others)} are not looked for under these names; take the files that are called {WHOLE[0]}, "
        f"or {WHOLE[0]}.index.json and its shards"
    )


def format_mend(files: Iterable[Path]) -> str:
    """What to do about weights in formats that are not read; empty where there are none."""
    for path in sorted(files):
        if path.name.startswith("consolidated."):
            told = "Mistral's or Meta's own format"
        elif path.suffix in _FORMATS and not path.name.startswith(_NO_WEIGHTS):
            told = _FORMATS[path.suffix]
        else:
            continue
        return (
            f"{printable(path.name)} is in {told}, which is not read; get the same model as safetensors "
            f"({WHOLE[0]}, or shards and their index), with config.json and tokenizer.json"
        )
    return ""


def _base_name(folder: Path) -> str:
    """The model of the adapter in ``folder``, as its configuration names it; empty where it does not."""
    with suppress(ScorerError):  # it is a help and no more
        return printable(str(read_json(folder / _ADAPTER[0]).get("base_model_name_or_path") or ""), 200)
    return ""


def _merge_mend(folder: Path) -> str:
    into = f" into {_base_name(folder) or 'its model'}"
    return f"merge it{into} with peft's merge_and_unload(), save_pretrained() the result and name that folder"


def _unfinished(folder: Path) -> Iterable[Path]:
    yield from folder.glob("*.incomplete")
    yield from folder.glob("*.part")
    yield from folder.glob(".cache/huggingface/download/*.incomplete")


def _checkpoints_in(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return printable(" or ".join(names[:_MOST_NAMED])) + more
