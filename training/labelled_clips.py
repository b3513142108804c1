"""Make films with labels.csv of clips that the simulator judged, for `topreward evaluate` and `calibrate`.

The pictures lose nothing (FFV1), so that a film is scored as its clip is. Which clips are taken depends on
their names alone: of each task the first ones of each kind, evenly over the cameras.

    .venv/bin/python -m training.generate DATA
    .venv/bin/python -m training.labelled_clips DATA/eval-0 runs --each 10
    .venv/bin/topreward evaluate runs
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from io import BytesIO, StringIO
from pathlib import Path

import av
import numpy as np
from rich.progress import track

from topreward_ros.core.output_files import write_file
from topreward_ros.offline.labels import LABELS
from training.clips import RATE, Clip, Listed
from training.instructions import BY_NAME


def listed(data: Path) -> list[Listed]:
    """The clips below ``data``."""
    return [Listed.of_file(data, path.relative_to(data), 0) for path in sorted(data.rglob("*.npz"))]


def chosen(lines: Iterable[Listed], each: int) -> list[Listed]:
    """Of each task at most ``each`` successes and as many failures; the kinds of failures take turns."""
    groups: dict[tuple[str, bool], dict[tuple[str, str], list[Listed]]] = {}
    for line in sorted(lines, key=lambda line: line.path.as_posix()):
        kinds = groups.setdefault((line.task, line.succeeded), {})
        kinds.setdefault((line.kind, line.view), []).append(line)
    made = []
    for kinds in groups.values():
        queues = list(kinds.values())
        turns = [queue[k] for k in range(max(map(len, queues))) for queue in queues if k < len(queue)]
        made += turns[:each]
    return sorted(made, key=lambda line: line.path.as_posix())


def write_film(clip: Clip, path: Path) -> None:
    """Write the frames of a clip to ``path``, at their rate and without loss."""
    content = BytesIO()
    with av.open(content, "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=round(RATE))
        _, height, width, _ = clip.frames.shape
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for frame in clip.frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            output.mux(stream.encode(picture.reformat(format="bgr0")))
        output.mux(stream.encode(None))
    write_file(path, content.getvalue())


def write_films(data: Path, lines: Iterable[Listed], output: Path) -> None:
    """Write a film of each clip into ``output``, and what the simulator says of it."""
    output.mkdir(parents=True, exist_ok=True)
    rows = StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(("file", "task", "success", "done_s"))
    for line in track(list(lines), "filming"):
        clip = Clip.load(data / line.path)
        name = f"{line.path.as_posix().replace('/', '_').removesuffix('.npz')}.mkv"
        write_film(clip, output / name)
        done_s = int(np.argmax(clip.success)) / RATE if clip.succeeded else ""
        table.writerow((name, BY_NAME[clip.task].instruction, int(clip.succeeded), done_s))
    write_file(output / LABELS, rows.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with clips of `training.generate` in it")
    parser.add_argument("output", type=Path, help="folder of the films and their labels")
    parser.add_argument("--each", type=int, default=10, help="successes, and failures, of a task")
    parser.add_argument("--tasks", nargs="*", default=[], help="names of tasks (default: all)")
    options = parser.parse_args()
    lines = listed(options.data)
    if not lines:
        raise SystemExit(f"{options.data} holds no clips: make some with `python -m training.generate`")
    wanted = [line for line in lines if not options.tasks or line.task in options.tasks]
    write_films(options.data, chosen(wanted, options.each), options.output)


if __name__ == "__main__":
    main()
