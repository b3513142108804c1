"""LoRA adapters: merged as peft merges them, named, and refused where they do not fit. Merging needs peft."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from test.robometer import make_robometer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint import adapter as merging
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.pool import SHARED, ScorerPool
from topreward_ros.scoring.registry import about_model, check_wish, load_scorer

asked = ScoreRequest.of_frames
TASK = "open the drawer"
KINDS = {"q_proj": (128, 128), "down_proj": (384, 128)}  # columns and rows, of the tiny checkpoint
LAYERS = 4


def layer(number: int, kind: str) -> str:
    part = "mlp" if kind == "down_proj" else "self_attn"
    return f"model.language_model.layers.{number}.{part}.{kind}"


def make_adapter(folder: Path, rank: int = 4, **more: Any) -> Path:
    """An adapter as peft writes it, of random weights, for `KINDS` in all layers."""
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "peft_version": "0.18.0",
        "base_model_name_or_path": "some-org/base",
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_alpha": 3,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "r": rank,
        "rank_pattern": {},
        "target_modules": list(KINDS),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | more))
    drawn = torch.Generator().manual_seed(5)
    weights = {}
    for number in range(LAYERS):
        for kind, (columns, rows) in KINDS.items():
            own = (more.get("rank_pattern") or {}).get(kind, rank)
            name = f"base_model.model.{layer(number, kind)}"
            weights[f"{name}.lora_A.weight"] = torch.randn(own, columns, generator=drawn) * columns**-0.5
            weights[f"{name}.lora_B.weight"] = torch.randn(rows, own, generator=drawn) * 0.5
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter")


def configure(adapter: Path, **changes: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    change(weights)
    save_file(weights, adapter / "adapter_model.safetensors")


# ---- merging, which needs peft ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 7}},
        {"target_modules": r"^model\.language_model\..*\.(q_proj|down_proj)$"},
        {
            "target_modules": ["q_proj", "down_proj", "v_proj"],
            "exclude_modules": r".*(v_proj|visual.*)",
            "layers_pattern": None,
        },
    ],
    ids=["plain", "rslora", "patterns", "expression", "excluded"],
)
def test_the_weights_are_those_that_peft_merges(checkpoint, settings, make_video, tmp_path, more):
    peft = pytest.importorskip("peft")
    adapter = make_adapter(tmp_path / "adapter", **more)
    scorer = load_scorer(str(checkpoint), replace(settings, adapter=str(adapter)))
    plain: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in plain.named_parameters()}
    theirs = dict(peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload().named_parameters())
    ours = dict(scorer._model.named_parameters())
    assert ours.keys() == theirs.keys() == before.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    changed = {name for name in ours if not torch.equal(ours[name], before[name])}
    assert changed == {f"{layer(number, kind)}.weight" for number in range(LAYERS) for kind in KINDS}

    frames = make_video(4, 64, 64)
    score = scorer.score(asked(TASK, frames))
    without = load_scorer(str(checkpoint), settings).score(asked(TASK, frames))
    assert abs(score.log_prob - without.log_prob) > 0.01


def test_a_product_is_added_once_with_its_scale(checkpoint, settings, adapter):
    pytest.importorskip("peft")
    scorer = load_scorer(str(checkpoint), replace(settings, adapter=str(adapter)))
    stored, pair = (
        load_file(checkpoint / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
    )
    name = layer(2, "down_proj")
    up, down = (pair[f"base_model.model.{name}.lora_{which}.weight"] for which in ("B", "A"))
    expected = stored[f"{name}.weight"].float() + 3 / 4 * up @ down
    assert torch.allclose(dict(scorer._model.named_parameters())[f"{name}.weight"], expected, atol=1e-6)


def test_merging_leaves_the_files_as_they_are(checkpoint, settings, adapter, tmp_path):
    pytest.importorskip("peft")
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    weights = {name: it.float() for name, it in load_file(copy / "model.safetensors").items()}
    save_file(
        weights, copy / "model.safetensors", metadata={"format": "pt"}
    )  # in float32, mapped as they are
    before = (copy / "model.safetensors").read_bytes()
    load_scorer(str(copy), replace(settings, adapter=str(adapter))).close()
    assert (copy / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_is_merged_in_the_type_that_the_model_runs_in(checkpoint, settings, adapter, dtype):
    peft = pytest.importorskip("peft")
    scorer = load_scorer(str(checkpoint), replace(settings, adapter=str(adapter), dtype=dtype))
    plain: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    theirs = dict(peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload().named_parameters())
    ours = dict(scorer._model.named_parameters())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_monitors_share_a_model_with_the_same_adapter_alone(checkpoint, settings, adapter):
    pytest.importorskip("peft")
    pool = ScorerPool(load_scorer)
    wished = replace(settings, adapter=str(adapter))
    first, second = pool.take(str(checkpoint), wished), pool.take(str(checkpoint), wished)
    other = pool.take(str(checkpoint), settings)
    assert (first.said, second.said) == ("", SHARED)
    assert "another adapter" in other.said
    assert second.worker.info.model_id == first.worker.info.model_id == f"{checkpoint} + adapter {adapter}"
    for place in (first, second, other):
        place.worker.stop()


# ---- what is told, and refused; without peft ---------------------------------------------------------------


def test_name_and_revision_tell_of_the_adapter(checkpoint, settings, adapter):
    plain, opened = open_checkpoint(str(checkpoint)), open_checkpoint(str(checkpoint), str(adapter))
    assert opened.model_id == f"{checkpoint} + adapter {adapter}" and plain.model_id == str(checkpoint)
    own, plus, of_adapter = opened.revision.partition("+")
    assert (own, plus, len(of_adapter)) == (plain.revision, "+", 16)
    assert about_model(str(checkpoint), replace(settings, adapter=str(adapter))).revision == opened.revision
    configure(adapter, lora_alpha=4)  # other numbers, with the same weights
    assert open_checkpoint(str(checkpoint), str(adapter)).revision != opened.revision


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', and only LORA is merged here"),
        ({"peft_type": None}, "peft_type is None"),
        (
            {"modules_to_save": ["lm_head"]},
            "modules_to_save is ['lm_head'], which is more than the plain LoRA",
        ),
        ({"use_dora": True}, "use_dora is True, which is more than the plain LoRA"),
        ({"bias": "all"}, "bias is 'all', with which the adapter changes more than it stores as LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', with which"),
        ({"init_lora_weights": ["pissa"]}, "init_lora_weights is ['pissa'], with which"),
        ({"layers_to_transform": [1]}, "layers_to_transform is [1], which is more"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices is [3], which is more"),
        ({"megatron_config": {"a": 1}}, "megatron_config is {'a': 1}, which is more"),
        ({"of_a_newer_peft": 1}, "of_a_newer_peft is 1, which is more"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True, which is more"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
        ({"r": 0}, "r is 0 and must be a whole number from 1"),
        ({"r": 10**9}, "r is 1000000000 and must be a whole number"),
        ({"r": True}, "r is True and must be a whole number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan and must be a number"),
        ({"lora_alpha": 10**400}, "and must be a number, at most 1000000"),
        (
            {"rank_pattern": {"(a+)+$": 4}},
            "rank_pattern has '(a+)+$', and only names of layers are read there",
        ),
        (
            {"rank_pattern": {f"l{i}": 4 for i in range(501)}},
            "rank_pattern must be an object, of 500 entries",
        ),
        ({"rank_pattern": {"q_proj": "x"}}, "rank_pattern is 'x' and must be a whole number"),
        ({"target_modules": [3]}, "target_modules must be a list of names"),
        (
            {"exclude_modules": "x" * 5000},
            "exclude_modules must be a list of names, or one expression of up to",
        ),
    ],
)
def test_a_configuration_that_says_more_than_lora_is_refused(checkpoint, adapter, changes, said):
    configure(adapter, **changes)
    with pytest.raises(ScorerError) as raised:
        open_checkpoint(str(checkpoint), str(adapter))
    assert said in str(raised.value)


NAME = f"base_model.model.{layer(1, 'q_proj')}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w.pop(f"{NAME}.lora_A.weight"),
            "lacks lora_A of the layer 'model.language_model.layers.1",
        ),
        (lambda w: w.pop(f"{NAME}.lora_B.weight"), "lacks lora_B of the layer"),
        (lambda w: w.clear(), "holds no weights"),
        (
            lambda w: w.update({"base_model.model.lm_head.weight": torch.ones(1)}),
            "which is no lora_A or lora_B",
        ),
        (
            lambda w: w.update({f"{NAME}.lora_embedding_A": torch.ones(2, 2)}),
            "which is no lora_A or lora_B of a linear layer and would be left out",
        ),
        (
            lambda w: w.update({f"{NAME}.lora_A.weight": torch.ones(4, 128, dtype=torch.int8)}),
            "is I8 of shape (4, 128), and must be a matrix",
        ),
    ],
)
def test_a_file_of_other_weights_is_refused(checkpoint, adapter, change, said):
    reweigh(adapter, change)
    with pytest.raises(ScorerError) as raised:
        open_checkpoint(str(checkpoint), str(adapter))
    assert said in str(raised.value)


def test_a_folder_that_is_no_adapter_says_so(checkpoint, adapter, tmp_path):
    for name, said in (
        (str(tmp_path / "none"), "no such folder"),
        (str(tmp_path / "a\0b"), "no such folder"),
        (str(tmp_path), "has no adapter_config.json"),
        (str(checkpoint), "has no adapter_config.json"),
    ):
        with pytest.raises(ScorerError, match=said):
            open_checkpoint(str(checkpoint), name)
    (adapter / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(ScorerError, match="cannot be read"):
        open_checkpoint(str(checkpoint), str(adapter))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ScorerError, match=r"has no adapter_model\.safetensors: copy the adapter again"):
        open_checkpoint(str(checkpoint), str(adapter))
    (adapter / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ScorerError, match="a pickle, which could run a program and is not read"):
        open_checkpoint(str(checkpoint), str(adapter))


def test_what_takes_no_adapter_says_so(checkpoint, settings, adapter, tmp_path):
    wished = replace(settings, adapter=str(adapter))
    with pytest.raises(ScorerError, match="cannot be merged into weights in 8 bits"):
        load_scorer(str(checkpoint), replace(wished, quantization="int8"))
    for url in ("http://127.0.0.1:9", "http://127.0.0.1:9/v1#m"):
        for ask in (load_scorer, about_model):
            with pytest.raises(ScorerError, match="served elsewhere: start that server with it"):
                ask(url, wished)
    with pytest.raises(ScorerError, match="is a plug-in: leave adapter empty"):
        load_scorer("plugin:some", wished)
    robometer = make_robometer(tmp_path / "robometer")
    with pytest.raises(ScorerError, match=r"is for dense Qwen3-VL, and .*robometer holds a Robometer"):
        load_scorer(str(robometer), wished)
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "qwen3_vl_moe"}))
    with pytest.raises(ScorerError, match="holds a model of type 'qwen3_vl_moe'"):
        load_scorer(str(copy), wished)


def test_without_peft_the_error_says_how_to_get_it(checkpoint, settings, adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ScorerError, match=r"an adapter needs peft, .*: pip install 'peft>=0.18'"):
        load_scorer(str(checkpoint), replace(settings, adapter=str(adapter)))
    with pytest.raises(ScorerError, match=r"an adapter needs peft, .*: pip install 'peft>=0.18'"):
        check_wish(str(checkpoint), replace(settings, adapter=str(adapter)))
    check_wish(str(checkpoint), settings)


@pytest.fixture
def refused(checkpoint, settings, adapter, monkeypatch) -> Callable[[], str]:
    """The sentence with which the adapter is refused, before peft is asked for anything."""
    monkeypatch.setattr(merging, "import_peft", lambda: None)

    def said() -> str:
        with pytest.raises(ScorerError) as raised:
            load_scorer(str(checkpoint), replace(settings, adapter=str(adapter)))
        return str(raised.value)

    return said


def test_an_adapter_of_another_model_is_refused(adapter, refused):
    whole = load_file(adapter / "adapter_model.safetensors")
    for change, said in (
        (
            lambda w: w.update({name.replace("layers.3", "layers.9"): it for name, it in whole.items()}),
            "made for some-org/base, changes the layer 'model.language_model.layers.9.mlp.down_proj'",
        ),
        (
            lambda w: [w.pop(name) for name in whole if ".layers.2." in name],
            "asks for 2 more layers of this model than its file has, first 'model.language_model.layers.2",
        ),
        (
            lambda w: w.update({f"{NAME}.lora_A.weight": torch.ones(4, 64)}),
            "have the shapes (4, 64) and (128, 4), and with rank 4 this model needs (4, 128) and (128, 4)",
        ),
        (
            lambda w: w.update(
                {f"{NAME}.lora_A.weight": torch.ones(8, 128), f"{NAME}.lora_B.weight": torch.ones(128, 8)}
            ),
            "have the shapes (8, 128) and (128, 8), and with rank 4",
        ),
        (
            lambda w: w.update({f"{NAME}.lora_B.weight": torch.full((128, 4), float("inf"))}),
            "has values that are not finite",
        ),
        (
            lambda w: w.update({name: torch.zeros_like(it) for name, it in w.items() if ".lora_B." in name}),
            "changes nothing, as all its lora_B are zero",
        ),
    ):
        save_file(whole, adapter / "adapter_model.safetensors")
        reweigh(adapter, change)
        assert said in refused()


def test_an_expression_that_never_ends_is_given_up(adapter, refused, monkeypatch):
    monkeypatch.setattr(merging, "_MATCH_S", 1.0)
    configure(adapter, target_modules=r"(\w*\.?)*(\w*\.?)*!")
    begun = time.monotonic()
    assert "for its layers takes more than 1 s" in refused()
    assert time.monotonic() > begun + 1.0
    configure(adapter, target_modules="(")
    assert "for its layers cannot be read" in refused()


def test_a_head_that_is_the_embedding_is_not_changed_unseen(
    checkpoint, settings, adapter, tmp_path, monkeypatch
):
    monkeypatch.setattr(merging, "import_peft", lambda: None)
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text()) | {"tie_word_embeddings": True}
    config["text_config"]["tie_word_embeddings"] = True
    (copy / "config.json").write_text(json.dumps(config))
    weights = load_file(copy / "model.safetensors")
    head = weights.pop("lm_head.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    pair = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(4, head.shape[1]),
        "base_model.model.lm_head.lora_B.weight": torch.ones(head.shape[0], 4),
    }
    reweigh(adapter, lambda w: w.update(pair))
    with pytest.raises(
        ScorerError, match="changes 'lm_head', which is the embedding of this model at the same"
    ):
        load_scorer(str(copy), replace(settings, adapter=str(adapter)))


def test_the_log_names_what_was_merged(checkpoint, settings, adapter, caplog):
    pytest.importorskip("peft")
    with caplog.at_level(logging.INFO):
        load_scorer(str(checkpoint), replace(settings, adapter=str(adapter))).close()
    assert f"merged the adapter {adapter} into 8 layers" in caplog.messages
