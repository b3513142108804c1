"""From a model's name to a scorer, and the errors on the way."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from topreward_ros.core.frames import EpisodeBuffer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import device, registry
from topreward_ros.scoring.base import ScorerError
from topreward_ros.scoring.checkpoint import folder
from topreward_ros.scoring.checkpoint.notes import NOTES_FILE, ModelNotes, read_model_notes
from topreward_ros.scoring.question.prompts import prompt_hash
from topreward_ros.scoring.qwen3_vl import cuda_graphs
from topreward_ros.scoring.qwen3_vl.memory_need import memory_need
from topreward_ros.scoring.registry import load_scorer

asked = ScoreRequest.of_frames  # a request for all of some frames

ROOT = Path(registry.__file__).resolve().parents[2]


@pytest.fixture
def copy(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


def split(folder: Path) -> None:
    """Cut the weights into two shards and write their index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: SHARDS[i % 2] for i, name in enumerate(sorted(weights))}
    for shard in SHARDS:
        part = {name: weights[name] for name in weights if where[name] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter with the package in its path and the hub's own settings."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        | {"PYTHONPATH": path}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_folder_gives_a_scorer_that_says_where_its_numbers_come_from(loaded, checkpoint):
    info = loaded.info
    assert (info.model_id, info.device, info.dtype) == (str(checkpoint), "cpu", "float32")
    assert info.random_weights
    assert info.prompt_hash == prompt_hash()
    assert len(info.revision) == 16
    assert info.max_pixels == 64 * 96


def test_the_pixel_budget_in_force_is_the_checkpoints_where_that_is_smaller(checkpoint, settings):
    info = load_scorer(str(checkpoint), replace(settings, max_pixels=307200, max_frames=128)).info
    assert info.max_pixels == 128 * 128 // 2  # the checkpoint has 128 x 128 for each of 64 frames


def test_other_wordings_than_a_model_was_trained_on_are_warned_of(settings, checkpoint, caplog):
    load_scorer("embedded", replace(settings, prompts="ten_prompts.txt"))
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith(
        "embedded was trained on the paper's question and answers alone, and prompts asks 'The above video "
        "shows a robot attempting the task: {instruction}. Based on the video, has the robot successfully "
        "completed this task? True or False. The answer is:' and 9 more: its numbers"
    )
    caplog.clear()
    load_scorer("embedded", settings)
    load_scorer(str(checkpoint), replace(settings, prompts="ten_prompts.txt"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_more_frames_than_memory_are_refused_with_the_arithmetic(checkpoint, settings, monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda device: 1_000_000)
    with pytest.raises(ScorerError) as error:
        load_scorer(str(checkpoint), settings)
    said = str(error.value)
    # 17 patches of 6 + 16 tokens, and 16 more; 4 layers of keys and values of 2 heads of 32 numbers; 3 videos
    total = 3 * (17 * (6 + 16) + 16) * 4 * 2 * 2 * 32 * 4 + 19 * 6 * 128 * 4 * 4
    assert f"need {total / 1e9:.2f} GB beside the weights (3 times 0.00 GB of KV cache" in said
    assert "0.00 GB are free on cpu: set max_frames to 10, or a smaller max_pixels" in said
    load_scorer(str(checkpoint), replace(settings, max_frames=10))
    with pytest.raises(ScorerError):
        load_scorer(str(checkpoint), replace(settings, max_frames=12))


def test_what_is_stated_is_never_passed(new_scorer, make_video, settings):
    """However long the episode, and with everything prepared that can be."""
    scorer = new_scorer(max_frames=12, sample_rate=2.0, prompts="ten_prompts.txt")
    need = memory_need(scorer._model.config, scorer._settings, 64 * 96, size=4)
    buffer = EpisodeBuffer(12)
    for frame in make_video(60, 64, 96):
        buffer.append(frame)
        scorer.score(ScoreRequest("open the drawer", buffer))
        for _ in scorer.ahead(ScoreRequest("open the drawer", buffer)):
            pass
        (episode,) = scorer._episodes.values()
        videos = (episode._video, episode._next_video, episode._static_video)
        prompts = episode.prompts("open the drawer").tokens
        per_token = 4 * 2 * 2 * 32 * 4
        for video in videos:
            assert video.bytes <= need.kv_cache + prompts * per_token
        seen = [
            tensor for seen in episode._features.values() for tensor in (seen.embeddings, *seen.deepstack)
        ]
        assert sum(tensor.untyped_storage().nbytes() for tensor in seen) <= need.features
    assert len(buffer.prefix()) > 6


def test_weights_without_the_mark_are_trained_ones_and_a_commit_is_the_revision(copy, settings, tmp_path):
    edit(copy / "config.json", topreward_random_weights=False)
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "snapshots" / commit
    folder.parent.mkdir()
    copy.rename(folder)
    info = load_scorer(str(folder), settings).info
    assert not info.random_weights
    assert info.revision == commit


def test_auto_is_float32_on_a_cpu(checkpoint, settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    info = load_scorer(str(checkpoint), replace(settings, device="auto", dtype="auto")).info
    assert (info.device, info.dtype) == ("cpu", "float32")


def test_half_precision_scores_near_float32(checkpoint, settings, loaded, make_video):
    video = make_video(4, 32, 32)
    half = load_scorer(str(checkpoint), replace(settings, dtype="bfloat16"))
    assert half.info.dtype == "bfloat16"
    expected = loaded.score(asked("lift", video)).log_prob
    assert half.score(asked("lift", video)).log_prob == pytest.approx(expected, abs=0.5)


def test_embedded_loads_silently_and_importing_the_registry_is_cheap():
    code = """
import sys
from topreward_ros.scoring import registry
from topreward_ros.scoring.base import ScorerSettings
assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules), "a dear import"
settings = ScorerSettings(
    device="cpu", dtype="float32", max_pixels=307200, max_frames=64, threads=1, static_baseline=True
)
info = registry.load_scorer("embedded", settings).info
assert info.model_id == "embedded" and not info.random_weights and info.max_pixels == 34816
assert "open the drawer" in info.instructions
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_an_installation_without_its_model_is_named(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "EMBEDDED_FOLDER", tmp_path / "embedded")
    with pytest.raises(ScorerError, match=r"embedded has no config.json .*install the package again"):
        load_scorer("embedded", settings)


@pytest.mark.parametrize("name", ["", "nowhere", "/no/such/folder", "./org/name", "a/b/c", "-/x"])
def test_a_name_that_is_nothing_is_refused(name, settings):
    with pytest.raises(ScorerError, match=r"no such folder.*hub id"):
        load_scorer(name, settings)


def test_a_file_is_refused(checkpoint, settings):
    with pytest.raises(ScorerError, match="is a file"):
        load_scorer(str(checkpoint / "config.json"), settings)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("model.safetensors", r"no weights \(model\.safetensors\)"),
    ],
)
def test_what_a_folder_lacks_is_named(copy, settings, file, named):
    (copy / file).unlink()
    with pytest.raises(ScorerError, match=f"copy has {named}: copy all files"):
        load_scorer(str(copy), settings)


def test_an_empty_folder_lacks_all(settings, tmp_path):
    with pytest.raises(ScorerError, match=r"no config\.json and no tokenizer\.json and no weights"):
        load_scorer(str(tmp_path), settings)


def test_another_kind_of_model_is_refused(copy, settings):
    edit(copy / "config.json", model_type="bert")
    with pytest.raises(ScorerError, match=r"of type 'bert', which transformers .* does not know as one that"):
        load_scorer(str(copy), settings)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize("content", [None, 3, "x", []])
def test_a_part_of_the_configuration_that_is_no_object_is_named(copy, settings, part, content):
    edit(copy / "config.json", **{part: content})
    with pytest.raises(ScorerError, match=rf"config\.json: {part} is .* must be an object: restore it"):
        load_scorer(str(copy), settings)


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 10_000])
def test_a_name_that_cannot_be_looked_up_is_refused(name, settings):
    with pytest.raises(ScorerError, match=r"cannot be looked up \(.*write the whole path"):
        load_scorer(name, settings)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(copy, settings, file):
    (copy / file).write_text("{")
    with pytest.raises(ScorerError, match=f"{file} cannot be read"):
        load_scorer(str(copy), settings)


def test_a_tokenizer_of_another_model_is_refused(copy, settings):
    edit(copy / "config.json", video_token_id=5)
    with pytest.raises(ScorerError, match=r"video_token_id 5, the tokenizer has .*different models"):
        load_scorer(str(copy), settings)


def test_a_tokenizer_larger_than_the_model_is_refused(copy, settings):
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", text_config=config["text_config"] | {"vocab_size": 300})
    with pytest.raises(ScorerError, match=r"tokenizer has \d+ tokens, config\.json has vocab_size 300"):
        load_scorer(str(copy), settings)


def test_a_folder_written_as_the_released_checkpoints_are_scores_the_same(
    to_rounding, copy, settings, loaded, make_video
):
    """Older names in config.json, several shards and their index."""
    text = json.loads((copy / "config.json").read_text())["text_config"]
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    edit(copy / "config.json", text_config=text, transformers_version="4.57.0.dev0", torch_dtype="bfloat16")
    split(copy)

    video = make_video(4, 32, 32)
    expected = loaded.score(asked("lift", video)).log_prob
    assert load_scorer(str(copy), settings).score(asked("lift", video)).log_prob == to_rounding(expected)


def test_shards_that_a_folder_lacks_are_named(copy, settings):
    split(copy)
    (copy / SHARDS[1]).unlink()
    with pytest.raises(ScorerError, match=rf"copy has no {SHARDS[1]}: copy all files"):
        load_scorer(str(copy), settings)
    (copy / SHARDS[0]).unlink()
    with pytest.raises(ScorerError, match=rf"copy has no {SHARDS[0]} and no {SHARDS[1]}: copy"):
        load_scorer(str(copy), settings)


def test_shards_without_their_index_are_not_all(copy, settings):
    split(copy)
    (copy / INDEX).unlink()
    with pytest.raises(ScorerError, match=rf"copy has no {INDEX}: copy all files"):
        load_scorer(str(copy), settings)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(copy, settings, content):
    split(copy)
    (copy / INDEX).write_text(content)
    with pytest.raises(ScorerError, match=rf"{INDEX} cannot be read .*restore it"):
        load_scorer(str(copy), settings)


def test_tied_embeddings_are_no_missing_weights(copy, settings, make_video):
    config = json.loads((copy / "config.json").read_text())
    edit(
        copy / "config.json",
        tie_word_embeddings=True,
        text_config=config["text_config"] | {"tie_word_embeddings": True},
    )
    weights = load_file(copy / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    scorer = load_scorer(str(copy), settings)
    assert scorer.score(asked("lift", make_video(2, 32, 32))).log_prob < 0
    head = scorer._model.lm_head.weight
    assert torch.equal(head, scorer._model.get_input_embeddings().weight)


def test_weights_cut_short_are_refused(copy, settings):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ScorerError, match=r"model\.safetensors cannot be read .*cut short.*copy it again"):
        load_scorer(str(copy), settings)


def test_a_missing_weight_is_never_made_up(copy, settings):
    weights = load_file(copy / "model.safetensors")
    del weights["model.visual.merger.linear_fc2.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ScorerError, match=r"lacks 1 weights, first 'model\.visual\.merger\.linear_fc2\.weight'"
    ):
        load_scorer(str(copy), settings)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"device": "tpu"}, "device 'tpu' is not known: use auto, cpu, cuda"),
        ({"device": "cuda:x"}, "is not known"),
        ({"device": "cuda:99"}, r"'cuda:99' was asked for.* sees \d+ CUDA devices: use device cpu"),
        ({"dtype": "int8"}, "dtype 'int8' is not known: use auto, float32"),
        ({"quantization": "int4"}, "quantization 'int4' is not known: use none or int8"),
        ({"layout": "v5"}, "layout 'v5' is not known: use v4.57 or v5.10"),
        ({"quantization": "int8", "dtype": "float16"}, "int8 overflows in dtype float16: use dtype bfloat16"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"threads": -1}, "scorer_threads is -1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(checkpoint, settings, changes, named):
    with pytest.raises(ScorerError, match=named):
        load_scorer(str(checkpoint), replace(settings, **changes))


def notes(folder: Path, **content: object) -> None:
    (folder / NOTES_FILE).write_text(json.dumps(content))


def test_the_frame_is_no_larger_than_the_model_was_trained_to_see_it(copy, settings):
    assert load_scorer(str(copy), settings).info.max_pixels == 64 * 96
    notes(copy, frame_pixels=32 * 64)
    many = replace(settings, max_pixels=307200, max_frames=2)
    assert load_scorer(str(copy), many).info.max_pixels == 32 * 64
    few = replace(settings, max_pixels=32 * 32)
    assert load_scorer(str(copy), few).info.max_pixels == 32 * 32
    assert load_scorer(str(copy), settings).info.instructions == ()


def test_a_known_instruction_reaches_the_model_as_it_was_trained(copy, settings, loaded, make_video):
    notes(copy, instructions={"open the drawer": ["pull the drawer open"]})
    scorer = load_scorer(str(copy), settings)
    assert scorer.info.instructions == ("open the drawer", "pull the drawer open")
    video = make_video(2, 32, 32)
    for trained, said in (
        ("open the drawer", "  Open the\n DRAWER. "),
        ("pull the drawer open", "Pull the drawer open"),
        ("fold The towel.", "fold The towel."),  # unknown: as it was said
    ):
        assert repr(scorer.score(asked(said, video))) == repr(loaded.score(asked(trained, video)))
    as_said = loaded.score(asked("Open the drawer.", video))
    assert repr(as_said) != repr(loaded.score(asked("open the drawer", video)))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "Expecting property name"),
        ("[]", "one object"),
        ('{"frame_pixels": 0}', "frame_pixels is 0"),
        ('{"frame_pixels": true}', "frame_pixels is True"),
        ('{"frame_pixels": "16384"}', "frame_pixels is '16384'"),
        ('{"model_summary": 3}', "model_summary is 3"),
        ('{"sha256": "abc"}', "sha256 is 'abc' and must be 64 hex digits"),
        ('{"instructions": ["x"]}', "instructions must be an object"),
        ('{"instructions": {"x": "y"}}', "wordings of 'x' must be a list"),
        ('{"instructions": {"x": [1]}}', "wordings of 'x' must be a list"),
        (b"\xff".decode("latin-1"), "the byte 0xff is not UTF-8"),
    ],
)
def test_damaged_notes_are_named(copy, settings, content, named):
    (copy / NOTES_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(ScorerError, match=r"topreward\.json(, line 1:| cannot be (used|read) \()") as caught:
        load_scorer(str(copy), settings)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert "restore it" in str(caught.value) or "save the file in UTF-8" in str(caught.value)


@pytest.mark.parametrize("target", ["nowhere", NOTES_FILE, "."])
def test_notes_that_lead_to_no_file_are_not_taken_for_none(tmp_path, target):
    (tmp_path / NOTES_FILE).symlink_to(target)
    with pytest.raises(ScorerError, match=r"topreward\.json is no file, or a link to none: restore it"):
        read_model_notes(tmp_path)


def test_notes_of_a_later_version_are_read_as_far_as_they_are_known(tmp_path):
    assert read_model_notes(tmp_path) == ModelNotes()
    notes(tmp_path, sha256="AB" * 32, made_with="something new")
    assert read_model_notes(tmp_path) == ModelNotes(sha256="ab" * 32)


COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
LOAD_FROM_HUB = """
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.qwen3_vl.memory_need import memory_need
from topreward_ros.scoring.base import ScorerError, ScorerSettings
try:
    settings = ScorerSettings(
        device="cpu", dtype="float32", max_pixels=307200, max_frames=64, threads=1, static_baseline=True
    )
    scorer = load_scorer("some-org/some-model", settings)
    print(scorer.info.revision)
except ScorerError as error:
    print(error)
"""
GET_IT = "get it with `topreward models download some-org/some-model`"


@pytest.fixture
def hub() -> Iterator[socket.socket]:
    """Where the hub is said to be: a socket that would hear of every attempt to reach it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):  # nobody called
            listener.accept()


def load_from_hub(home: Path, hub: socket.socket, **environment: str) -> str:
    endpoint = f"http://127.0.0.1:{hub.getsockname()[1]}"
    done = run(LOAD_FROM_HUB, HF_HOME=str(home), HF_ENDPOINT=endpoint, **environment)
    assert done.stdout.count("\n") == 1 and done.stderr == "", done.stderr
    return done.stdout.strip()


def in_the_hub_cache(folder: Path, home: Path) -> Path:
    """Move a checkpoint to where a download of some-org/some-model would have put it."""
    cached = home / "hub" / "models--some-org--some-model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots").mkdir()
    return folder.rename(cached / "snapshots" / COMMIT)


def test_a_hub_model_that_is_not_here_is_not_downloaded(tmp_path, hub):
    said = load_from_hub(tmp_path, hub)
    assert said.startswith("model 'some-org/some-model' is no folder and is not on this machine: ")
    assert GET_IT in said


def test_a_complete_local_copy_of_a_hub_model_is_used(copy, tmp_path, hub):
    in_the_hub_cache(copy, tmp_path)
    assert load_from_hub(tmp_path, hub) == COMMIT
    assert load_from_hub(tmp_path / "none", hub, HF_HUB_CACHE=str(tmp_path / "hub")) == COMMIT


def test_a_local_copy_that_is_not_complete_is_named(copy, tmp_path, hub):
    split(copy)
    (in_the_hub_cache(copy, tmp_path) / SHARDS[1]).unlink()
    said = load_from_hub(tmp_path, hub)
    assert f"has no {SHARDS[1]} in the local hub cache: {GET_IT}" in said


def test_a_name_that_the_hub_does_not_allow_is_not_here(settings, tmp_path):
    with pytest.raises(ScorerError, match="'a--b/c' is no folder and is not on this machine"):
        load_scorer("a--b/c", settings)


@pytest.mark.parametrize(
    ("device_type", "model_type", "wanted", "captured"),
    [
        ("cuda", "qwen3_vl", True, True),
        ("cuda", "qwen3_vl", False, False),
        ("cuda", "qwen3_vl_moe", True, False),
        ("cpu", "qwen3_vl", True, False),
    ],
)
def test_ticks_are_captured_where_that_can_be(
    settings, monkeypatch, device_type, model_type, wanted, captured
):
    monkeypatch.setattr(cuda_graphs, "GraphRunner", lambda device, in_fp8: f"captures on {device}")
    config = SimpleNamespace(model_type=model_type)
    model = SimpleNamespace(device=torch.device(device_type), config=config, modules=list)
    made = registry.graph_runner_for(model, replace(settings, cuda_graphs=wanted))
    assert made == (f"captures on {device_type}" if captured else None)
