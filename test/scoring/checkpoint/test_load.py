"""Checkpoints that are not what they seem are refused by name, with the mend; and how they may differ."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.models import describe_model
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint import weight_files
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.registry import load_scorer

asked = ScoreRequest.of_frames

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 123456\n"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def refused(copy: Path, settings: Any) -> Callable[..., str]:
    """What is said of a folder, `copy` unless another is given, when it is loaded."""

    def say(folder: Path = copy, **changes: object) -> str:
        with pytest.raises(ScorerError) as error:
            load_scorer(str(folder), replace(settings, **changes))
        said = str(error.value)
        assert "\n" not in said and len(said) < 700
        return said

    return say


@pytest.fixture
def same_score(
    copy: Path, settings: Any, loaded: Any, make_video: Any, to_rounding: Any
) -> Callable[[], None]:
    """Asserts that `copy` scores as the checkpoint that it was made from."""

    def check() -> None:
        video = make_video(3, 32, 32)
        expected = loaded.score(asked("lift", video)).log_prob
        assert load_scorer(str(copy), settings).score(asked("lift", video)).log_prob == to_rounding(expected)

    return check


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_part(folder: Path, part: str, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", **{part: config[part] | changes})


def change_weights(folder: Path, change: Callable[[Weights], Weights | None]) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(change(weights) or weights, folder / WEIGHTS, metadata={"format": "pt"})


def split(folder: Path) -> dict[str, str]:
    """Cut the weights into two shards, write their index and return where each weight is."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    where = {name: SHARDS[i % 2] for i, name in enumerate(sorted(weights))}
    for shard in SHARDS:
        part = {name: weights[name] for name in weights if where[name] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def added(name: str, like: torch.Tensor | None = None) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        weights[name] = torch.ones(128) if like is None else like

    return change


LAYER = "model.language_model.layers.0.self_attn.q_proj"

# ---- weights without a place ----------------------------------------------------------------------------


def test_a_weight_without_a_place_is_named(copy, refused):
    change_weights(copy, added(f"{LAYER}.bias"))
    said = refused()
    assert f"copy has 1 weight without a place in the model that config.json describes: {LAYER}.bias." in said
    assert "would be dropped" in said


@pytest.mark.parametrize(
    ("part", "changes", "count"),
    [
        ("text_config", {"num_hidden_layers": 2}, 22),
        ("vision_config", {"depth": 3}, 12),
        ("vision_config", {"deepstack_visual_indexes": [0, 1]}, 6),
    ],
)
def test_a_configuration_with_fewer_layers_is_refused(copy, refused, part, changes, count):
    edit_part(copy, part, **changes)
    said = refused()
    assert f"has {count} weights without a place" in said and ", .... They would be dropped" in said


def test_a_configuration_with_more_layers_lacks_weights(copy, refused):
    edit_part(copy, "text_config", num_hidden_layers=6)
    assert "lacks 22 weights, first 'model.language_model.layers.4." in refused()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "module.", "All names begin with 'module.': save the model without what was wrapped around it"),
        ("", "base_model.model.", "adapter that is not merged: merge it with peft's merge_and_unload()"),
        ("model.language_model.", "model.text.", "such as 'model.language_model.embed_tokens.weight'"),
    ],
)
def test_weights_under_other_names_are_refused(copy, refused, old, new, said):
    change_weights(copy, lambda weights: {name.replace(old, new, 1): weights[name] for name in weights})
    assert said in refused()


def test_weights_that_transformers_itself_ignores_or_renames_do_not_count(copy, same_score):
    def change(weights: Weights) -> Weights:
        renamed = {f"model.{name}": weights[name] for name in weights}  # a prefix that transformers takes off
        return renamed | {"model.model.language_model.rotary_emb.inv_freq": torch.ones(16)}

    change_weights(copy, change)
    same_score()


def test_weights_of_another_shape_are_named(copy, refused):
    edit_part(copy, "text_config", intermediate_size=256)
    said = refused()
    assert (
        "12 weights of another shape than config.json says, first 'model.language_model.layers.0.mlp." in said
    )
    assert "with (128, 384), not (128, 256)" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(copy, refused, value):
    def change(weights: Weights) -> None:
        weights["model.language_model.embed_tokens.weight"][7, 3] = value

    change_weights(copy, change)
    assert (
        "'model.language_model.embed_tokens.weight' has values that are not finite in torch.float32"
        in refused()
    )


def test_a_matrix_of_zeros_is_named(copy, refused):
    def change(weights: Weights) -> None:
        weights["model.language_model.layers.0.mlp.down_proj.weight"].zero_()

    change_weights(copy, change)
    assert "'model.language_model.layers.0.mlp.down_proj.weight' is zero all over" in refused()


def test_notes_that_are_nested_without_end_are_named(copy, refused):
    (copy / "topreward.json").write_text("[" * 100_000)
    said = refused()
    assert "topreward.json cannot be read" in said and said.endswith(": restore it, or remove it")


def test_weights_that_are_too_large_for_float16_name_the_dtype_that_works(copy, refused, settings):
    def change(weights: Weights) -> None:
        weights["model.language_model.embed_tokens.weight"][7, 3] = 1e6

    change_weights(copy, change)
    assert "not finite in torch.float16: float16 may be too narrow for it; use dtype bfloat16" in refused(
        dtype="float16"
    )
    assert load_scorer(str(copy), settings).info.dtype == "float32"


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.language_model.embed_tokens.weight", "model.language_model.norm.weight"]
)
def test_a_weight_that_no_training_makes_is_named(copy, refused, name):
    change_weights(copy, lambda weights: weights | {name: weights[name] * 1e30})
    assert f"the weight {name!r} has the value " in refused() and "none that was trained is so" in refused()


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_a_head_whose_log_probabilities_cannot_be_is_refused(copy, refused, factor):
    change_weights(copy, lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"] * factor})
    assert "no model that was trained goes below -1000" in refused()


@pytest.mark.parametrize(("name", "holes"), [("mlp.down_proj", True), ("embed_tokens", False)])
def test_stretches_of_zeros_are_warned_of_where_no_model_has_them(copy, settings, caplog, name, holes):
    def change(weights: Weights) -> None:
        weight = next(weights[full] for full in sorted(weights) if full.endswith(f"{name}.weight"))
        weight.view(-1)[500 : 500 + 2048] = 0.0

    change_weights(copy, change)
    load_scorer(str(copy), settings)
    assert ("stretches of zeros in 1 weight" in caplog.text) == holes


# ---- configurations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["flash_attention_2", "eager", "kernels-community/flash-attn", "nonsense"])
@pytest.mark.parametrize("part", ["", "text_config", "vision_config"])
def test_the_attention_of_the_machine_that_saved_a_model_does_not_matter(copy, same_score, part, kernel):
    for key in ("_attn_implementation", "attn_implementation"):
        if part:
            edit_part(copy, part, **{key: kernel})
        else:
            edit(copy / "config.json", **{key: kernel})
    same_score()


def test_what_a_library_says_is_quoted_beyond_its_first_line(copy, refused):
    edit_part(copy, "text_config", hidden_act=["silu"])
    said = refused()
    assert f"{copy / 'config.json'} cannot be used (" in said and "restore it from the checkpoint" in said
    assert "hidden_act" in said and "list" in said


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *(("text_config", "num_hidden_layers", value) for value in (10**6, 0, -1, True, 4.0, "4")),
        *(
            ("text_config", key, -8)
            for key in ("hidden_size", "head_dim", "num_key_value_heads", "vocab_size")
        ),
        *(("text_config", key, 10**15) for key in ("vocab_size", "intermediate_size")),
        ("text_config", "num_experts", 10**6),
        ("text_config", "num_labels", 10**8),
        ("vision_config", "depth", 10**6),
        *(("vision_config", key, 0) for key in ("patch_size", "num_heads", "num_position_embeddings")),
        ("vision_config", "image_size", [224, 0]),
        ("vision_config", "spatial_merge_size", -2),
        ("vision_config", "deepstack_visual_indexes", [0] * 20_000),
        ("audio_config", "encoder_layers", 10**6),
    ],
)
def test_a_size_that_cannot_be_is_named(copy, refused, part, key, value):
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", **{part: config.get(part, {}) | {key: value}})
    said = refused()
    assert f"{copy / 'config.json'}: {part}.{key} is " in said and "restore it from the checkpoint" in said


@pytest.mark.parametrize("section", [[0, 0, 0], [8, 4, 5], [16], "x", [8.0, 4.0, 4.0], [20, -2, -2]])
def test_a_rotation_that_does_not_make_up_a_head_is_named(copy, refused, section):
    config = json.loads((copy / "config.json").read_text())
    rope = config["text_config"]["rope_parameters"]
    edit_part(copy, "text_config", rope_parameters=rope | {"mrope_section": section})
    assert "three whole numbers above 0 that sum to half of head_dim, 32: restore it" in refused()


@pytest.mark.parametrize("is_pickle", [True, False])
@pytest.mark.parametrize("sizes", [{"vocab_size": 9_999_999}, {"num_hidden_layers": 500}])
def test_a_configuration_of_a_far_larger_model_takes_no_memory(copy, refused, sizes, is_pickle):
    edit_part(copy, "text_config", **sizes)
    if is_pickle:
        torch.save(load_file(copy / WEIGHTS), copy / "pytorch_model.bin")
        (copy / WEIGHTS).unlink()
    assert re.search(r"describes a model of [\d,]+ numbers, and the weights are [\d,]+: they are", refused())


@pytest.mark.parametrize("name", ["config.json", "video_preprocessor_config.json", "generation_config.json"])
@pytest.mark.parametrize("key", ["some", "model_type", "text_config", "size"])
@pytest.mark.parametrize("depth", [60, 600, 100_000])
def test_a_file_that_is_nested_without_end_is_named(copy, refused, name, key, depth):
    content = json.loads((copy / name).read_text()) if (copy / name).is_file() else {}
    text = json.dumps(content | {key: "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
    (copy / name).write_text(text)
    assert f"{copy / name} cannot be " in refused()


# ---- heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [None, False, True])
def test_a_head_that_is_tied_in_text_config_alone_is_the_embedding(copy, settings, top):
    edit_part(copy, "text_config", tie_word_embeddings=True)
    config = json.loads((copy / "config.json").read_text())
    config.pop("tie_word_embeddings")
    (copy / "config.json").write_text(
        json.dumps(config if top is None else config | {"tie_word_embeddings": top})
    )
    change_weights(copy, lambda weights: {n: w for n, w in weights.items() if n != "lm_head.weight"})
    model = load_scorer(str(copy), settings)._model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_a_head_of_its_own_is_used_whatever_text_config_says(copy, same_score):
    edit_part(copy, "text_config", tie_word_embeddings=True)
    same_score()


def test_a_tied_head_may_lie_in_the_files_as_well(copy, settings):
    edit(copy / "config.json", tie_word_embeddings=True)
    embedding = load_file(copy / WEIGHTS)["model.language_model.embed_tokens.weight"]
    change_weights(copy, added("lm_head.weight", embedding.clone()))
    model = load_scorer(str(copy), settings)._model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_a_head_that_the_index_names_and_no_file_holds_is_not_made_up(copy, refused):
    edit_part(copy, "text_config", tie_word_embeddings=True)
    where = split(copy)
    shard = copy / where["lm_head.weight"]
    weights = load_file(shard)
    del weights["lm_head.weight"]
    save_file(weights, shard, metadata={"format": "pt"})
    assert f"{where['lm_head.weight']} holds the weight 'lm_head.weight', which no file does" in refused()


# ---- quantized ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"bits": 4}, "an unknown method"),
        ("fp8", "an unknown method"),
    ],
)
@pytest.mark.parametrize("part", ["", "text_config"])
def test_a_quantized_checkpoint_is_refused_with_what_is_supported(copy, refused, part, said, method):
    if part:
        edit_part(copy, part, quantization_config=said)
    else:
        edit(copy / "config.json", quantization_config=said)
    assert refused().endswith(
        f"copy is quantized with {method}, which is not supported: take the unquantized checkpoint, and with "
        "dense Qwen3-VL the parameter quantization: int8 where memory is short"
    )


def test_an_older_sign_of_quantization_counts(copy, refused):
    edit(copy / "config.json", compression_config={"quant_method": "compressed-tensors"})
    assert "quantized with compressed-tensors" in refused()
    edit(copy / "config.json", compression_config=None)
    (copy / "quantize_config.json").write_text('{"bits": 4}')
    assert "is quantized, as quantize_config.json says" in refused()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (f"{LAYER}.weight_scale_inv", torch.ones(1, 1)),
        (f"{LAYER}.qweight", torch.ones(16, 128, dtype=torch.int32)),
        (f"{LAYER}.weight.absmax", torch.ones(8)),
        (f"{LAYER}.SCB", torch.ones(8)),
        (f"{LAYER}.weight", torch.ones(128, 128, dtype=torch.int8)),
        (f"{LAYER}.weight", torch.ones(64, 128, dtype=torch.uint8)),
    ],
)
def test_quantized_weights_are_told_by_themselves(copy, refused, name, tensor):
    change_weights(copy, added(name, tensor))
    assert f"has quantized weights ({name}, " in refused()


def test_weights_in_another_float_are_cast(copy, same_score):
    change_weights(copy, lambda weights: {name: weights[name].double() for name in weights})
    same_score()


# ---- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS, "video_preprocessor_config.json"])
def test_a_pointer_of_git_lfs_is_named(copy, refused, name):
    (copy / name).write_text(POINTER)
    assert (
        refused()
        == f"{copy / name} is a pointer of git LFS, not the file itself: run `git lfs pull` in {copy}"
    )


@pytest.mark.parametrize("name", [INDEX, *SHARDS])
def test_a_pointer_of_git_lfs_among_shards_is_named(copy, refused, name):
    split(copy)
    (copy / name).write_text(POINTER)
    assert f"{name} is a pointer of git LFS" in refused()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes): copy it again"),
        (b"short", "it has no head of a safetensors file, or is cut short within it): copy it again"),
        (b"\x10" + bytes(7) + b'{"a": 3}        ', "cannot be read (TypeError"),
        (b"<html>the proxy says no</html>", "it has no head of a safetensors file"),
    ],
)
def test_a_damaged_file_of_weights_is_named(copy, refused, content, said):
    (copy / WEIGHTS).write_bytes(content)
    assert f"{copy / WEIGHTS} " in refused() and said in refused()


@pytest.mark.parametrize(("change", "state"), [(-1, "cut short"), (1, "longer than it should be")])
def test_a_file_of_weights_of_a_wrong_size_is_named(copy, refused, change, state):
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[:change] if change < 0 else content + bytes(change))
    assert (
        f"it has {len(content) + change} bytes and is {state}: its head tells of {len(content)}" in refused()
    )


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("in_a_shard", [True, False])
def test_a_pickle_that_runs_a_program_is_not_run(copy, refused, tmp_path, is_zip, in_a_shard):
    weights: dict[str, Any] = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    mark = tmp_path / "ran"
    file = "pytorch_model-00001-of-00001.bin" if in_a_shard else "pytorch_model.bin"
    if in_a_shard:
        (copy / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, file)})
        )
    torch.save(weights | {"more": Hostile(mark)}, copy / file, _use_new_zipfile_serialization=is_zip)
    said = refused()
    assert "holds other things than weights" in said and "get the model as safetensors" in said
    assert "weights_only" not in said, "torch says how to load it all the same"
    assert not mark.exists()
    torch.load(copy / file, weights_only=False)
    assert mark.exists(), "the file is as hostile as it should be"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[: len(content) // 2], "is cut short ("),
        (lambda content: content[:-1], "is cut short ("),
        (lambda _: b"<html>the proxy says no</html>", "is no file of PyTorch: copy it again"),
    ],
)
def test_a_damaged_file_of_pytorch_is_named(copy, refused, change, said):
    weights = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    path = copy / "pytorch_model.bin"
    torch.save(weights, path)
    path.write_bytes(change(path.read_bytes()))
    assert f"{path} {said}" in refused()


def test_a_weight_in_two_shards_is_named(copy, refused):
    where = split(copy)
    (name, other) = next((name, shard) for name, shard in where.items() if shard == SHARDS[1])
    weights = load_file(copy / SHARDS[0]) | {name: load_file(copy / other)[name]}
    save_file(weights, copy / SHARDS[0], metadata={"format": "pt"})
    assert f"the weight {name!r} is in {SHARDS[0]} and in {SHARDS[1]}" in refused()


@pytest.mark.parametrize(
    "shard", ["../copy/model.safetensors", "/model.safetensors", "sub/model.safetensors"]
)
def test_an_index_that_leaves_the_folder_is_refused(copy, refused, shard):
    where = split(copy)
    (copy / INDEX).write_text(json.dumps({"weight_map": where | {"lm_head.weight": shard}}))
    assert f"{INDEX} names a file of another folder, {shard!r}" in refused()


@pytest.mark.parametrize("shard", ["config.json", "lm_head.bin", "..", "lm_head.safetensors\0"])
def test_an_index_that_names_what_holds_no_weights_is_refused(copy, refused, shard):
    where = split(copy)
    (copy / "lm_head.bin").write_bytes(b"\x80")
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where | {"lm_head.weight": shard}}))
    assert f"{INDEX} names " in refused() and "restore the index" in refused()


def test_an_index_without_metadata_is_named(copy, refused):
    where = split(copy)
    (copy / INDEX).write_text(json.dumps({"weight_map": where}))
    assert f"{INDEX} has no metadata, which transformers needs: restore the index" in refused()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_folder_where_a_file_should_be_is_named(copy, refused, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    assert f"{name} is a folder, and must be a file" in refused()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_link_to_nothing_is_named(copy, refused, name):
    (copy / name).unlink()
    (copy / name).symlink_to("../blobs/0123")
    assert f"{name} is a link to a file that is not there" in refused()


def test_links_into_the_hubs_cache_are_followed(copy, same_score):
    blobs = copy.parent / "blobs"
    blobs.mkdir()
    for i, path in enumerate(sorted(copy.iterdir())):
        path.rename(blobs / f"{i:064x}")
        path.symlink_to(f"../blobs/{i:064x}")
    same_score()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_in_a_file_that_transformers_reads_is_named(copy, refused, name, encoding):
    (copy / name).write_text((copy / name).read_text(), encoding=encoding)
    assert f"{name} begins with a byte order mark" in refused()


def test_a_byte_order_mark_in_files_that_are_read_here_does_not_count(copy, same_score):
    for name in ("video_preprocessor_config.json", "topreward.json"):
        path = copy / name
        path.write_text(path.read_text() if path.exists() else "{}", encoding="utf-8-sig")
    same_score()


def test_files_that_are_not_loaded_do_not_count(copy, settings, same_score):
    before = describe_model(str(copy))
    for name in ("optimizer.pt", "consolidated.safetensors", "pytorch_model.bin", SHARDS[0]):
        (copy / name).write_bytes(bytes(1000))
    after = describe_model(str(copy))
    assert (after.size, after.weight_files, after.revision) == (before.size, 1, before.revision)
    same_score()


def test_shards_that_the_index_does_not_name_do_not_count(copy, same_score):
    split(copy)
    before = describe_model(str(copy))
    (copy / "model-00003-of-00003.safetensors").write_bytes(bytes(1000))
    after = describe_model(str(copy))
    assert (after.size, after.weight_files, after.revision) == (before.size, 2, before.revision)
    same_score()


# ---- folders that hold something else ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_the_weights_is_refused(copy, refused, name):
    (copy / name).write_text('{"base_model_name_or_path": "org/base"}')
    said = refused()
    assert (
        f"copy holds an adapter ({name}) beside the weights, which would not be applied: move its files to a "
        in said
    )
    assert "merge_and_unload()" in said and "name that as adapter, or leave it out" in said
    assert ("org/base" in said) == (name == "adapter_config.json")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "it holds an adapter alone: name the model that it belongs to as model, and",
        ),
        (["model_index.json", "unet/config.json"], "it is a model of diffusers"),
        (["config.json", "model-q4.gguf"], "model-q4.gguf is in GGUF, which is not read"),
        (["config.json", "tokenizer.json", "model.onnx"], "model.onnx is in ONNX"),
        (["config.json", "flax_model.msgpack"], "flax_model.msgpack is in Flax"),
        (["config.json", "weights.pth"], "weights.pth is in PyTorch's .pth"),
        (["config.json", "model.bin"], "model.bin is in PyTorch's .bin under another name"),
        (
            ["params.json", "consolidated.safetensors"],
            "consolidated.safetensors is in Mistral's or Meta's own",
        ),
        (
            ["config.json", ".cache/huggingface/download/x.incomplete"],
            "a download into this folder was inter",
        ),
        (["checkpoint-500/config.json"], "the checkpoint lies one level deeper; name "),
        (
            ["config.json", "tokenizer.json", "model.fp16.safetensors"],
            "model.fp16.safetensors is not looked for",
        ),
        (["config.json", "tokenizer.json", "Model.safetensors"], "rename it to model.safetensors"),
        (
            ["config.json", "model.safetensors"],
            "has no tokenizer.json: copy all files of the checkpoint there",
        ),
        (["model-00001-of-00002.safetensors"], "copy all files of the checkpoint there"),
        (
            ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
            "are not looked for under these names; take the files that are called model.safetensors",
        ),
        (["training_args.bin"], "copy all files of the checkpoint there"),
    ],
)
def test_a_folder_of_something_else_says_what_it_is(tmp_path, refused, files, said):
    for name in files:
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / name).write_text("{}")
    assert said in refused(tmp_path / "some")


def test_a_folder_of_the_hubs_cache_names_the_model(tmp_path, refused):
    folder = tmp_path / "models--Qwen--Qwen3-VL-2B-Instruct"
    (folder / "snapshots").mkdir(parents=True)
    assert "name the model, Qwen/Qwen3-VL-2B-Instruct, or the folder in snapshots/" in refused(folder)


def test_a_file_in_another_format_is_named(tmp_path, refused):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a file: model.gguf is in GGUF, which is not read" in refused(tmp_path / "model.gguf")


# ---- revision -------------------------------------------------------------------------------------------


def sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The revision of ``folder`` as if its weights were large."""
    monkeypatch.setattr(weight_files, "_READ_WHOLE", 1000)
    revision = open_checkpoint(str(folder)).revision
    assert re.fullmatch(r"sampled-[0-9a-f]{16}", revision)
    return revision


def test_small_weights_are_hashed_whole(copy):
    digest = hashlib.sha256((copy / WEIGHTS).read_bytes()).hexdigest()
    assert open_checkpoint(str(copy)).revision == digest[:16]


def test_large_weights_are_told_apart_without_reading_all(copy, tmp_path, monkeypatch):
    before = sampled(copy, monkeypatch)
    assert sampled(Path(shutil.copytree(copy, tmp_path / "elsewhere")), monkeypatch) == before
    os.utime(copy / WEIGHTS, (0, 0))
    assert sampled(copy, monkeypatch) == before, "neither time nor place counts"
    kept = load_file(copy / WEIGHTS)
    for name in sorted(kept):  # as training would change any one of them
        generator = torch.Generator().manual_seed(1)
        step = torch.randn(kept[name].shape, generator=generator) * 0.01
        changed = kept | {name: (kept[name] + step).bfloat16()}
        save_file(changed, copy / WEIGHTS, metadata={"format": "pt"})
        assert sampled(copy, monkeypatch) != before, name


def test_the_sample_of_a_tensor_reaches_from_its_first_byte_to_its_last(copy, monkeypatch):
    large = (torch.zeros(1000, 1000), torch.zeros(1000, 1000))
    large[0][0, 0] = large[1][-1, -1] = 1.0
    seen = set()
    for tensor in (torch.zeros(1000, 1000), *large):
        change_weights(copy, added("extra", tensor))
        seen.add(sampled(copy, monkeypatch))
    assert len(seen) == 3


def test_shards_and_the_names_of_files_count(copy, monkeypatch):
    whole = sampled(copy, monkeypatch)
    split(copy)
    assert sampled(copy, monkeypatch) != whole


def test_weights_of_the_older_format_are_told_apart(copy, monkeypatch, same_score):
    weights = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    before = sampled(copy, monkeypatch)
    same_score()
    torch.save({name: weights[name] * 1.5 for name in weights}, copy / "pytorch_model.bin")
    assert sampled(copy, monkeypatch) != before


# ---- a trial score ----------------------------------------------------------------------------------------


def test_a_model_that_loads_and_cannot_score_is_refused(copy, refused, settings):
    def change(weights: Weights) -> None:  # finite in float16, but what lies between the two is not
        layer = "model.language_model.layers.0.mlp"
        weights[f"{layer}.up_proj.weight"] *= 2.0**16
        weights[f"{layer}.down_proj.weight"] *= 2.0**-16

    change_weights(copy, change)
    said = refused(dtype="float16")
    assert f"{copy} was loaded in float16 on cpu and cannot score (" in said and "use dtype float32" in said
    assert load_scorer(str(copy), settings).info.dtype == "float32"


def test_nothing_is_kept_of_the_trial(checkpoint, settings):
    assert not load_scorer(str(checkpoint), settings)._episodes
