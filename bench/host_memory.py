"""How much memory of the host a model takes while it is loaded, beside the page cache.

    python bench/host_memory.py --gigabytes 0.5

Folders of random weights are made, in bfloat16 and float32, and as the older pytorch_model.bin. Each is
loaded in a fresh process in several types: on the CPU, and on a device whose memory is not the host's.
PyTorch's device "meta" stands in for that: it takes what it is given and holds nothing, so all that is seen
then is what the host holds beside it. Looked at every 2 ms: memory that is no page of a file (RssAnon of
Linux), and pages of files (RssFile), which the kernel drops where memory is short. What libraries take is
left out: a tiny model is loaded first. With --cuda the device is a GPU, which is real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from options import add_files, parser
from output import write_json
from process_memory import memory_mib, status_of
from start import shape
from topreward_ros.core.output_files import temporary_folder, write_file
from topreward_ros.offline.engine_bench import machine
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.views.bench import machine_line

WEIGHTS = "model.safetensors"
#: Files, the type that is asked for, and whether the model goes to another device.
LOADS = [
    ("bfloat16", "bfloat16", False),
    ("bfloat16", "float32", False),
    ("float32", "bfloat16", False),
    ("bfloat16", "bfloat16", True),
    ("bfloat16", "float16", True),
    ("float32", "bfloat16", True),
    ("pickle", "bfloat16", True),
]


def held() -> tuple[float, float]:
    """Memory of this process [MiB]: of its own, and pages of files."""
    status = status_of("self")
    return memory_mib(status, "RssAnon"), memory_mib(status, "RssFile")


@contextmanager
def watched(peaks: dict[str, float]) -> Iterator[None]:
    """Note the largest growth of memory within this [MiB], and what was left of it."""
    before, over = held(), threading.Event()

    def look() -> None:
        own, files = (now - then for now, then in zip(held(), before, strict=True))
        for name, value in (("own", own), ("files", files)):
            peaks[name] = max(peaks.get(name, 0.0), value)
            peaks[f"{name}_left"] = value

    def watch() -> None:
        while not over.wait(0.002):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    over.set()
    thread.join()
    look()


def measure(folder: Path, tiny: Path, dtype: str, device: str) -> None:
    """Print what loading takes, in JSON; run in a process of its own."""
    import torch

    from topreward_ros.scoring.checkpoint import load
    from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint

    if device == "meta":  # which has no values that could be looked at
        check: Any = vars(load).get("_ValueCheck")
        if check is not None:
            check.look = lambda *_: None
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "quantization": "none"}
    for warm in (torch.device(device), torch.device("cpu")):
        load.load_weights(open_checkpoint(str(tiny)), device=warm, **options)
    peaks: dict[str, float] = {}
    begun = time.perf_counter()
    with watched(peaks):
        model = load.load_weights(open_checkpoint(str(folder)), device=torch.device(device), **options)
    size = sum(weight.numel() * weight.itemsize for weight in model.parameters()) / 2**20
    print(json.dumps({"model": size, "seconds": time.perf_counter() - begun, **peaks}))


def folders(scratch: Path, gigabytes: float) -> dict[str, Path]:
    """The folders to load, by what is in their files; and one of a tiny model."""
    import torch
    from safetensors.torch import load_file, save

    made = make_random_checkpoint(scratch / "bfloat16", shape=shape(gigabytes))
    found = {"bfloat16": made, "tiny": make_random_checkpoint(scratch / "tiny")}
    for name in ("float32", "pickle"):
        found[name] = Path(shutil.copytree(made, scratch / name, ignore=shutil.ignore_patterns(WEIGHTS)))
    weights = load_file(made / WEIGHTS)
    wider = {name: weight.float() for name, weight in weights.items()}
    write_file(found["float32"] / WEIGHTS, save(wider, metadata={"format": "pt"}))
    torch.save(weights, found["pickle"] / "pytorch_model.bin")
    return found


def main() -> None:
    """Print a table, in Markdown."""
    command = parser(__doc__)
    command.add_argument("--gigabytes", type=float, default=0.5, help="in bfloat16 (%(default)s)")
    command.add_argument("--cuda", action="store_true", help='a GPU in the place of "meta"')
    command.add_argument("--measure", nargs=4, metavar=("FOLDER", "TINY", "DTYPE", "DEVICE"))
    add_files(command, plot=False)
    options = command.parse_args()
    if options.measure:
        folder, tiny, dtype, device = options.measure
        measure(Path(folder), Path(tiny), dtype, device)
        return
    elsewhere = "cuda" if options.cuda else "meta"
    rows = []
    with temporary_folder("topreward-bench-") as scratch:
        print("making the weights ...", file=sys.stderr)
        by_files = folders(Path(scratch), options.gigabytes)
        print(
            "| files | asked for | device | the model | own memory, at most / left | pages of files | time |"
        )
        print("|---|---|---|---|---|---|---|")
        for files, dtype, leaves in LOADS:
            device = elsewhere if leaves else "cpu"
            asked = [str(by_files[files]), str(by_files["tiny"]), dtype, device]
            child = [sys.executable, __file__, "--measure", *asked]
            done = subprocess.run(child, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append({"files": files, "asked": dtype, "device": device, **found})
            print(
                f"| {files} | {dtype} | {device} | {found['model']:.0f} MiB | {found['own']:.0f} / "
                f"{found['own_left']:.0f} MiB | {found['files']:.0f} MiB | {found['seconds']:.2f} s |",
                flush=True,
            )
    print(f"\n{machine_line(machine())}")
    write_json(options.json, {"loads": rows})


if __name__ == "__main__":
    main()
