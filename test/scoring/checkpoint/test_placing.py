"""Weights go to their place one after the other: the host holds no copy, and the numbers are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from topreward_ros.scoring.checkpoint import load
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.checkpoint.load import load_weights, model_config
from topreward_ros.scoring.checkpoint.placing import dtype_to_read, dtypes_of, place
from topreward_ros.scoring.checkpoint.random_weights import TINY, Shape, make_random_checkpoint
from topreward_ros.scoring.checkpoint.weight_files import check_files

WEIGHTS = "model.safetensors"
GPU = torch.device("cuda")  # not asked for anything here
ELSEWHERE = torch.device("meta")  #: stands in for a GPU: a device whose memory is not the host's


def in_float32(folder: Path, names: Any = lambda _: True) -> None:
    """Write the weights of a checkpoint anew, those of these names in float32."""
    weights = load_file(folder / WEIGHTS)
    wider = {name: weight.float() if names(name) else weight for name, weight in weights.items()}
    save_file(wider, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def own_memory() -> int:
    """Bytes of this process that are no pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_the_host_holds_no_copy_of_what_goes_elsewhere(
    stored: torch.dtype, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after each weight, so that nothing depends on how fast anything is."""
    large = Shape(text=TINY.text | {"intermediate_size": 12288, "num_hidden_layers": 4}, vision=TINY.vision)
    folder = make_random_checkpoint(tmp_path / "large", shape=large)
    if stored is torch.float32:
        in_float32(folder)
    held: list[int] = []
    monkeypatch.setattr(load.ValueCheck, "look", lambda *_: held.append(own_memory()))
    # What libraries take once, such as for the first model of a kind, is no weight.
    load_weights(open_checkpoint(str(copy)), device=ELSEWHERE, dtype=torch.bfloat16, quantization="none")
    before, held[:] = own_memory(), []
    model: Any = load_weights(
        open_checkpoint(str(folder)), device=ELSEWHERE, dtype=torch.bfloat16, quantization="none"
    )
    sizes = [weight.numel() * weight.itemsize for weight in model.parameters()]
    assert {weight.dtype for weight in model.parameters()} == {model.dtype} == {torch.bfloat16}
    assert model.config.text_config.dtype is torch.bfloat16
    assert len(held) == len(sizes) and sum(sizes) > 30e6
    assert max(held) - before < 2 * max(sizes) + 8e6, "a copy of the weights was in the memory of the host"


@pytest.mark.parametrize(
    ("stored", "asked"),
    [("float32", torch.bfloat16), ("bfloat16", torch.float16), ("float32", torch.float16)],
)
def test_what_is_converted_at_its_place_is_what_transformers_converts(
    stored: str, asked: torch.dtype, copy: Path
) -> None:
    if stored == "float32":
        in_float32(copy)
    opened = open_checkpoint(str(copy))
    expected, model = (
        load_weights(opened, device=torch.device("cpu"), dtype=dtype, quantization="none")
        for dtype in (asked, getattr(torch, stored))
    )
    told: list[str] = []
    place(model, torch.device("cpu"), dtypes_of(expected), lambda name, _: told.append(name))
    found, wanted = model.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys() and set(told) == dict(model.named_parameters()).keys()
    for name, weight in wanted.items():
        assert found[name].dtype is weight.dtype and torch.equal(found[name], weight), name


def test_tied_weights_stay_tied_and_are_sent_once(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    del weights["lm_head.weight"]
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    config = (
        (copy / "config.json")
        .read_text()
        .replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')
    )
    (copy / "config.json").write_text(config)
    model: Any = load_weights(
        open_checkpoint(str(copy)), device=torch.device("cpu"), dtype=torch.float32, quantization="none"
    )
    told: list[str] = []
    names = dtypes_of(model)
    place(model, torch.device("cpu"), dict.fromkeys(names, torch.bfloat16), lambda name, _: told.append(name))
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert len(told) == len(names) - 1 and model.lm_head.weight.dtype is torch.bfloat16


class TestTheTypeToRead:
    @pytest.fixture
    def choose(self, copy: Path) -> Any:
        def choose(dtype: torch.dtype, device: torch.device = GPU, **change: Any) -> torch.dtype:
            config = model_config(open_checkpoint(str(copy)))

            def outline(dtype: torch.dtype) -> Any:
                made = load._outline(config, dtype)
                for name, value in change.items():
                    setattr(made, name, value(dtype))
                return made

            return dtype_to_read(check_files(copy).values(), device, dtype, outline)

        return choose

    def test_it_is_that_of_the_files_where_the_weights_go_elsewhere(self, choose: Any) -> None:
        assert choose(torch.float16) is torch.bfloat16
        assert choose(torch.float32) is torch.bfloat16
        assert choose(torch.float32, torch.device("cpu")) is torch.float32

    def test_it_is_the_one_asked_for_where_parts_keep_their_own(self, choose: Any) -> None:
        assert choose(torch.float16, _keep_in_fp32_modules=lambda _: {"norm"}) is torch.float16
        assert choose(torch.float16, _keep_in_fp32_modules_strict=lambda _: {"norm"}) is torch.float16

    def test_it_is_the_one_asked_for_where_numbers_are_made_in_it(self, choose: Any) -> None:
        made = choose(torch.float16, scale=lambda dtype: torch.nn.BatchNorm1d(1, dtype=dtype))
        assert made is torch.float16

    def test_it_is_the_one_asked_for_where_files_hold_several(self, choose: Any, copy: Path) -> None:
        in_float32(copy, lambda name: name.endswith("norm.weight"))
        assert choose(torch.float16) is torch.float16


def test_a_value_that_is_lost_in_the_type_of_its_place_is_found(copy: Path) -> None:
    in_float32(copy)
    weights = load_file(copy / WEIGHTS)
    weights["lm_head.weight"][3, 5] = 7e4  # float16 ends at 65504
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    opened = open_checkpoint(str(copy))
    model = load_weights(opened, device=torch.device("cpu"), dtype=torch.float32, quantization="none")
    values = load.ValueCheck(copy, model)
    with pytest.raises(
        load.ScorerError, match=r"'lm_head\.weight' has values that are not finite in torch.float16"
    ):
        place(model, torch.device("cpu"), dict.fromkeys(dtypes_of(model), torch.float16), values.look)
