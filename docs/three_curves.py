"""Draw the picture of the README: progress of a success, a failure and an idle robot, in one figure.

The three clips of `topreward demo` are scored as the live monitor would score them, but to their ends. Key
frames stand under the curves. This is not part of the package.

    python docs/three_curves.py docs/three_curves.png
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import DEMO_CLIPS, DEMO_TASK, DemoClip, monitor_defaults, shared_file
from topreward_ros.offline.score_video import Curve, score_video
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.views.curve_plot import frames_at
from topreward_ros.views.picture import write_picture
from topreward_ros.views.terminal import RANDOM_WARNING

#: Colour (Okabe and Ito's, which the colour-blind can tell apart), mark and dashes: any of them is enough.
_Style = tuple[str, str, str | tuple[float, tuple[float, float]]]
_STYLES: tuple[_Style, ...] = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", (0, (6, 2))),
    ("#5F5F5F", "^", (0, (1.5, 1.5))),
)
_LABELS = ("success: it opens the drawer", "failure: it stops half-way", "idle: it does nothing")
_KEY_FRAMES = 8
_FRAME_PX = 200  # width of a key frame
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def score_clips(model: str) -> list[Curve]:
    """One curve per clip of the demonstration, not cut at SUCCESS."""
    parameters = {**monitor_defaults(), "device": "cpu"}
    settings = replace(MonitorSettings.from_parameters(parameters), end_episode_on_success=False)
    scorer = load_scorer(model, ScorerSettings.from_parameters(parameters))
    try:
        return [score_video(shared_file(clip.video), DEMO_TASK, scorer, settings) for clip in DEMO_CLIPS]
    finally:
        scorer.close()


def draw(curves: list[Curve], picture: Path) -> None:
    """Write the figure."""
    figure = Figure(figsize=(11, 7.8), dpi=100, facecolor="white")
    left, right = 0.095, 0.985
    figure.text(left, 0.955, f"“{DEMO_TASK}”", fontsize=15, weight="bold")
    model = curves[0].model
    note = f"   ·   {RANDOM_WARNING}" if model.random_weights else ""
    source = f"model {model.model_id} ({model.revision}), {model.device}{note}"
    figure.text(left, 0.925, source, fontsize=9, color="#c62828" if note else "0.35")
    axes = figure.add_axes((left, 0.45, right - left, 0.42))
    for curve, style, label in zip(curves, _STYLES, _LABELS, strict=True):
        _draw_curve(axes, curve, style, label)
    axes.set_xlim(0, max(curve.duration_s for curve in curves))
    axes.set_ylim(-0.03, 1.06)
    axes.set_ylabel("progress", fontsize=11)
    axes.set_xlabel("time [s]", fontsize=11)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 0.99), ncols=3, frameon=False, fontsize=11, borderpad=0.2,
        borderaxespad=0, handlelength=3.2,
    )  # fmt: skip
    strips = figure.add_gridspec(3, 1, left=left, right=right, top=0.374, bottom=0.01, hspace=0.05)
    for row, (curve, style, clip) in enumerate(zip(curves, _STYLES, DEMO_CLIPS, strict=True)):
        _draw_strip(figure.add_subplot(strips[row]), curve, style[0], clip)
    write_picture(figure, picture)


def _draw_curve(axes: Axes, curve: Curve, style: _Style, label: str) -> None:
    colour, mark, dashes = style
    times = [point.time_s for point in curve.points]
    values = [point.progress for point in curve.points]
    axes.plot(
        times, values, color=colour, marker=mark, markersize=5, linestyle=dashes, linewidth=2, label=label,
        clip_on=False,
    )  # fmt: skip
    for event in curve.events:
        if event.type == "SUCCESS":
            axes.axvline(event.time_s, color=colour, linewidth=1.4)
            axes.annotate(
                "SUCCESS", (event.time_s, 0.62), xytext=(5, 0), textcoords="offset points",
                va="center", color=colour, fontsize=11, weight="bold",
            )  # fmt: skip


def _draw_strip(axes: Axes, curve: Curve, colour: str, clip: DemoClip) -> None:
    """Key frames side by side, evenly spread over the clip, with their times."""
    times = np.linspace(0, 0.99 * curve.duration_s, _KEY_FRAMES)
    shown = []
    for time_s, image in frames_at(open_video(curve.video), times.tolist()):
        size = (_FRAME_PX, round(_FRAME_PX * image.shape[0] / image.shape[1]))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        place = (6, size[1] - 8)
        cv2.putText(small, f"{time_s:.1f} s", place, _FONT, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
        shown.append(np.pad(small, ((0, 0), (2, 2), (0, 0)), constant_values=255))
    axes.imshow(np.concatenate(shown, axis=1))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel(clip.name, rotation=0, ha="right", va="center", color=colour, fontsize=12, weight="bold")


def main() -> None:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("picture", type=Path, help="the file to write: .png, .svg or .pdf")
    parser.add_argument("--model", default="embedded", help="as `model:=` (%(default)s)")
    arguments = parser.parse_args()
    draw(score_clips(arguments.model), arguments.picture)


if __name__ == "__main__":
    main()
