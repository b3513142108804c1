"""Folders laid out as the released models are, with small random weights.

test/data/released/ has the JSON files of each family as they are published, with small sizes; here are the
rest: tokenizers, names and types of the weights, shards, and what no file holds. docs/models.md tells what of
that was read where, and what is assumed. Ratios of heads, sections of rotations and the vision layers whose
features are used are theirs; widths, most numbers of layers and vocabularies are small. A string in <> stands
for the id of that token, <all> for the number of tokens; chat templates are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from topreward_ros.scoring.checkpoint.random_weights import (
    RANDOM_WEIGHTS_KEY,
    _draw_weights,
    train_tokenizer,
)

Weights = dict[str, torch.Tensor]
Json = dict[str, Any]

DATA = Path(__file__).parent / "data" / "released"
SENTENCES = [
    "The above video shows a robot manipulation trajectory that completes the following task:",
    "Decide whether the above statement is True or not. The answer is: True False",
    "User: You are provided the following series of frames from a [H:MM:SS] video. Frame from Assistant:",
    "open the drawer and fold the towel seconds",
]
_CODE = "raise SystemExit('code that came with a model was run')\n"
_CHATS = {
    "<chat>": "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}",
    "<gemma chat>": "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<start_of_image>"
    "{% else %}{{ part.text | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
}


@dataclass(frozen=True)
class Layout:
    """A released repository in small."""

    family: str  #: its file in `DATA`
    tokenizer: Callable[[], Tokenizer]
    published: Callable[[Weights], Weights]  #: from the names of transformers to those of the files
    shards: int
    dtype: torch.dtype = torch.bfloat16
    changes: Mapping[str, Json] = field(default_factory=dict)  #: of config.json, by part, '' for the top
    facts: Mapping[str, object] = field(default_factory=dict)  #: of the configuration once it is read
    texts: Mapping[str, str] = field(default_factory=dict)  #: further files

    def json_files(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """The content of the JSON files, and of templates, by name."""
        files = json.loads((DATA / f"{self.family}.json").read_text(encoding="utf-8"))
        config = files["config.json"]
        for part, changes in self.changes.items():
            (config[part] if part else config).update(changes)
        files["config.json"] = _with_ids(config, tokenizer) | {RANDOM_WEIGHTS_KEY: True}
        return {name: _with_chats(content) for name, content in files.items()}

    def write(self, folder: Path) -> Any:
        """Write the repository to ``folder`` and return the model that its files hold."""
        folder.mkdir()
        tokenizer = self.tokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
        told = json.loads(tokenizer.to_str())
        files = self.json_files(tokenizer)
        files["tokenizer_config.json"]["added_tokens_decoder"] = {
            str(token.pop("id")): token for token in told["added_tokens"]
        }
        if "tokenizer.model" not in self.texts:  # the older files of such tokenizers
            merges = [" ".join(pair) for pair in told["model"]["merges"]]
            files["vocab.json"] = told["model"]["vocab"]
            files["merges.txt"] = "\n".join(["#version: 0.2", *merges, ""])
        for name, content in {**files, **self.texts}.items():
            _write(folder / name, content)
        library: Any = transformers.AutoModelForImageTextToText
        model = library.from_config(transformers.AutoConfig.from_pretrained(folder), dtype=torch.float32)
        _draw_weights(model, seed=3)
        for weight in model.parameters():
            weight.data = weight.data.to(self.dtype).float()  # as the files hold it
        self._write_weights(folder, self.published(dict(model.state_dict())))
        return model

    def _write_weights(self, folder: Path, weights: Weights) -> None:
        """One file, or as many shards as are published and their index."""
        held = {name: weight.to(self.dtype).contiguous().clone() for name, weight in weights.items()}
        if self.shards == 1:
            save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
            return
        where: dict[str, str] = {}
        for number in range(self.shards):
            names = list(held)[number * len(held) // self.shards : (number + 1) * len(held) // self.shards]
            shard = f"model-{number + 1:05d}-of-{self.shards:05d}.safetensors"
            save_file({name: held[name] for name in names}, folder / shard, metadata={"format": "pt"})
            where |= dict.fromkeys(names, shard)
        size = sum(weight.nbytes for weight in held.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        _write(folder / "model.safetensors.index.json", index)


def _write(path: Path, content: Json | str) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def _with_ids(said: Any, tokenizer: Tokenizer) -> Any:
    if isinstance(said, dict):
        return {key: _with_ids(value, tokenizer) for key, value in said.items()}
    if isinstance(said, list):
        return [_with_ids(value, tokenizer) for value in said]
    if not isinstance(said, str) or not said.startswith("<"):
        return said
    token = tokenizer.get_vocab_size() if said == "<all>" else tokenizer.token_to_id(said)
    assert token is not None, said
    return token


def _with_chats(said: Any) -> Any:
    if isinstance(said, dict):
        return {key: _with_chats(value) for key, value in said.items()}
    return _CHATS.get(said, said) if isinstance(said, str) else said


# ---- tokenizers ------------------------------------------------------------------------------------------


@cache
def _byte_level(*added: str) -> str:
    tokenizer = train_tokenizer(SENTENCES, 480)
    tokenizer.add_special_tokens(list(added))
    return str(tokenizer.to_str())


def byte_level(*added: str) -> Tokenizer:
    """Qwen's kind, with further special tokens after its own."""
    return Tokenizer.from_str(_byte_level(*added))


def gemma_tokenizer() -> Tokenizer:
    """Gemma's kind: spaces are letters as in SentencePiece, unknown letters are bytes, <bos> is put first."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # in training, for whole words
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=[*special, *octets], show_progress=False)
    tokenizer.train_from_iterator([" True False"] * 100 + SENTENCES * 2, trainer)
    said = json.loads(tokenizer.to_str())
    said["added_tokens"] = [token for token in said["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(said))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_special_tokens([*turns, "<start_of_image>", "<end_of_image>", "<image_soft_token>"])
    first = ("<bos>", tokenizer.token_to_id("<bos>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[first])
    return tokenizer


def molmo2_tokenizer() -> Tokenizer:
    """Qwen's, filled up to the size of the embedding, and the tokens of images and videos beyond it."""
    fill = [f"|<EXTRA_TOKENS_{number}>|" for number in range(5)]
    beyond = ["im_start", "im_end", "im_patch", "im_col", "low_res_im_start", "|image|", "im_low"]
    return byte_level(*fill, *(f"<{name}>" for name in (*beyond, "frame_start", "frame_end", "|video|")))


_IMAGE_ROWS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
smolvlm2_tokenizer = partial(
    byte_level, "<global-img>", *_IMAGE_ROWS, "<fake_token_around_image>", "<image>", "<end_of_utterance>"
)
internvl3_tokenizer = partial(byte_level, "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "<box>", "<video>")

# ---- names in the files ------------------------------------------------------------------------------------


def renamed(*rules: tuple[str, str], without: str = "") -> Callable[[Weights], Weights]:
    """Names as published, by the first rule that fits; those that match ``without`` are in no file."""

    def rename(weights: Weights) -> Weights:
        held: Weights = {}
        for name, weight in weights.items():
            if without and re.search(without, name):
                continue
            rule = next(((old, new) for old, new in rules if re.search(old, name)), None)
            held[re.sub(*rule, name, count=1) if rule else name] = weight
        return held

    return rename


HEAD = r"^lm_head\."
as_in_transformers = renamed()
_QWEN2_5 = ((r"^model\.visual\.", "visual."), (r"^model\.language_model\.", "model."))
internvl3_names = renamed(
    (HEAD, "language_model.lm_head."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.", ""),
)
gemma3_names = renamed(
    (r"^model\.vision_tower\.", "vision_tower.vision_model."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.", ""),
    without=HEAD,
)


def experts_as_published(weights: Weights) -> Weights:
    """The experts of a layer lie in two tensors, with inputs before outputs."""
    experts = {name: weight.transpose(1, 2) for name, weight in weights.items() if ".mlp.experts." in name}
    return weights | experts


def molmo2_as_published(weights: Weights) -> Weights:
    """Queries, keys and values are one matrix, so are the two inputs of an MLP; the embedding is two."""
    held = dict(weights)
    embedding = held.pop("model.language_model.embed_tokens.weight")
    base = len(held["lm_head.weight"])
    held["model.transformer.wte.embedding"] = embedding[:base]
    held["model.transformer.wte.new_embedding"] = embedding[base:]
    for name in [name for name in held if re.fullmatch(r".*language_model.*\.q_proj\.weight", name)]:
        layer = name.removesuffix("self_attn.q_proj.weight")
        attention = [held.pop(f"{layer}self_attn.{part}_proj.weight") for part in "qkv"]
        inputs = [held.pop(f"{layer}mlp.{part}_proj.weight") for part in ("up", "gate")]
        held[f"{layer}self_attn.att_proj.weight"] = torch.cat(attention)
        held[f"{layer}mlp.ff_proj.weight"] = torch.cat(inputs)
    return _molmo2_names(held)


def _parts(old: str, new: str, parts: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(rf"^{old}{part}\.", f"{new}{published}.") for part, published in parts.items()]


_molmo2_names = renamed(
    (r"^model\.language_model\.norm\.", "model.transformer.ln_f."),
    *_parts(
        r"model\.language_model\.layers\.(\d+)\.",
        r"model.transformer.blocks.\1.",
        {
            "input_layernorm": "attn_norm",
            "post_attention_layernorm": "ff_norm",
            r"self_attn\.o_proj": "self_attn.attn_out",
            r"mlp\.down_proj": "mlp.ff_out",
        },
    ),
    (r"^model\.language_model\.layers\.", "model.transformer.blocks."),
    *_parts(
        r"model\.vision_tower\.layers\.(\d+)\.",
        r"model.vision_backbone.image_vit.transformer.resblocks.\1.",
        {"layer_norm1": "attention_norm", "layer_norm2": "ffn_norm"}
        | {rf"self_attn\.{part}_proj": f"attention.w{part}" for part in "qkvo"}
        | {r"mlp\.fc1": "feed_forward.w1", r"mlp\.fc2": "feed_forward.w2"},
    ),
    (r"^model\.vision_tower\.", "model.vision_backbone.image_vit."),
    *_parts(
        r"model\.multi_modal_projector\.",
        "model.vision_backbone.",
        {rf"image_pooling_2d\.{part}_proj": f"image_pooling_2d.w{part}" for part in "qkvo"}
        | {
            rf"image_projector\.{part}_proj": f"image_projector.w{number}"
            for part, number in (("gate", 1), ("down", 2), ("up", 3))
        },
    ),
)

# ---- the models --------------------------------------------------------------------------------------------


def qwen3_vl(heads: int, *, shards: int, tied: bool = False, is_tuned: bool = False) -> Layout:
    """Of the two smaller ones the head is the embedding, and the vision model has 24 layers.

    ``is_tuned``: as trainers save it, with the head.
    """
    text: Json = {"num_attention_heads": heads} | ({"tie_word_embeddings": True} if tied else {})
    vision: Json = {"depth": 24, "deepstack_visual_indexes": [5, 11, 17]} if tied else {}
    more = {"chat_template.jinja": _CHATS["<chat>"], "special_tokens_map.json": '{"eos_token": "<|im_end|>"}'}
    return Layout(
        "qwen3_vl",
        byte_level,
        renamed(without=HEAD) if tied and not is_tuned else as_in_transformers,
        shards,
        changes={"text_config": text, "vision_config": vision, "": {"tie_word_embeddings": tied}},
        facts={
            **_QWEN3_FACTS,
            "text_config.num_attention_heads": heads,
            "vision_config.deepstack_visual_indexes": [5, 11, 17] if tied else [8, 16, 24],
        },
        texts=more if is_tuned else {},
    )


_QWEN3_FACTS = {
    "text_config.rope_parameters.rope_theta": 5000000,
    "text_config.rope_parameters.mrope_section": [24, 20, 20],
}


def qwen2_5_vl(heads: int, keys: int, *, shards: int, tied: bool) -> Layout:
    """The settings of the language model stand at the top of config.json, not in a part of it."""
    width = 16 * heads
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": keys}
    return Layout(
        "qwen2_5_vl",
        byte_level,
        renamed(*_QWEN2_5, without=HEAD if tied else ""),
        shards,
        changes={"": sizes | {"tie_word_embeddings": tied}, "vision_config": {"out_hidden_size": width}},
        facts={
            "text_config.rope_parameters.rope_theta": 1000000.0,
            "text_config.rope_parameters.mrope_section": [2, 3, 3],
            "text_config.num_key_value_heads": keys,
            "vision_config.fullatt_block_indexes": [7, 15, 23, 31],
            "vision_config.tokens_per_second": 2,
        },
    )


#: SmolVLM2 2.2B: its 384 pixels are no whole number of patches, and neither are these 128.
_SMOLVLM2_LARGE: dict[str, Json] = {
    "": {"scale_factor": 3},
    "text_config": {
        "hidden_size": 64,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "pixel_shuffle_factor": 3,
        "rope_theta": 130000,
    },
    "vision_config": {
        "hidden_size": 64,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}

#: By the name on the hub.
LAYOUTS: dict[str, Layout] = {
    "Qwen/Qwen3-VL-2B-Instruct": qwen3_vl(16, shards=1, tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": qwen3_vl(32, shards=2, tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": qwen3_vl(32, shards=4),
    "Qwen/Qwen3-VL-32B-Instruct": qwen3_vl(64, shards=14),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": Layout(
        "qwen3_vl_moe",
        byte_level,
        experts_as_published,
        shards=13,
        facts={**_QWEN3_FACTS, "text_config.num_experts_per_tok": 8, "text_config.num_key_value_heads": 4},
    ),
    "teetone/RoboReward-4B": qwen3_vl(32, shards=2, tied=True, is_tuned=True),
    "teetone/RoboReward-8B": qwen3_vl(32, shards=4, is_tuned=True),
    "Qwen/Qwen2.5-VL-3B-Instruct": qwen2_5_vl(16, 2, shards=2, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": qwen2_5_vl(28, 4, shards=5, tied=False),
    "OpenGVLab/InternVL3-1B-hf": Layout(
        "internvl3",
        internvl3_tokenizer,
        internvl3_names,
        shards=1,
        facts={
            "text_config.rope_parameters.rope_theta": 1000000.0,
            "text_config.rope_parameters.rope_type": "dynamic",
            "text_config.num_attention_heads": 14,
            "vision_config.image_size": [56, 56],
        },
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": Layout(
        "smolvlm2",
        smolvlm2_tokenizer,
        as_in_transformers,
        shards=1,
        dtype=torch.float32,
        facts={"text_config.rope_parameters.rope_theta": 100000, "text_config.num_key_value_heads": 5},
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": Layout(
        "smolvlm2",
        smolvlm2_tokenizer,
        as_in_transformers,
        shards=2,
        dtype=torch.float32,
        changes=_SMOLVLM2_LARGE,
        facts={"text_config.rope_parameters.rope_theta": 130000, "scale_factor": 3},
    ),
    "google/gemma-3-4b-it": Layout(  # config.json leaves heads to the defaults of the type
        "gemma3",
        gemma_tokenizer,
        gemma3_names,
        shards=2,
        facts={
            "text_config.num_attention_heads": 8,
            "text_config.num_key_value_heads": 4,
            "text_config.head_dim": 256,
            "text_config.sliding_window": 1024,
            "text_config.rope_parameters.full_attention.factor": 8.0,
            "vision_config.vision_use_head": False,
        },
        texts={"tokenizer.model": "no model of SentencePiece: tokenizer.json says the same, and is read"},
    ),
    "allenai/Molmo2-4B": Layout(  # 27 vision layers in config.json and 25 in the files
        "molmo2",
        molmo2_tokenizer,
        molmo2_as_published,
        shards=4,
        dtype=torch.float32,
        facts={
            "text_config.rope_parameters.rope_theta": 5000000.0,
            "text_config.num_key_value_heads": 8,
            "vision_config.num_hidden_layers": 25,
            "vision_config.image_size": [70, 70],
            "adapter_config.vision_feature_layer": [24, 18],
        },
        texts={
            f"{part}_molmo2.py": _CODE
            for part in ("configuration", "modeling", "processing", "image_processing", "video_processing")
        },
    ),
}
