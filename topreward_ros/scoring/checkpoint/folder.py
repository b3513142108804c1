"""From the name of a model to its folder, with all the files that a scorer will need.

'embedded' is the model that ships with this package; a folder is a checkpoint; `org/name` is a model of the
Hugging Face hub, of which the copy on this machine is used. Nothing is downloaded here
(offline/model_download.py does that), and what the files say is read in checkpoint.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from topreward_ros.core.nearest import nearest
from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import EMBEDDED, ScorerError, in_a_line
from topreward_ros.scoring.checkpoint.other_folders import format_mend, refuse_adapter, what_to_do_about
from topreward_ros.scoring.checkpoint.reward_format import base_model_of
from topreward_ros.scoring.checkpoint.weight_files import WHOLE, loaded_files
from topreward_ros.scoring.plugins import meant_plugin, plugin_names, refuse_plugin
from topreward_ros.scoring.question.templates import PRESETS

EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "models" / "embedded"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_folder(model: str) -> Path:
    """Folder of the model that a user named. Raises `ScorerError` where there is none, or not all of it."""
    refuse_plugin(model, "this")
    folder = EMBEDDED_FOLDER if model == EMBEDDED else _look_up(model)
    try:
        _check_folder(folder)
    except OSError as error:
        raise ScorerError(
            f"{folder} cannot be read ({in_a_line(error)}): name a folder that may be read"
        ) from error
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
        mend = format_mend([folder]) or "name the folder it lies in"
        raise ScorerError(f"model {model!r} is a file: {mend}")
    if is_hub_id(model):
        return _hub_folder(model)
    raise ScorerError(
        f"model {model!r}: no such folder{_meant(model)} Use '{EMBEDDED}', the folder of a checkpoint, "
        "a Hugging Face hub id such as Qwen/Qwen3-VL-2B-Instruct, the URL of a served model such as "
        f"http://host:8100, or a plug-in ({_plugins()})"
    )


def _meant(model: str) -> str:
    """What a name that leads to no folder may stand for; to the end of the sentence."""
    if model in PRESETS:
        return f"; it is a question: set prompts to {model}, and name the model that is asked it."
    if plugin := meant_plugin(model):
        return f", and there is a plug-in: write {printable(plugin, 200)}."
    close = nearest(model, [EMBEDDED, *plugin_names()])
    return f"; did you mean {printable(close, 200)}?" if close else "."


def _plugins() -> str:
    names = plugin_names()
    return f"installed: {printable(', '.join(names), 500)}" if names else "none is installed"


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
        if folder == EMBEDDED_FOLDER:
            fix = "the installation is not complete; install the package again"
        else:
            copy = "copy all files of the checkpoint there, or name a folder that has them"
            fix = _base_mend(folder, missing) or what_to_do_about(folder) or copy
        raise ScorerError(f"{folder} has no {' and no '.join(missing)}: {fix}")
    refuse_adapter(folder)


def missing_files(folder: Path) -> list[str]:
    """Names of files that a scorer needs and ``folder`` lacks. Raises `ScorerError` for a damaged index."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if text_folder(folder) is None:
        missing.append("tokenizer.json")
    return [*missing, *_missing_weights(folder)]


def text_folder(folder: Path) -> Path | None:
    """Where the tokenizer of the checkpoint in ``folder`` lies; None where there is none.

    That of a Robometer may be in the local copy of the model that it was trained from. Raises `ScorerError`
    for a config.json that is damaged.
    """
    if (folder / "tokenizer.json").is_file():
        return folder
    base = base_model_of(folder)
    copy = hub_copy(base) if is_hub_id(base) else None
    return copy if copy and (copy / "tokenizer.json").is_file() else None


def _base_mend(folder: Path, missing: list[str]) -> str:
    """What to do about a Robometer that lacks a tokenizer; empty for anything else."""
    base = printable(base_model_of(folder), 200) if "tokenizer.json" in missing else ""
    if not base:
        return ""
    return (
        f"it has that of {base}, the model that it was trained from; copy tokenizer.json and "
        "preprocessor_config.json of that model there"
    )


def _missing_weights(folder: Path) -> list[str]:
    files = loaded_files(folder)
    if files:
        return [path.name for path in files if not path.is_file()]
    has_shards = any(folder.glob(f"{Path(WHOLE[0]).stem}-*-of-*.safetensors"))
    return [f"{WHOLE[0]}.index.json"] if has_shards else [f"weights ({WHOLE[0]})"]
