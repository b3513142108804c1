"""Models of other families: each against a forward pass put together with the family's own processor."""

from __future__ import annotations

import gc
import json
import logging
import math
import re
import shutil
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor
from transformers.models.molmo2.video_processing_molmo2 import arange_for_pooling, batch_pixels_to_patches
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.smolvlm import processing_smolvlm

from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline.models import check_model, describe_model
from topreward_ros.scoring.any_vlm import image_family
from topreward_ros.scoring.any_vlm.scorer import TransformersVlmScorer
from topreward_ros.scoring.any_vlm.video_families import in_words
from topreward_ros.scoring.base import PrefixScore, ScorerError
from topreward_ros.scoring.checkpoint.random_weights import (
    RANDOM_WEIGHTS_KEY,
    _draw_weights,
    make_random_checkpoint,
    train_tokenizer,
)
from topreward_ros.scoring.question.templates import PAPER, fill, read_question, read_templates
from topreward_ros.scoring.qwen3_vl.references import PlainForward
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_qwen3_vl, load_scorer

asked = ScoreRequest.of_frames  # a request for all of some frames

TASK = "open the drawer"
TEN = read_templates("ten_prompts.txt")
SIDE = 28  # pixels of a frame, in every family
SENTENCES = [
    "The above video shows a robot manipulation trajectory that completes the following task:",
    "Decide whether the above statement is True or not. The answer is: True False",
    "User: You are provided the following series of frames from a [H:MM:SS] video. Frame from Assistant:",
    "open the drawer and fold the towel",
]
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}

# ---- a tiny checkpoint of each family ----------------------------------------------------------------


def tokenizer_with(*added: str) -> Tokenizer:
    tokenizer = train_tokenizer(SENTENCES, 480)
    tokenizer.add_special_tokens(list(added))
    return tokenizer


def sentencepiece() -> Tokenizer:
    """As Llama's: a space is a letter of the word behind it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", "<image>"], show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, "abcdefghijklmnopqrstuvwxyz :.,<>|_"] * 3, trainer)
    return tokenizer


def qwen2_5_vl(tokenizer: Tokenizer, vocabulary: int) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(
            text_config=TEXT | {"vocab_size": vocabulary, "rope_parameters": rope},
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": 64,
                "patch_size": 14,
                "window_size": 56,
                "fullatt_block_indexes": [1],
                "tokens_per_second": 2,
            },
            image_token_id=tokenizer.token_to_id("<|image_pad|>"),
            video_token_id=tokenizer.token_to_id("<|video_pad|>"),
            vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
            vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
            tie_word_embeddings=False,
        )
    )


def qwen2_vl(tokenizer: Tokenizer, vocabulary: int) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    return transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(
            text_config=TEXT | {"vocab_size": vocabulary, "rope_parameters": rope},
            vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
            image_token_id=tokenizer.token_to_id("<|image_pad|>"),
            video_token_id=tokenizer.token_to_id("<|video_pad|>"),
            vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
            vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
            tie_word_embeddings=False,
        )
    )


def internvl(tokenizer: Tokenizer, vocabulary: int) -> Any:
    return transformers.InternVLForConditionalGeneration(
        transformers.InternVLConfig(
            text_config=TEXT | {"model_type": "qwen2", "vocab_size": vocabulary},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [SIDE, SIDE],
                "patch_size": [7, 7],
            },
            image_token_id=tokenizer.token_to_id("<IMG_CONTEXT>"),
            image_seq_length=4,
            tie_word_embeddings=False,
        )
    )


def smolvlm(tokenizer: Tokenizer, vocabulary: int) -> Any:
    text = TEXT | {"model_type": "llama", "vocab_size": vocabulary, "pad_token_id": 0}
    return transformers.SmolVLMForConditionalGeneration(
        transformers.SmolVLMConfig(
            text_config=text,
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 7,
            },
            image_token_id=tokenizer.token_to_id("<image>"),
            scale_factor=2,
            tie_word_embeddings=False,
        )
    )


def molmo2(tokenizer: Tokenizer, vocabulary: int) -> Any:
    base = tokenizer.token_to_id("<im_start>")  # the video's tokens come on top of the vocabulary
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return transformers.Molmo2ForConditionalGeneration(
        transformers.Molmo2Config(
            text_config=TEXT
            | {
                "head_dim": 16,
                "vocab_size": base,
                "additional_vocab_size": vocabulary - base,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            vision_config=heads
            | {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 3,
                "image_size": [SIDE, SIDE],
                "patch_size": 7,
            },
            adapter_config=heads
            | {
                "hidden_size": 32,
                "intermediate_size": 64,
                "text_hidden_size": 64,
                "vision_feature_layer": [2, 0],
            },
            image_patch_id=tokenizer.token_to_id("<im_patch>"),
            image_start_token_id=base,
            frame_start_token_id=tokenizer.token_to_id("<frame_start>"),
            frame_end_token_id=tokenizer.token_to_id("<frame_end>"),
        )
    )


def llava(tokenizer: Tokenizer, vocabulary: int) -> Any:
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=TEXT | {"model_type": "llama", "vocab_size": vocabulary},
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 14,
                "projection_dim": 32,
            },
            image_token_id=tokenizer.token_to_id("<image>"),
        )
    )


def gemma3(tokenizer: Tokenizer, vocabulary: int) -> Any:
    return transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(
            text_config=TEXT | {"head_dim": 16, "vocab_size": vocabulary},
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 7,
            },
            mm_tokens_per_image=4,
            image_token_index=tokenizer.token_to_id("<image_soft_token>"),
            boi_token_index=tokenizer.token_to_id("<start_of_image>"),
            eoi_token_index=tokenizer.token_to_id("<end_of_image>"),
        )
    )


def gemma3_processor(tokenizer: Tokenizer) -> Any:
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    return transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<bos>",
            pad_token="<|endoftext|>",
            extra_special_tokens=images | {"image_token": "<image_soft_token>"},
        ),
        image_seq_length=4,
        chat_template=(
            "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
            "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
            "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
    )


def llava_processor(tokenizer: Tokenizer) -> Any:
    size = {"height": SIDE, "width": SIDE}
    return transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size),
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        ),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=(
            "{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} "
            "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
        ),
    )


COLOURS = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
FAMILIES: dict[str, tuple[Callable[[Tokenizer, int], Any], list[str]]] = {
    "qwen2_5_vl": (qwen2_5_vl, []),
    "qwen2_vl": (qwen2_vl, []),
    "internvl": (internvl, ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]),
    "smolvlm": (smolvlm, ["<image>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>"]),
    "molmo2": (
        molmo2,
        ["<im_start>", "<im_end>", "<im_patch>", "<frame_start>", "<frame_end>", "<im_col>", "<im_low>"],
    ),
    "llava": (llava, []),
    "gemma3": (
        gemma3,
        [
            "<bos>",
            "<start_of_image>",
            "<end_of_image>",
            "<image_soft_token>",
            "<start_of_turn>",
            "<end_of_turn>",
        ],
    ),
}
PROCESSORS = {"llava": llava_processor, "gemma3": gemma3_processor}  # of those that are served by their own


def make_checkpoint(folder: Path, family: str, tokenizer: Tokenizer | None = None) -> Path:
    make, added = FAMILIES[family]
    folder.mkdir()
    if tokenizer is None:
        tokenizer = sentencepiece() if family == "llava" else tokenizer_with(*added)
    model = make(tokenizer, tokenizer.get_vocab_size())
    _draw_weights(model, seed=1)
    setattr(model.config, RANDOM_WEIGHTS_KEY, True)
    model.save_pretrained(folder)
    if family in PROCESSORS:
        PROCESSORS[family](tokenizer).save_pretrained(folder)
    else:
        write(folder / "preprocessor_config.json", COLOURS)
        write(folder / "tokenizer_config.json", {"bos_token": None, "eos_token": {"content": "<|im_end|>"}})
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_checkpoint(tmp_path_factory.mktemp("families") / family, family)
        return made[family]

    return folder


@pytest.fixture(scope="module")
def load(folders, settings) -> Callable[..., TransformersVlmScorer]:
    """Scorers of a family; settings by keyword."""

    def load(family: str, **changes: object) -> TransformersVlmScorer:
        many = {"max_pixels": 64 * 64, "sample_rate": 2.0} | changes
        scorer = load_scorer(str(folders(family)), replace(settings, **many))
        assert isinstance(scorer, TransformersVlmScorer)
        return scorer

    return load


@pytest.fixture(scope="module")
def scorers(load) -> Callable[[str], TransformersVlmScorer]:
    """One of a family, with all as it comes."""
    made: dict[str, TransformersVlmScorer] = {}

    def scorer(family: str) -> TransformersVlmScorer:
        if family not in made:
            made[family] = load(family)
        return made[family]

    return scorer


@pytest.fixture(scope="module")
def video(make_video) -> list[Frame]:
    """Of the size that the models see, so that no processor has to shrink it in its way."""
    return make_video(5, SIDE, 2 * SIDE if SIDE % 28 else SIDE)


every_family = pytest.mark.parametrize("family", FAMILIES)

# ---- the same by hand ----------------------------------------------------------------------------------


def by_hand(
    family: str,
    folder: Path,
    model: Any,
    frames: list[Frame],
    question: str,
    answers: tuple[str, ...] = (" True", " False"),
) -> tuple[float, ...]:
    """log p(True), log p(False), or of other answers, with the parts of the family's own processor."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text, inputs = BY_HAND[family](folder, [frame.image for frame in frames], question)
    if text:
        inputs["input_ids"] = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
    if family.startswith("qwen2"):
        inputs["mm_token_type_ids"] = 2 * (inputs["input_ids"] == model.config.video_token_id).int()
    if family == "molmo2":
        own = ["<im_start>", "<im_end>", "<im_patch>", "<frame_start>", "<frame_end>", "<im_col>", "<im_low>"]
        ids = SimpleNamespace(
            image_token_ids=[tokenizer.token_to_id(token) for token in own],
            video_token_ids=[],
            audio_token_ids=[],
        )
        kinds = Molmo2Processor.create_mm_token_type_ids(ids, inputs["input_ids"].tolist())
        inputs["mm_token_type_ids"] = torch.tensor(kinds)
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    log_probs = torch.log_softmax(logits.double(), -1)
    ids = [tokenizer.encode(f":{answer}", add_special_tokens=False).ids[-1] for answer in answers]
    assert [tokenizer.decode([token]).strip() for token in ids] == [answer.strip() for answer in answers]
    return tuple(log_probs[ids].tolist())


def qwen2_5_vl_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    text, inputs = qwen2_vl_by_hand(folder, images, question)
    return text, inputs | {"second_per_grid_ts": [1.0]}


def qwen2_vl_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    images = images + images[-1:] * (len(images) % 2)
    processor = transformers.Qwen2VLImageProcessorPil(min_pixels=28 * 28, **COLOURS)
    seen = [processor([image], return_tensors="pt") for image in images]
    rows = [image["pixel_values"].view(-1, 3, 2, 14, 14) for image in seen]  # two equal frames in each
    pairs = [torch.stack([a[:, :, 0], b[:, :, 1]], 2) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    grid = seen[0]["image_grid_thw"].clone()
    grid[0, 0] = len(pairs)
    itself = SimpleNamespace(video_processor=processor, video_token="<|video_pad|>")
    pads = Qwen2_5_VLProcessor.replace_video_token(itself, {"video_grid_thw": grid}, 0)
    return f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{question}", {
        "pixel_values_videos": torch.cat(pairs).flatten(1),
        "video_grid_thw": grid,
    }


def internvl_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    processor = transformers.GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, **COLOURS)
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    itself = SimpleNamespace(
        start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=4
    )
    frames = InternVLProcessor.replace_video_token(itself, {"pixel_values_videos": [pixels]}, 0)
    return f"<|im_start|>user\n{frames}\n{question}", {"pixel_values": pixels}


def smolvlm_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    edge = {"longest_edge": SIDE}
    processor = transformers.SmolVLMImageProcessorPil(
        size=edge, max_image_size=edge, do_image_splitting=False, **COLOURS
    )
    pixels = processor([images], return_tensors="pt")["pixel_values"]
    itself = SimpleNamespace(
        image_seq_len=4,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    seconds = [i / 2 for i in range(len(images))]
    metadata = SimpleNamespace(fps=2.0, timestamps=seconds, duration=seconds[-1])
    with pytest.MonkeyPatch.context() as patch:  # the package is not among those of this project
        patch.setattr(
            processing_smolvlm, "num2words", ["zero", "one", "two", "three", "four", "five"].__getitem__
        )
        frames = processing_smolvlm.SmolVLMProcessor.replace_video_token(
            itself, {"pixel_values": pixels, "video_metadata": [metadata]}, 0
        )
    return f"<|im_start|>User: {frames}{question}", {"pixel_values": pixels}


def molmo2_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    mean, std = (torch.tensor(COLOURS[name]) for name in ("image_mean", "image_std"))
    pixels = (torch.tensor(np.stack(images)) / 255 - mean) / std  # (frames, height, width, 3)
    cut = batch_pixels_to_patches(pixels, 7)
    pooling, rows, columns = arange_for_pooling(torch.arange(16).view(4, 4), 3, 3)
    offsets = 16 * torch.arange(len(images)).view(-1, 1, 1)
    grid = torch.tensor([len(images), rows, columns])
    itself = SimpleNamespace(use_frame_special_tokens=True, video_use_col_tokens=False)
    frames = Molmo2Processor.get_video_string(itself, grid, [i / 2 for i in range(len(images))])
    return f"<|im_end|>{frames}<|im_start|>user\n{question}", {
        "pixel_values_videos": cut,
        "video_token_pooling": torch.where(pooling < 0, pooling, pooling + offsets).flatten(0, 1),
        "video_grids": grid[None],
    }


def llava_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    text = "USER: " + "<image>\n" * len(images) + question
    return "", dict(processor(text=text, images=images, return_tensors="pt"))


def gemma3_by_hand(folder: Path, images: list[np.ndarray], question: str) -> tuple[str, dict[str, Any]]:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    text = "<bos><start_of_turn>user\n" + "<start_of_image>" * len(images) + question
    return "", dict(processor(text=text, images=[images], return_tensors="pt"))


BY_HAND = {
    "gemma3": gemma3_by_hand,
    "qwen2_5_vl": qwen2_5_vl_by_hand,
    "qwen2_vl": qwen2_vl_by_hand,
    "internvl": internvl_by_hand,
    "smolvlm": smolvlm_by_hand,
    "molmo2": molmo2_by_hand,
    "llava": llava_by_hand,
}


def expected(scorer: TransformersVlmScorer, folder: Path, frames: list[Frame], question: str) -> Any:
    return by_hand(folder.name, folder, scorer._model, frames, question)


def values(score: PrefixScore) -> tuple[float, float, float]:
    return score.log_prob, score.log_prob_false, score.log_prob_static


@every_family
def test_every_prefix_equals_a_forward_pass_by_hand(to_rounding, family, folders, scorers, video):
    scorer, folder, question = scorers(family), folders(family), fill(PAPER, TASK)
    seen = []
    for count in (1, 2, 5):
        score = scorer.score(asked(TASK, video[:count]))
        true, false = expected(scorer, folder, video[:count], question)
        still, _ = expected(scorer, folder, video[:1] * count, question)
        assert values(score) == to_rounding((true, false, still))
        assert math.isnan(score.log_prob_std)
        assert -100 < score.log_prob < 0
        seen.append(score.log_prob)
    assert np.ptp(seen) > 0.01
    assert values(scorer.score(asked(TASK, video[:2])))[0] == seen[1], "the same twice"
    assert scorer.score(asked("fold the towel", video[:2])).log_prob != pytest.approx(seen[1], abs=1e-3)
    moved = [video[0], Frame(video[1].stamp_ns, video[4].image)]
    assert scorer.score(asked(TASK, moved)).log_prob != pytest.approx(seen[1], abs=1e-4)


@every_family
@pytest.mark.parametrize(
    ("changes", "shown"),
    [({"front_padding": 2}, [0, 0, 0, 1, 2]), ({"fixed_length": 4}, [0, 1, 2, 2])],
)
def test_what_is_shown_against_length_bias_equals_a_pass_by_hand(
    to_rounding, family, changes, shown, folders, load, video
):
    scorer, folder, question = load(family, sample_rate=2.0, **changes), folders(family), fill(PAPER, TASK)
    score = scorer.score(asked(TASK, video[:3]))
    true, false = expected(scorer, folder, [video[number] for number in shown], question)
    still, _ = expected(scorer, folder, video[:1] * len(shown), question)
    assert values(score) == to_rounding((true, false, still))
    assert score.num_frames == 3


@every_family
def test_prompts_are_averaged_and_scored_against_each_other(to_rounding, family, folders, load, video):
    frames = video[:3]
    scorer = load(family, prompts="ten_prompts.txt", static_baseline=False)
    pairs = [expected(scorer, folders(family), frames, fill(template, TASK)) for template in TEN]
    true, false = np.array(pairs).T
    score = scorer.score(asked(TASK, frames))
    assert score.log_prob == to_rounding(true.mean())
    assert score.log_prob_false == to_rounding(false.mean())
    assert score.log_prob_std == to_rounding(true.std(ddof=1))
    assert score.by_prompt == to_rounding(tuple(true))
    assert math.isnan(score.log_prob_static) and score.static_by_prompt == ()
    scorer = load(family, prompts="ten_prompts.txt", contrastive=True)
    score = scorer.score(asked(TASK, frames))
    assert score.log_prob == to_rounding(-np.log1p(np.exp(false - true)).mean())
    assert score.log_prob_static < 0
    assert score.log_prob_static == to_rounding(np.mean(score.static_by_prompt))
    assert scorer.info.prompt_hash != load(family).info.prompt_hash


@every_family
def test_answers_of_a_file_are_scored_by_their_values(to_rounding, family, folders, load, video, tmp_path):
    mine, answers, shares = tmp_path / "mine.txt", (" True", " the", " False"), np.array([1.0, 0.25, 0.0])
    mine.write_text('answers: " True"=4 " the"=1 " False"=0\n' + "".join(f"{line}\n" for line in TEN[:3]))
    scorer, frames = load(family, prompts=str(mine), static_baseline=False), video[:3]
    folder, questions = folders(family), [fill(template, TASK) for template in TEN[:3]]
    model = scorer._model
    p = np.exp([by_hand(family, folder, model, frames, question, answers) for question in questions])
    mean = (p * shares).sum(1) / p.sum(1)
    score = scorer.score(asked(TASK, frames))
    assert score.by_prompt == to_rounding(tuple(np.log(mean)))
    assert score.log_prob == to_rounding(np.log(mean).mean())
    assert score.log_prob_false == to_rounding(np.log1p(-mean).mean())
    assert score.answer_share == to_rounding(p.sum(1).mean())


def test_a_reply_and_the_space_before_a_digit_are_part_of_the_stream(to_rounding, folders, load, video):
    scorer = load("internvl", prompts="roboreward", static_baseline=False)
    (template,) = read_question("roboreward").templates
    question = f"{fill(template, TASK)}<|im_end|>\n<|im_start|>assistant\nANSWER: "
    log_probs = by_hand("internvl", folders("internvl"), scorer._model, video[:3], question, tuple("12345"))
    p = np.exp(log_probs)
    score = scorer.score(asked(TASK, video[:3]))
    assert score.log_prob == to_rounding(np.log((p * np.arange(5) / 4).sum() / p.sum()))
    assert score.answer_share == to_rounding(p.sum())
    assert scorer.info.prompt_hash != load("internvl").info.prompt_hash
    facts = describe_model(str(folders("internvl")), "roboreward")
    assert facts.prompt_hash == scorer.info.prompt_hash and facts.question.answers is not None


@every_family
def test_the_chat_template_closes_the_users_turn(to_rounding, family, folders, settings, tmp_path, video):
    closing = {"smolvlm": "<end_of_utterance>\nAssistant:", "llava": " ASSISTANT:"}
    folder, answers = folders(family), (" True", " False")
    if family not in closing:  # behind a line break the answers have no space
        tokenizer = train_tokenizer([*SENTENCES, *["True", "False"] * 100], 480)
        tokenizer.add_special_tokens(FAMILIES[family][1])
        folder, answers = make_checkpoint(tmp_path / family, family, tokenizer), ("True", "False")
    scorer = load_scorer(str(folder), replace(settings, chat_template=True, sample_rate=2.0))
    standard = {"gemma3": "<end_of_turn>\n<start_of_turn>model\n"}.get(
        family, "<|im_end|>\n<|im_start|>assistant\n"
    )
    question = fill(PAPER, TASK) + closing.get(family, standard)
    true, false = by_hand(family, folder, scorer._model, video[:2], question, answers)
    score = scorer.score(asked(TASK, video[:2]))
    assert (score.log_prob, score.log_prob_false) == to_rounding((true, false))


@every_family
def test_a_baseline_of_a_known_layout_is_not_computed_again(family, load, video, monkeypatch):
    scorer = load(family)
    passes = []
    real = type(scorer)._run
    monkeypatch.setattr(type(scorer), "_run", lambda *arguments: passes.append(1) or real(*arguments))
    for frames, count in ((video[:3], 2), (video[:3], 1), ([*video[:2], video[4]], 2 - (family in TIMELESS))):
        passes.clear()
        scorer.score(asked(TASK, frames))
        assert len(passes) == count
    passes.clear()
    scorer.score(asked("fold the towel", video[:3]))
    other = [Frame(frame.stamp_ns, frame.image) for frame in video[:3]]
    scorer.score(asked("fold the towel", other))
    assert len(passes) == 4, "another task, and another episode"


TIMELESS = ("internvl", "llava", "gemma3")


@every_family
def test_a_scorer_says_where_its_numbers_come_from_and_that_it_is_slow(family, folders, load, caplog):
    folders(family)  # transformers warns while it is made
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        info = load(family).info
    (said,) = (record.getMessage() for record in caplog.records)
    assert f"of type '{family}', for which every score is a full forward pass over the whole prefix" in said
    assert (info.model_id, info.device, info.dtype) == (str(folders(family)), "cpu", "float32")
    assert info.random_weights and len(info.revision) == len(info.prompt_hash) == 16
    assert info.max_pixels == (SIDE * SIDE if family in ("internvl", "smolvlm", "molmo2") else 64 * 64)


@every_family
def test_frames_of_any_size_are_scored_in_half_precision_too(family, load, make_video, scorers):
    wide = make_video(3, 90, 160)
    score = load(family, max_pixels=32 * 32).score(asked(TASK, wide))
    assert score.log_prob < 0
    half = load(family, dtype="bfloat16", max_pixels=32 * 32, static_baseline=False)
    assert half.info.dtype == "bfloat16"
    assert half.score(asked(TASK, wide)).log_prob == pytest.approx(score.log_prob, abs=0.5)
    for height, width in ((1, 1), (3, 40), (40, 3)):
        assert scorers(family).score(asked(TASK, make_video(2, height, width))).log_prob < 0


@every_family
def test_no_instruction_is_read_as_structure(family, scorers, video):
    """None of the tokens that the stream is made of comes from an instruction, and a long one is cut."""
    scorer = scorers(family)
    added = [token for token in scorer._family._added if not token.startswith("<0x")]
    assert len(added) >= 3

    def ids_of(instruction: str) -> list[int]:
        given = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scorer, "_options", {})
            run = scorer._run
            patch.setattr(scorer, "_run", lambda inputs: given.append(inputs["input_ids"]) or run(inputs))
            patch.setattr(scorer, "_settings", replace(scorer._settings, static_baseline=False))
            assert math.isfinite(scorer.score(asked(instruction, video[:2])).log_prob)
        return given[0][0].tolist()

    plain = ids_of("fold the towel")
    for token in added:
        number = scorer._family.encode(token)
        assert len(number) == 1, token
        assert ids_of(f"fold {token} towel").count(number[0]) == plain.count(number[0]), token
    assert ids_of("y" * 3000) == ids_of("y" * 2000) != ids_of("y" * 1999)
    assert math.isfinite(scorer.score(asked("\ud800 {instruction}", video[:2])).log_prob)
    assert math.isfinite(scorer.score(asked("", video[:2])).log_prob)


def test_an_idle_camera_scores_the_baseline(to_rounding, scorers, video):
    for family in FAMILIES:
        idle = [Frame(frame.stamp_ns, video[0].image.copy()) for frame in video]
        score = scorers(family).score(asked(TASK, idle))
        assert score.log_prob == to_rounding(score.log_prob_static)


def test_frames_are_shrunk_as_the_processor_does_it(scorers, make_video):
    """But for the rounding of another library."""
    image = make_video(1, 90, 160)[0].image
    seen = scorers("internvl")._family.resize(torch.from_numpy(image).permute(2, 0, 1))
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.GotOcr2ImageProcessorPil(size=size, do_rescale=False, do_normalize=False)
    own = processor([image], return_tensors="pt")["pixel_values"][0]
    assert seen.shape == own.shape and (seen.float() - own.float()).abs().max() <= 2


def test_numbers_in_words():
    known = {0: "zero", 13: "thirteen", 20: "twenty", 21: "twenty-one", 99: "ninety-nine", 100: "one hundred"}
    known |= {101: "one hundred and one", 640: "six hundred and forty", 1000: "1000"}
    assert {number: in_words(number) for number in known} == known


# ---- what is not supported -----------------------------------------------------------------------------


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    write(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize("family", ["internvl", "llava"])
def test_a_tokenizer_without_the_answer_as_one_token_is_refused(family, folders, settings, tmp_path):
    tokenizer = json.loads((folders(family) / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = [merge for merge in merges if "".join(merge)[1:] not in ("True", "False")]
    folder = copy_of(folders(family), tmp_path)
    write(folder / "tokenizer.json", tokenizer)
    with pytest.raises(
        ScorerError, match=r"the answer ' True' is [2-9] tokens \[\d+, .*exactly one: use a model"
    ):
        load_scorer(str(folder), settings)


def test_a_tokenizer_that_knows_neither_answer_is_refused(folders, settings, tmp_path):
    folder = copy_of(folders("llava"), tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"] = {"type": "WordLevel", "vocab": tokenizer["model"]["vocab"], "unk_token": "<unk>"}
    del tokenizer["model"]["vocab"]["▁True"], tokenizer["model"]["vocab"]["▁False"]
    write(folder / "tokenizer.json", tokenizer)
    with pytest.raises(ScorerError, match="same token 0 for ' True' and ' False'"):
        load_scorer(str(folder), settings)


def test_a_chat_whose_answer_is_several_tokens_is_refused(load):
    with pytest.raises(ScorerError, match="the answer 'True' is 3 tokens"):
        load("internvl", chat_template=True)


@pytest.mark.parametrize("kind", ["bert", "nothing of the kind", None, [3]])
def test_a_type_that_transformers_does_not_know_is_refused(folders, settings, tmp_path, kind):
    folder = copy_of(folders("internvl"), tmp_path)
    edit(folder / "config.json", model_type=kind)
    with pytest.raises(
        ScorerError,
        match=rf"of type {re.escape(repr(kind))}, which transformers .* does not know .*use Qwen3-VL",
    ):
        load_scorer(str(folder), settings)


def test_the_layout_of_another_library_is_told_from_that_of_transformers(folders, settings, tmp_path):
    folder = copy_of(folders("internvl"), tmp_path)
    edit(folder / "config.json", model_type="internvl_chat")
    with pytest.raises(ScorerError, match="in the format of transformers, whose name on the hub ends in -hf"):
        load_scorer(str(folder), settings)


def test_a_model_that_reads_with_an_encoder_is_refused(folders, settings, tmp_path):
    folder = copy_of(folders("internvl"), tmp_path)
    write(folder / "config.json", {"model_type": "florence2", "is_encoder_decoder": True})
    with pytest.raises(ScorerError, match="of type 'florence2', which reads with an encoder"):
        load_scorer(str(folder), settings)


def test_a_processor_that_needs_what_is_not_installed_is_named(folders, settings, tmp_path):
    folder = copy_of(folders("llava"), tmp_path)
    edit(folder / "config.json", model_type="llava_onevision")
    edit(folder / "processor_config.json", processor_class="LlavaOnevisionProcessor")
    with pytest.raises(ScorerError, match=r"cannot be made \(.*install the Python package that it names"):
        load_scorer(str(folder), settings)


@pytest.mark.parametrize(
    ("family", "file", "named"),
    [
        (
            "internvl",
            "preprocessor_config.json",
            "no preprocessor_config.json, which tells the normalization",
        ),
        ("llava", "processor_config.json", "processor"),
        ("smolvlm", "model.safetensors", "no weights"),
    ],
)
def test_what_a_folder_lacks_is_named(folders, settings, tmp_path, family, file, named):
    folder = copy_of(folders(family), tmp_path)
    (folder / file).unlink()
    with pytest.raises(ScorerError, match=named):
        load_scorer(str(folder), settings)


def test_a_tokenizer_of_another_model_is_refused(folders, settings, tmp_path):
    folder = copy_of(folders("internvl"), tmp_path)
    edit(folder / "config.json", image_token_id=5)
    with pytest.raises(ScorerError, match=r"has 5 for the token of the video.*different models"):
        load_scorer(str(folder), settings)
    shutil.copy(folders("smolvlm") / "tokenizer.json", folder)
    with pytest.raises(ScorerError, match="the tokenizer has no token '<img>'"):
        load_scorer(str(folder), settings)


def test_a_chat_without_a_template_is_refused(folders, settings, tmp_path, video):
    folder = copy_of(folders("llava"), tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ScorerError, match=r"chat_template is true, and .* has no chat template"):
        load_scorer(str(folder), replace(settings, chat_template=True))
    assert load_scorer(str(folder), settings).score(asked(TASK, video[:2])).log_prob < 0


def test_a_chat_template_without_end_is_given_up(folders, settings, tmp_path, monkeypatch):
    folder, tracer = copy_of(folders("llava"), tmp_path), sys.gettrace()
    loop = "{% for i in range(99999) %}"
    (folder / "chat_template.jinja").write_text(loop * 4 + "{% endfor %}" * 4)
    monkeypatch.setattr(image_family, "_RENDER_S", 0.2)
    with pytest.raises(
        ScorerError, match=r"chat template .* fails .*TimeoutError: it was not done after 0.2 s"
    ):
        load_scorer(str(folder), settings)
    assert sys.gettrace() is tracer


def test_a_result_that_is_no_number_is_an_error_and_the_next_call_works(load, video):
    scorer = load("internvl")
    before = scorer.score(asked(TASK, video))
    weight = scorer._model.lm_head.weight
    kept = weight.clone()
    weight.fill_(math.nan)
    with pytest.raises(
        ScorerError, match=r"are \[nan, nan\] after 5 frames in torch\.float32: try dtype float32"
    ):
        scorer.score(asked(TASK, video))
    weight.copy_(kept)
    assert repr(scorer.score(asked(TASK, video))) == repr(before)


def test_memory_that_runs_out_costs_half_the_frames_and_not_the_score(load, monkeypatch, caplog):
    """As with Qwen3-VL."""
    frames = [
        Frame(k * 500_000_000, np.random.default_rng(k).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
        for k in range(12)
    ]
    scorer, room = load("internvl"), [8]
    caplog.clear()  # that it is slow
    real = type(scorer)._run

    def run(scorer: Any, inputs: Any) -> Any:
        if len(inputs["pixel_values"]) > room[0]:
            raise torch.OutOfMemoryError("out of memory")
        return real(scorer, inputs)

    monkeypatch.setattr(type(scorer), "_run", run)
    scores = [scorer.score(asked(TASK, frames[:count])) for count in range(1, 13)]
    assert [score.num_frames for score in scores] == [*range(1, 9), 3, 4, 3, 4]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "out of memory on cpu with 9 frames" in warning and "at most 4 are scored" in warning
    thinned = EpisodeBuffer(4)
    for frame in frames:
        thinned.append(frame)
    assert scores[-1] == load("internvl").score(ScoreRequest(TASK, thinned))
    room[0] = 3
    with pytest.raises(ScorerError, match=r"out of memory on cpu with 4 frames.*max_pixels.*max_frames"):
        scorer.score(asked(TASK, frames))


def test_a_bad_frame_is_named_and_closing_gives_the_memory_back(load, video):
    scorer = load("internvl", static_baseline=False)
    with pytest.raises(ScorerError, match="at least one"):
        scorer.score(asked(TASK, []))
    with pytest.raises(ScorerError, match=r"uint8 of shape \(height, width, 3\)"):
        scorer.score(asked(TASK, [Frame(0, np.zeros((4, 4), np.uint8))]))
    scorer.score(asked(TASK, video[:2]))
    weights = [weakref.ref(weight) for weight in scorer._model.parameters()]
    scorer.close()
    gc.collect()
    assert len(weights) > 20 and not any(weight() is not None for weight in weights)


# ---- what the command line says of them ----------------------------------------------------------------


def test_models_of_other_families_are_described_and_checked(folders):
    facts = describe_model(str(folders("internvl")))
    assert not facts.incremental and facts.random_weights
    assert facts.frame_pixels == SIDE * SIDE
    result = check_model(str(folders("internvl")))
    assert result.info.prompt_hash == facts.prompt_hash
    assert all(point.score.log_prob < 0 for point in result.curve.points)


# ---- experts, which are scored incrementally -----------------------------------------------------------


@pytest.fixture(scope="module")
def experts(tmp_path_factory) -> Path:
    """The tiny Qwen3-VL with a mixture of experts in place of its feed-forward layers."""
    folder = make_random_checkpoint(tmp_path_factory.mktemp("experts") / "qwen3_vl_moe")
    dense = json.loads((folder / "config.json").read_text())
    text = dense["text_config"] | {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    vision = dict(dense["vision_config"])
    del text["model_type"], vision["model_type"]
    tokens = {name: dense[name] for name in dense if name.endswith("_token_id")}
    config = transformers.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **tokens)
    model = transformers.Qwen3VLMoeForConditionalGeneration(config)
    _draw_weights(model, seed=2)
    model.save_pretrained(folder)
    return folder


def test_a_mixture_of_experts_is_scored_incrementally_and_exactly(
    to_rounding, experts, settings, make_video, caplog
):
    many = replace(settings, prompts="ten_prompts.txt")
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(str(experts), many)
    assert isinstance(scorer, Qwen3VLScorer) and not caplog.records
    loaded = load_qwen3_vl(str(experts), many)
    assert isinstance(loaded.model, transformers.Qwen3VLMoeForConditionalGeneration)
    plain = PlainForward(loaded.model, loaded.tokens, loaded.preprocessing, loaded.info)
    video = make_video(12, 64, 96)
    still = [Frame(frame.stamp_ns, video[0].image) for frame in video]
    seen = []
    for count in range(1, len(video) + 1):
        score, expected = (
            scorer.score(asked(TASK, video[:count])),
            plain.score(asked(TASK, video[:count])),
        )
        assert score.log_prob == to_rounding(expected.log_prob)
        assert score.log_prob_false == to_rounding(expected.log_prob_false)
        assert score.log_prob_std == to_rounding(expected.log_prob_std)
        assert score.log_prob_static == to_rounding(plain.score(asked(TASK, still[:count])).log_prob)
        seen.append(score.log_prob)
    assert np.ptp(seen) > 0.05


# ---- weights that do not fit ----------------------------------------------------------------------------


@every_family
def test_a_weight_without_a_place_is_refused_in_every_family(family, folders, settings, tmp_path):
    folder = Path(shutil.copytree(folders(family), tmp_path / family))
    weights = load_file(folder / "model.safetensors") | {"model.extra.bias": torch.ones(3)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ScorerError, match=r"has 1 weight without a place .*: \S*extra\.bias\. They would"):
        load_scorer(str(folder), settings)


@every_family
def test_a_missing_weight_is_refused_in_every_family(family, folders, settings, tmp_path):
    folder = Path(shutil.copytree(folders(family), tmp_path / family))
    weights = load_file(folder / "model.safetensors")
    del weights[max(name for name in weights if name.endswith("norm.weight"))]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ScorerError, match=r"lacks 1 weights, first '\S*norm\d?\.weight'"):
        load_scorer(str(folder), settings)
