"""Write evaluation clips as a folder of labelled films, as people hand over their own:

    python -m training.films data films                           # 10 successes and 10 failures of each task
    python -m training.films data films --sets eval-1 --each 20 --view close

The films and labels.csv in it (file, task, success, done_s) are what `topreward calibrate`, `evaluate` and
`prompts sweep` take. The pictures are those of `training.evaluate`, without loss; of the truth the labels say
whether and when the task was done.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from pathlib import Path

import av
import numpy as np

from topreward_ros.core.output_files import write_file
from training.clips import RATE, SIDE, VIEWS, Clip, Listed
from training.generate import EVALUATIONS
from training.instructions import BY_NAME
from training.samples import crop, done

_LABELS = "labels.csv"
_HEIGHT, _WIDTH = SIDE * 3 // 4, SIDE  # [px] the middle of a clip, as `training.evaluate` shows it


def chosen(data: Path, sets: Sequence[str], view: str, each: int) -> Iterator[Listed]:
    """The first ``each`` successes and failures of every task in these sets that this camera saw."""
    count: Counter[tuple[str, bool]] = Counter()
    for path in sorted(path for name in sets for path in data.glob(f"{name}/*/*-{view}.npz")):
        clip = Listed.of_file(data, path.relative_to(data), seed=0)
        kind = clip.task, clip.succeeded
        count[kind] += 1
        if count[kind] <= each:
            yield clip


def write_films(data: Path, folder: Path, clips: Sequence[Listed]) -> None:
    """Write ``clips`` of ``data`` into ``folder``, which is made, and their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    table = StringIO()
    labels = csv.writer(table, lineterminator="\n")
    labels.writerow(("file", "task", "success", "done_s"))
    for listed in clips:
        clip = Clip.load(data / listed.path)
        name = "-".join(listed.path.with_suffix(".mkv").parts)
        write_file(folder / name, film(crop(clip.frames, _HEIGHT, _WIDTH)))
        is_done = done(clip)
        done_s = f"{int(np.argmax(is_done)) / RATE:g}" if clip.succeeded else ""
        labels.writerow((name, BY_NAME[clip.task].instruction, int(clip.succeeded), done_s))
    write_file(folder / _LABELS, table.getvalue())


def film(frames: np.ndarray) -> bytes:
    """A Matroska file of RGB ``frames`` (N, height, width, 3), `RATE` per second, in FFV1: without loss."""
    content = BytesIO()
    with av.open(content, "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=round(RATE))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for picture in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        output.mux(stream.encode(None))
    return content.getvalue()


def main() -> None:
    """Write films from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder made by training.generate")
    parser.add_argument("folder", type=Path, help="of the films, which is made")
    parser.add_argument("--sets", nargs="+", choices=EVALUATIONS, default=EVALUATIONS, help="(all)")
    parser.add_argument("--view", choices=VIEWS, default=VIEWS[0], help="camera (%(default)s)")
    parser.add_argument(
        "--each", type=int, default=10, help="successes, and failures, of a task (%(default)s)"
    )
    arguments = parser.parse_args()
    clips = list(chosen(arguments.data, arguments.sets, arguments.view, arguments.each))
    if not clips:
        raise SystemExit(
            f"{arguments.data} holds none of these clips: make them with `python -m training.generate`"
        )
    write_films(arguments.data, arguments.folder, clips)
    print(f"{len(clips)} films and {_LABELS} in {arguments.folder}")


if __name__ == "__main__":
    main()
