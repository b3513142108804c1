"""Kill a process at random moments while it writes: the files are the old ones or the new ones, every time.

    .venv/bin/python test/faults/kill_while_writing.py --times 200

A child writes a JSON and a picture over and over, as `topreward score` does; after a random time it gets
SIGKILL. Every file that is then there must be whole, hidden files must bear the name of a temporary one, and
the next writer must remove them. With `--plainly` the child writes as `open()` does, to see that this check
can fail. The exit status is 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from topreward_ros.cli.output import write_json
from topreward_ros.core.output_files import TEMPORARY, write_file
from topreward_ros.views.picture import write_picture


def curve(number: int) -> str:
    """A JSON of a megabyte that says whether it is whole."""
    filler = f"{number:08}" * 125_000
    return json.dumps({"sha256": hashlib.sha256(filler.encode()).hexdigest(), "filler": filler})


def keep_writing(folder: Path, *, plainly: bool) -> None:
    """Write until killed."""
    figure = Figure(figsize=(4, 3))
    line = figure.add_subplot().plot([0, 1])[0]
    curves = [curve(number) for number in range(2)]
    for number in range(1_000_000):
        if plainly:
            (folder / "curve.json").write_text(curves[number % 2])
            continue
        for _ in range(5):  # the picture is drawn for longer than it is written
            write_json(str(folder / "curve.json"), lambda number=number: curves[number % 2])
        line.set_ydata([0, number % 7])
        write_picture(figure, folder / "curve.png")


def problems(folder: Path) -> list[str]:
    """What is wrong with the files in ``folder``."""
    found = []
    for path in folder.iterdir():
        if path.name == "curve.json":
            try:
                content = json.loads(path.read_text())
                if hashlib.sha256(content["filler"].encode()).hexdigest() != content["sha256"]:
                    found.append("curve.json is mixed")
            except (ValueError, KeyError):
                found.append(f"curve.json is torn ({path.stat().st_size} bytes)")
        elif path.name == "curve.png":
            try:
                Image.open(path).load()
            except OSError as error:
                found.append(f"curve.png is torn: {error}")
        elif not (path.name.startswith(".curve.") and path.name.endswith(TEMPORARY)):
            found.append(f"{path.name} is a name that nobody knows")
    return found


def run(times: int, folder: Path, seed: int, *, plainly: bool = False) -> Counter[str]:
    """Start and kill the child ``times`` times; counts what was found."""
    drawn = random.Random(seed)
    found: Counter[str] = Counter()
    for name in ("curve.json", "curve.png"):  # the first child has an old file to lose, too
        write_file(folder / name, curve(9) if name.endswith("json") else b"")
    write_picture(Figure(), folder / "curve.png")
    for _ in range(times):
        child = os.fork()
        if not child:
            keep_writing(folder, plainly=plainly)
        time.sleep(drawn.uniform(0.005, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found["kills"] += 1
        found["kills that left a temporary file"] += any(folder.glob(f".*{TEMPORARY}"))
        found.update(problems(folder))
    write_json(str(folder / "curve.json"), lambda: curve(3))
    write_picture(Figure(), folder / "curve.png")
    if left := [path.name for path in folder.iterdir() if path.name not in ("curve.json", "curve.png")]:
        found[f"left for good: {left}"] += 1
    return found


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=200, help="kills (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments (default: a new one)")
    parser.add_argument("--plainly", action="store_true", help="write as open() does: this must fail")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory() as folder:
        found = run(arguments.times, Path(folder), seed, plainly=arguments.plainly)
    print(f"seed {seed}: " + "; ".join(f"{what}: {count}" for what, count in found.items()))
    return int(set(found) > {"kills", "kills that left a temporary file"})


if __name__ == "__main__":
    sys.exit(main())
