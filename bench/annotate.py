"""How much faster than real time `topreward annotate` works on a bag, and whether that holds for long bags.

Each bag is made of a shipped video that is repeated, with JPEGs of 640x480 at 30 Hz, or raw images (--raw).
Loading the model is timed apart (--json). On a busy machine the work waits: CPU seconds say how much there
was of it, and length by CPU seconds what one quiet core would do. All output is removed.

    .venv/bin/python bench/annotate.py
    .venv/bin/python bench/annotate.py --minutes 1 2 4 --raw --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from rosbags.typesys import Stores, get_typestore

from options import add_files, add_threads, parser
from output import write_json
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.output_files import temporary_folder
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.annotate_bag import annotate_bag
from topreward_ros.offline.annotation_report import AnnotationSettings, BagJob
from topreward_ros.offline.bag_writer import BagWriter
from topreward_ros.offline.engine_bench import machine
from topreward_ros.offline.raw_samples import rosbags_image
from topreward_ros.offline.side_by_side import score_side_by_side
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import PrefixScorer, ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.bench import machine_line

RATE = 30  # [Hz]
SIZE = (640, 480)
_STORE = get_typestore(Stores.ROS2_JAZZY)


def images(seconds: float, rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """Stamps [ns] and RGB images: the video forth and back, so that nothing jumps."""
    pictures = [cv2.resize(read(), SIZE) for _, read in open_video(shared_file(DEMO_VIDEO))]
    around = pictures + pictures[-2:0:-1]
    for k in range(int(seconds * rate)):
        yield NS_PER_S + k * NS_PER_S // rate, around[k % len(around)]


def make_bag(path: Path, seconds: float, raw: bool, rate: int = RATE) -> None:
    kind = "sensor_msgs/msg/Image" if raw else "sensor_msgs/msg/CompressedImage"
    with BagWriter(path) as bag:
        topic = bag.add_topic("/image", kind)
        for stamp_ns, rgb in images(seconds, rate):
            stamp = _STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, NS_PER_S))
            fields: dict[str, Any] = {
                "header": _STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            }
            if raw:
                fields |= {"height": SIZE[1], "width": SIZE[0], "encoding": "rgb8", "is_bigendian": 0}
                fields |= {"step": 3 * SIZE[0], "data": rgb.reshape(-1)}
            else:
                fields |= {"format": "jpeg", "data": cv2.imencode(".jpg", rgb[..., ::-1])[1].reshape(-1)}
            bag.write(topic, bytes(_STORE.serialize_cdr(_STORE.types[kind](**fields), kind)), stamp_ns)


def annotate(bag: Path, target: Path, scorer: PrefixScorer) -> int:
    """Annotate a bag to its end; the number of scores."""
    parameters = {**monitor_defaults(), "end_episode_on_success": False}
    job = BagJob(bag, target, DEMO_TASK)
    episode = annotate_bag(job, AnnotationSettings(parameters), scorer.info, rosbags_image)
    ((_, done),) = score_side_by_side([episode], scorer, 1)
    if isinstance(done, Exception):
        raise done
    return done.scores


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    settings = ScorerSettings.from_parameters({**monitor_defaults(), "scorer_threads": options.threads})
    begun = time.perf_counter()
    scorer = load_scorer("embedded", settings)
    loading = time.perf_counter() - begun
    rows = []
    for minutes in options.minutes:
        bag = folder / f"bag{minutes:g}"
        make_bag(bag, 60 * minutes, options.raw)
        size = sum(file.stat().st_size for file in bag.iterdir())
        begun, worked = time.perf_counter(), time.process_time()
        scores = annotate(bag, folder / "out", scorer)
        seconds, worked = time.perf_counter() - begun, time.process_time() - worked
        for path in [*(folder / "out").iterdir(), *bag.iterdir()]:
            path.unlink()
        (folder / "out").rmdir()
        row = {
            "minutes": minutes,
            "megabytes": size / 1e6,
            "scores": scores,
            "seconds": seconds,
            "cpu": worked,
        }
        rows.append(row | {"loading": loading})
    return rows


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4, 8], help="(1 2 4 8)")
    command.add_argument("--raw", action="store_true", help="raw images instead of JPEGs")
    add_threads(command)
    add_files(command, plot=False)
    options = command.parse_args()
    with temporary_folder("topreward-bench-") as folder:
        rows = measure(options, folder)
    kind = "raw images" if options.raw else "JPEGs"
    table = Table(title=f"topreward annotate, embedded model, {kind} of 640x480 at {RATE} Hz")
    for column in ("bag [min]", "[MB]", "scores", "[s]", "CPU [s]", "x real time", "by CPU"):
        table.add_column(column, justify="right")
    for row in rows:
        length, seconds = 60 * row["minutes"], row["seconds"]
        table.add_row(
            f"{row['minutes']:g}",
            f"{row['megabytes']:.0f}",
            f"{row['scores']:.0f}",
            f"{seconds:.1f}",
            f"{row['cpu']:.1f}",
            f"{length / seconds:.1f}",
            f"{length / row['cpu']:.1f}",
        )
    Console().print(table)
    Console().print(machine_line(machine()))
    write_json(options.json, {"machine": machine(), "kind": kind, "rows": rows})


if __name__ == "__main__":
    main()
