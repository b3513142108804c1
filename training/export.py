"""Make the folder that is shipped: `python -m training.export run topreward_ros/models/embedded`.

The auxiliary heads are dropped and the weights become fp16. Beside them stands what `from_pretrained` and
our registry read of any Qwen3-VL: configuration, tokenizer, preprocessor. `topreward.json` lists the
instructions that the model understands. README.md is the model card; `training.evaluate --card` fills in its
table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer

from topreward_ros.core.output_files import write_file
from training.instructions import TASKS
from training.network import MERGE, PATCH, make_config

#: Most pixels of a frame: 192 x 160 come of a 4:3 camera, 160 x 160 of a square one, see `samples.SIZES`.
FRAME_PIXELS = 34 * 1024
SUMMARY = "a distilled demonstration model for simulated Metaworld scenes"


def export(run: Path, folder: Path) -> str:
    """Write ``folder`` from a run of `training.train`; returns the SHA-256 of its weights."""
    if not (run / "trainee.safetensors").is_file():
        raise SystemExit(
            f"{run} has no trainee.safetensors: train first, `python -m training.train DATA {run}`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    trained = load_file(run / "trainee.safetensors")
    weights = {
        name.removeprefix("model."): weight.to(torch.float16)
        for name, weight in trained.items()
        if name.startswith("model.")
    }
    stored = save(weights, metadata={"format": "pt"})
    write_file(folder / "model.safetensors", stored)
    digest = hashlib.sha256(stored).hexdigest()
    config = make_config(tokenizer)
    config.dtype = "float16"
    write_file(folder / "config.json", config.to_json_string())
    write_file(folder / "tokenizer.json", tokenizer.to_str(pretty=False))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 32768,
        },
    )
    _write(
        folder / "video_preprocessor_config.json",
        {
            "video_processor_type": "Qwen3VLVideoProcessor",
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "merge_size": MERGE,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "size": {"shortest_edge": 4096, "longest_edge": 64 * FRAME_PIXELS},
        },
    )
    _write(
        folder / "topreward.json",
        {
            "frame_pixels": FRAME_PIXELS,
            "model_summary": SUMMARY,
            "sha256": digest,
            "instructions": {task.instruction: list(task.trained) for task in TASKS},
        },
    )
    made_from = json.loads((run / "made_from.json").read_text())
    parameters = sum(weight.numel() for weight in weights.values())
    write_file(folder / "README.md", _card(made_from, digest, parameters))
    return digest


def _write(path: Path, content: dict[str, object]) -> None:
    write_file(path, json.dumps(content, indent=2) + "\n")


TABLE_START, TABLE_END = "<!-- table: training.evaluate -->", "<!-- end of table -->"


def _card(made_from: dict[str, object], digest: str, parameters: int) -> str:
    template = (Path(__file__).parent / "card.md").read_text()
    phrases = "\n".join(f"| {task.instruction} | {', '.join(task.phrases[1:])} |" for task in TASKS)
    return template.format(
        parameters=f"{parameters / 1e6:.2f}",
        sha256=digest,
        phrases=phrases,
        table=f"{TABLE_START}\n{TABLE_END}",
        trained=len(TASKS[0].trained),
        held_out=len(TASKS[0].held_out),
        tasks=len(TASKS),
        **{name: value for name, value in made_from.items() if name != "weights_sha256"},
        trainee_sha256=made_from["weights_sha256"],
    )


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder made by training.train")
    parser.add_argument("folder", type=Path, help="where the model goes")
    arguments = parser.parse_args()
    print(export(arguments.run, arguments.folder))


if __name__ == "__main__":
    main()
