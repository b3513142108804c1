"""Which folders a student may go on from: with the weights and the tokenizer that it was trained with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from topreward_ros.offline.distill.model_folder import write_model
from topreward_ros.offline.distill.network import Student, draw_weights, make_config, make_tokenizer
from topreward_ros.offline.distill.start import StartError, open_start
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER

Change = Callable[[dict[str, Any]], None]


def put(folder: Path, **tensors: torch.Tensor) -> None:
    """Put weights into a model's file, and its new hash into its notes."""
    weights = folder / "model.safetensors"
    save_file({**load_file(weights), **tensors}, weights, {"format": "pt"})
    notes = json.loads((folder / "topreward.json").read_text())
    notes["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (folder / "topreward.json").write_text(json.dumps(notes))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A student that went on from the embedded model."""
    return Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "student"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_other_precisions_are_taken(student: Path, dtype: torch.dtype) -> None:
    put(student, **{name: it.to(dtype) for name, it in load_file(student / "model.safetensors").items()})
    assert open_start(str(student)).is_student


@pytest.mark.parametrize(("dtype", "name"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_weights_that_no_training_writes_are_refused(student: Path, dtype: torch.dtype, name: str) -> None:
    weight = "model.language_model.layers.0.mlp.down_proj.weight"
    put(student, **{weight: load_file(student / "model.safetensors")[weight].to(dtype)})
    with pytest.raises(StartError, match=f"the weight {weight} is stored as {name}, and a student's are F16"):
        open_start(str(student))


def swap_numbers(told: dict[str, Any]) -> None:
    ids = told["model"]["vocab"]
    ids["Ġdoor"], ids["Ġfaucet"] = ids["Ġfaucet"], ids["Ġdoor"]


def swap_merges_too(told: dict[str, Any]) -> None:
    """Two words that do not need each other, in another order: a training might have made it so."""
    ids, merges = told["model"]["vocab"], told["model"]["merges"]
    places = [next(k for k, it in enumerate(merges) if "".join(it) == word) for word in ("Ġred", "Ġtap")]
    merges[places[0]], merges[places[1]] = merges[places[1]], merges[places[0]]
    ids["Ġred"], ids["Ġtap"] = ids["Ġtap"], ids["Ġred"]


def cut_otherwise(told: dict[str, Any]) -> None:
    told["normalizer"] = {"type": "NFD"}


@pytest.mark.parametrize("change", [swap_numbers, swap_merges_too, cut_otherwise])
def test_a_tokenizer_that_no_student_was_trained_with_is_refused(student: Path, change: Change) -> None:
    told = json.loads((student / "tokenizer.json").read_text())
    change(told)
    (student / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(StartError, match=r"tokenizer.json is none that a student was trained with"):
        open_start(str(student))


def test_a_student_that_began_with_nothing_has_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(["slide the plate into the goal", "lock the door"])
    config = make_config(tokenizer)
    made = Student(tokenizer, config)
    draw_weights(made, 0)
    write_model(tmp_path, made.state_dict(), config, tokenizer, 20 * 1024, "a student", {"lock the door": []})
    assert open_start(str(tmp_path)).instructions == ("lock the door",)
    told = json.loads((tmp_path / "tokenizer.json").read_text())
    ids = told["model"]["vocab"]
    ids["Ġplate"], ids["Ġdoor"] = ids["Ġdoor"], ids["Ġplate"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(StartError, match=r"tokenizer.json is none that a student was trained with"):
        open_start(str(tmp_path))
