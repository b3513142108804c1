"""Records what the transformers processor and model make of a few small videos, for test_processor.py.

Run it by hand, in an environment of its own, when a layout of the token stream is to be recorded again:

    pip install torch==2.13.0 torchvision==0.28.0 transformers==4.57.1    # 5.23.0 for the layout v5.10
    PYTHONPATH=. python test/scoring/record_processor_fixture.py FOLDER

`python -m topreward_ros.scoring.checkpoint.random_weights FOLDER` makes the FOLDER (it needs transformers 5).
Of torchvision only the Python transforms are used. If its compiled operators do not load (a build for
another PyTorch), its import can be had by declaring `torchvision::nms` and `torchvision::qnms` with
torch.library beforehand.

The wording below is written out, not imported: it is what the package is compared with.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
import torch
import torchvision
import transformers
from transformers import (
    AutoTokenizer,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.video_utils import VideoMetadata

version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
if version < (5, 0):
    LAYOUT, SUFFIX = "v4.57", ""
    from transformers.models.qwen2_vl import Qwen2VLImageProcessorFast as ImageProcessor
elif version >= (5, 10):
    LAYOUT, SUFFIX = "v5.10", "_v5_10"
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor as ImageProcessor
else:  # its token stream is that of v4.57
    sys.exit(f"transformers {transformers.__version__}: record with 4.57, or with 5.10 or later")

DATA = Path(__file__).parent / "data"
FRAMING = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>"
PROMPT = (
    "The above video shows a robot manipulation trajectory that completes the following task: "
    "{instruction} Decide whether the above statement is True or not. The answer is:"
)
CASES = [
    {  # odd, enlarged to whole units, as many timestamp digits as there are
        "name": "odd",
        "height": 50,
        "width": 70,
        "indices": [0, 1, 2, 25, 300],
        "longest_edge": 25165824,
        "instruction": "pick up the red cube.",
    },
    {  # shrunk by the pixel budget of the whole video
        "name": "shrunk",
        "height": 62,
        "width": 122,
        "indices": [0, 1, 2, 3],
        "longest_edge": 9600,
        "instruction": "Öffne die Schublade\nund schließe sie",
    },
    {  # already a multiple: no resize; wide
        "name": "wide",
        "height": 32,
        "width": 96,
        "indices": [0, 19],
        "longest_edge": 25165824,
        "instruction": "",
    },
]
FPS = 2.0


def make_frames(case: dict, rng: np.random.Generator) -> np.ndarray:
    """(frames, H, W, 3) uint8: a bright square that moves over a gradient, and some noise."""
    height, width, count = case["height"], case["width"], len(case["indices"])
    rows, columns = np.mgrid[0:height, 0:width]
    frames = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        gradient = np.stack(
            [rows * 255 // height, columns * 255 // width, (rows + columns + 30 * i) % 256], -1
        )
        frames[i] = gradient
        frames[i, 5 : height // 2, 3 + 4 * i : 13 + 4 * i] = (250, 250, 5)
        frames[i, ::7] ^= rng.integers(0, 64, (len(range(0, height, 7)), width, 3), dtype=np.uint8)
    return frames


def load_model(folder: Path) -> Qwen3VLForConditionalGeneration:
    """The checkpoint; for 4.57 under its own names of the rotary settings."""
    if LAYOUT == "v5.10":
        return Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    config = json.loads((folder / "config.json").read_text())
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"]["rope_theta"] = rope.pop("rope_theta")
    config["text_config"]["rope_scaling"] = rope
    with tempfile.TemporaryDirectory() as renamed:
        (Path(renamed) / "config.json").write_text(json.dumps(config))
        (Path(renamed) / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        return Qwen3VLForConditionalGeneration.from_pretrained(renamed, dtype=torch.float32).eval()


def main(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load_model(folder)
    answers = [tokenizer(text)["input_ids"] for text in (" True", " False")]
    rng = np.random.default_rng(0)
    arrays, records = {}, []
    for case in CASES:
        video_processor = Qwen3VLVideoProcessor(
            size={"shortest_edge": 4096, "longest_edge": case["longest_edge"]}
        )
        processor = Qwen3VLProcessor(ImageProcessor(), tokenizer, video_processor)
        frames = make_frames(case, rng)
        metadata = VideoMetadata(
            total_num_frames=case["indices"][-1] + 1,
            fps=FPS,
            frames_indices=list(case["indices"]),
            height=case["height"],
            width=case["width"],
        )
        made = processor(
            text=[FRAMING + PROMPT.replace("{instruction}", case["instruction"])],
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            video_metadata=[metadata],
            do_sample_frames=False,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = model(**made).logits[0, -1].float()
            kinds = {name: value for name, value in made.items() if name == "mm_token_type_ids"}
            positions, _ = model.model.get_rope_index(
                made["input_ids"], video_grid_thw=made["video_grid_thw"], **kinds
            )
        log_probs = torch.log_softmax(logits, -1)
        arrays[f"{case['name']}_ids"] = made["input_ids"][0].numpy().astype(np.int32)
        if LAYOUT == "v4.57":  # the same for both
            arrays[f"{case['name']}_frames"] = frames
            pixels = made["pixel_values_videos"].numpy()
            values, index = np.unique(pixels, return_inverse=True)  # 256 numbers: smaller, nothing lost
            arrays[f"{case['name']}_pixel_values"] = values
            arrays[f"{case['name']}_pixel_index"] = index.reshape(pixels.shape).astype(np.uint8)
        arrays[f"{case['name']}_positions"] = positions[:, 0].numpy().astype(np.int32)
        records.append(
            {
                **case,
                "fps": FPS,
                "grid_thw": made["video_grid_thw"][0].tolist(),
                "log_prob": log_probs[answers[0][0]].item(),
                "log_prob_false": log_probs[answers[1][0]].item(),
            }
        )
    DATA.mkdir(exist_ok=True)
    (DATA / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    np.savez_compressed(DATA / f"processor{SUFFIX}.npz", **arrays)
    record = {
        "layout": LAYOUT,
        "recorded_with": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "torchvision_compiled_operators": torchvision.extension._has_ops(),  # none of them is used here
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "cases": records,
    }
    (DATA / f"processor{SUFFIX}.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
