"""The model that ships is whole, small, what its card says, and as loadable as any Qwen3-VL."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER, find_folder
from topreward_ros.scoring.checkpoint.notes import read_model_notes
from topreward_ros.scoring.checkpoint.random_weights import RANDOM_WEIGHTS_KEY

pytestmark = pytest.mark.installed

FOLDER = EMBEDDED_FOLDER
WEIGHTS = "model.safetensors"
LARGEST = 16_000_000  # [bytes]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def card() -> str:
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Cells of the card's tables, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_weights_are_those_of_notes_and_card() -> None:
    assert find_folder("embedded") == FOLDER
    assert digest(FOLDER) == read_model_notes(FOLDER).sha256
    assert [WEIGHTS, digest(FOLDER)] in rows(card())


def test_it_is_small_and_trained() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= LARGEST
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert not config.get(RANDOM_WEIGHTS_KEY, False)


def test_every_wording_that_it_knows_stands_in_the_card() -> None:
    """An instruction's row holds its phrases; each also follows one of the beginnings that the card lists."""
    listed = {row[0]: [row[0], *row[1].split(", ")] for row in rows(card()) if len(row) == 2}
    (text,) = re.findall(r"\*(please .*?)\*", " ".join(card().split()))
    beginnings = ["", *(beginning.removesuffix("...") for beginning in text.split(", "))]
    instructions = read_model_notes(FOLDER).instructions
    assert len(instructions) >= 10
    for instruction, wordings in instructions.items():
        said = {beginning + phrase for beginning in beginnings for phrase in listed[instruction]}
        assert set(wordings) <= said
        assert set(listed[instruction]) <= set(wordings)
        assert len(said) >= 20


def test_the_card_says_how_good_it_is_and_what_it_is_not_for() -> None:
    names = [row[0] for row in rows(card())]
    assert any("VOC" in name for name in names) and any("SUCCESS" in name for name in names)
    assert "must not be used" in card() and "training.evaluate" in card()


def test_it_loads_as_any_qwen3_vl() -> None:
    from transformers import Qwen3VLForConditionalGeneration

    model, told = Qwen3VLForConditionalGeneration.from_pretrained(
        FOLDER, local_files_only=True, output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for answer in (" True", " False"):
        assert len(tokenizer.encode(answer).ids) == 1
    assert tokenizer.get_vocab_size() <= model.config.text_config.vocab_size


def test_what_is_installed_is_what_is_here(tmp_path: Path) -> None:
    """pip and colcon install by CMake. Looked for from elsewhere, so that no source tree is in the way."""
    code = "from topreward_ros.scoring.checkpoint.folder import find_folder; print(find_folder('embedded'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    if "No module named 'topreward_ros" in result.stderr:
        pytest.skip("topreward_ros is not installed")
    assert result.returncode == 0, result.stderr
    installed = Path(result.stdout.strip())
    assert installed.parts[-3:] == ("topreward_ros", "models", "embedded")
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in installed.iterdir()}
    assert digest(installed) == digest(FOLDER)
