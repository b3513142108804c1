"""The picture of the debug image: the shipped success, two thirds through, as a monitor would show it.

It draws with the function that the node draws with, from the scores of the embedded model. Not part of the
package.

    python docs/debug_image.py docs/debug_image.jpg
"""

from __future__ import annotations

import argparse
from math import nan
from pathlib import Path

import cv2

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import write_file
from topreward_ros.core.outputs import State
from topreward_ros.defaults import DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.score_video import Curve, score_video
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.curve_plot import frames_at
from topreward_ros.views.debug_picture import debug_picture
from topreward_ros.views.messages import Sample

_TASK = "open the drawer"
_SHOWN = 2 / 3  # of the scores
_QUALITY = 88


def samples(curve: Curve) -> list[Sample]:
    """The first part of a curve, as a monitor's messages would say it."""
    return [
        Sample(
            episode_id="", instruction=curve.instruction, state=State.RUNNING,
            stamp_ns=round(point.time_s * NS_PER_S), progress=point.progress, log_prob=point.score.log_prob,
            log_prob_false=point.score.log_prob_false, log_prob_static=point.score.log_prob_static,
            num_frames=point.num_frames, elapsed_s=point.time_s, latency_s=nan, message="",
        )
        for point in curve.points[: round(_SHOWN * len(curve.points))]
    ]  # fmt: skip


def main() -> None:
    """Score, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path)
    picture = parser.parse_args().picture
    parameters = monitor_defaults()
    video = str(shared_file(DEMO_VIDEO))
    scorer = load_scorer("embedded", ScorerSettings.from_parameters(parameters))
    scores = samples(score_video(video, _TASK, scorer, MonitorSettings.from_parameters(parameters)))
    ((_, frame),) = frames_at(open_video(video), [scores[-1].elapsed_s])
    drawn = debug_picture(frame, scores)
    _, data = cv2.imencode(picture.suffix, drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    write_file(picture, data.tobytes())


if __name__ == "__main__":
    main()
