"""Make the folder that is shipped: `python -m training.export run topreward_ros/models/embedded`.

The auxiliary heads are dropped and the weights become fp16. Beside them stands what `from_pretrained` and
our registry read of any Qwen3-VL: configuration, tokenizer, preprocessor. `topreward.json` lists the
instructions that the model understands. README.md is the model card; `training.evaluate --card` fills in its
table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer

from topreward_ros.core.output_files import write_file
from topreward_ros.offline.distill.model_folder import write_model
from training.instructions import TASKS
from training.network import make_config

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
    written = write_model(
        folder,
        trained,
        make_config(tokenizer),
        tokenizer,
        FRAME_PIXELS,
        SUMMARY,
        {task.instruction: task.trained for task in TASKS},
    )
    made_from = json.loads((run / "made_from.json").read_text())
    write_file(folder / "README.md", _card(made_from, written.sha256, written.parameters))
    return written.sha256


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
