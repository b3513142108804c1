"""From the name of a model to its folder, with all the files that a scorer will need.

'embedded' is the model that ships with this package; a folder is a checkpoint; `org/name` is a model of the
Hugging Face hub, of which the copy on this machine is used. Nothing is downloaded here
(offline/model_download.py does that), and what the files say is read in checkpoint.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from topreward_ros.scoring.base import ScorerError, in_a_line

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "models" / "embedded"

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  #: names of files of weights, the better format first
#: The file that holds all weights. Where several do, an index beside them has this name with .index.json.
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_folder(model: str) -> Path:
    """Folder of the model that a user named. Raises `ScorerError` where there is none, or not all of it."""
    folder = EMBEDDED_FOLDER if model == EMBEDDED else _look_up(model)
    _check_folder(folder)
    return folder


def _look_up(model: str) -> Path:
    """The folder at the path ``model``, or else the copy of that hub id in the local cache."""
    try:
        folder = Path(model).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, RuntimeError) as error:  # no such user, no permission, too long a name
        raise ScorerError(
            f"model {model!r} cannot be looked up ({in_a_line(error)}): "
            "write the whole path, of a folder that may be read"
        ) from error
    if model and is_folder:
        return folder
    if is_file:
        raise ScorerError(f"model {model!r} is a file: name the folder it lies in")
    if is_hub_id(model):
        return _hub_folder(model)
    raise ScorerError(
        f"model {model!r}: no such folder. Use 'embedded', the folder of a checkpoint, "
        "or a Hugging Face hub id such as Qwen/Qwen3-VL-2B-Instruct"
    )


def is_hub_id(model: str) -> bool:
    """Whether ``model`` is written as the hub writes names: ``org/name``."""
    return bool(_HUB_ID.fullmatch(model))


def hub_copy(name: str) -> Path | None:
    """The folder of ``name`` in the hub's local cache, complete or not; None where there is none."""
    import huggingface_hub

    try:
        config = huggingface_hub.try_to_load_from_cache(name, "config.json")
    except ValueError:  # the hub allows fewer names than `is_hub_id`
        return None
    return Path(config).parent if isinstance(config, str) else None


def _hub_folder(name: str) -> Path:
    copy = hub_copy(name)
    missing = missing_files(copy) if copy else []
    if copy and not missing:
        return copy
    found = f"has no {' and no '.join(missing)} in the local hub cache" if copy else "is not on this machine"
    raise ScorerError(
        f"model {name!r} is no folder and {found}: get it with `topreward models download {name}` "
        "(once, needs the network), or name a folder"
    )


def _check_folder(folder: Path) -> None:
    missing = missing_files(folder)
    if missing:
        fix = "copy all files of the checkpoint there, or name a folder that has them"
        if folder == EMBEDDED_FOLDER:
            fix = "the installation is not complete; install the package again"
        raise ScorerError(f"{folder} has no {' and no '.join(missing)}: {fix}")


def missing_files(folder: Path) -> list[str]:
    """Names of files that a scorer needs and ``folder`` lacks. Raises `ScorerError` for a damaged index."""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    return [*missing, *_missing_weights(folder)]


def _missing_weights(folder: Path) -> list[str]:
    """Files that the loader will not find: it takes one with all weights, or an index and shards."""
    for whole in _WHOLE:
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return []
        if index.is_file():
            return [shard for shard in _shards(index) if not (folder / shard).is_file()]
    return [f"{_WHOLE[0]}.index.json"] if weight_files(folder) else ["weights (*.safetensors)"]


def _shards(index: Path) -> list[str]:
    """Names of the files that together hold all weights, as the index lists them."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        return sorted({str(shard) for shard in content["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScorerError(f"{index} cannot be read ({in_a_line(error)}): restore it") from error


def weight_files(folder: Path) -> list[Path]:
    """The files of weights in ``folder``, in order of names."""
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern) if path.is_file())
