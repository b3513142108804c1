"""A tiny Robometer with random weights in the layout that LeRobot publishes, and what it must say of frames.

What it must say is computed with transformers and from the description of the format alone: nothing of
topreward_ros is used for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from topreward_ros.scoring.checkpoint.random_weights import TINY, make_random_checkpoint

BASE = "some-org/base"
TOKENS = ["<|split_token|>", "<|reward_token|>", "<|pref_token|>", "<|sim_token|>", "<|prog_token|>"]
QUESTION = (
    "The task for the robot is '{}'. Given the trajectory video, predict the task progress at each frame, "
    "how far along the robot is towards completing the task, a float between 0 and 1, where 0 is the "
    "starting state and 1 is when the task is completed. If the robot is not performing the same task, "
    "predict 0 progress."
)
PREPROCESSOR = {
    "patch_size": 16,
    "merge_size": 2,
    "image_mean": [0.5, 0.4, 0.6],
    "image_std": [0.5, 0.3, 0.4],
}


def make_robometer(folder: Path, loss: str = "discrete", bins: int = 10, alone: bool = False) -> Path:
    """Write one to ``folder``; ``alone``: without tokenizer and preprocessor, as it is published.

    Beside it is ``folder``-base, the model that it would have been trained from.
    """
    base = make_random_checkpoint(
        folder.with_name(f"{folder.name}-base"),
        shape=replace(TINY, vocabulary=520, sentences=(QUESTION,) * 2),
    )
    (base / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
    backbone = json.loads((base / "config.json").read_text())
    backbone["text_config"] |= {"vocab_size": len(tokenizer) + len(TOKENS), "tie_word_embeddings": True}
    backbone["tie_word_embeddings"] = True
    width = backbone["text_config"]["hidden_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        whole = nn.ModuleDict(
            {
                "model": Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_dict(backbone)),
                "progress_head": head(width, bins if loss == "discrete" else 1),
                "preference_head": head(width, 1),
                "success_head": head(width, 1),
                "frame_pool_attn": nn.Linear(width, 1, bias=False),
            }
        )
        for name, weight in whole.named_parameters():
            if weight.ndim > 1:  # far from zero, so that each frame and word counts
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5 * (3 if ".4." in name else 1))
            elif name.endswith("bias"):
                nn.init.normal_(weight, std=0.1)
    weights = {name: weight.contiguous() for name, weight in whole.state_dict().items()}
    del weights["model.model.language_model.embed_tokens.weight"]  # tied: the head's name comes first
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    config = {
        "type": "robometer",
        "base_model_id": BASE,
        "max_frames": 8,
        "torch_dtype": "bfloat16",
        "use_multi_image": True,
        "use_per_frame_progress_token": True,
        "progress_loss_type": loss,
        "progress_discrete_bins": bins,
        "vlm_config": backbone,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "preprocessor_config.json") if not alone else ():
        shutil.copy(base / name, folder / name)
    return folder


def head(width: int, outputs: int) -> nn.Sequential:
    """As the format describes it."""
    half = width // 2
    return nn.Sequential(
        nn.Linear(width, half), nn.LayerNorm(half), nn.GELU(), nn.Dropout(0.1), nn.Linear(half, outputs)
    )


class Expected:
    """What a Robometer must say, frame by frame."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        backbone = {
            name.removeprefix("model."): it for name, it in weights.items() if name.startswith("model.")
        }
        self.model: Any = Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_dict(self.config["vlm_config"]))
        lacking = self.model.load_state_dict(backbone, strict=False)
        assert lacking.missing_keys == ["model.language_model.embed_tokens.weight"]  # which is tied
        self.heads = {}
        for name in ("progress_head", "success_head"):
            own = {key.removeprefix(f"{name}."): it for key, it in weights.items() if key.startswith(name)}
            self.heads[name] = head(own["0.weight"].shape[1], own["4.weight"].shape[0])
            self.heads[name].load_state_dict(own)
            self.heads[name].eval()
        self.model.eval()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})

    @torch.no_grad()
    def __call__(self, task: str, images: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Progress and success of each of ``images``, which the model sees at ``size`` (height, width)."""
        height, width = size
        text, rows = f"<|im_start|>user\n{QUESTION.format(task)}", []
        for number, image in enumerate(images, start=1):
            pads = "<|image_pad|>" * (height * width // 32**2)
            text += f"Picture {number}: <|vision_start|>{pads}<|vision_end|><|prog_token|>"
            rows.append(self._patches(np.asarray(Image.fromarray(image).resize((width, height)))))
        ids = self.tokenizer(text + "<|im_end|>\n", return_tensors="pt", add_special_tokens=False)[
            "input_ids"
        ]
        token = self.tokenizer.convert_tokens_to_ids
        hidden = self.model(
            input_ids=ids,
            mm_token_type_ids=(ids == token("<|image_pad|>")).int(),
            pixel_values=torch.from_numpy(np.concatenate(rows)),
            image_grid_thw=torch.tensor([[1, height // 16, width // 16]] * len(images)),
            output_hidden_states=True,
        ).hidden_states[-1][0]
        read = hidden[ids[0] == token("<|prog_token|>")]  # (frames, width)
        logits = self.heads["progress_head"](read)
        if self.config["progress_loss_type"] == "discrete":
            bins = self.config["progress_discrete_bins"]
            progress = logits.softmax(-1) @ torch.arange(bins).float() / (bins - 1)
        else:
            progress = logits[:, 0].sigmoid()
        return torch.stack([progress, self.heads["success_head"](read)[:, 0].sigmoid()], dim=1).numpy()

    def _patches(self, image: np.ndarray) -> np.ndarray:
        """Pixel patches of 16 pixels, the four of a token side by side; both frames of one are the image."""
        scaled = (image / 255 - PREPROCESSOR["image_mean"]) / PREPROCESSOR["image_std"]
        patches = []
        for top in range(0, image.shape[0], 32):
            for left in range(0, image.shape[1], 32):
                for row, column in ((0, 0), (0, 16), (16, 0), (16, 16)):
                    y, x = top + row, left + column
                    patch = scaled[y : y + 16, x : x + 16].transpose(2, 0, 1)  # (3, 16, 16)
                    patches.append(np.stack([patch, patch], axis=1).reshape(-1))
        return np.stack(patches).astype(np.float32)
