"""A progress curve as a picture: progress, log-probabilities, and what the camera saw, over one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from math import isnan, nan
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from topreward_ros.core.outputs import State
from topreward_ros.core.printable import printable
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.score_video import Curve, CurveEvent
from topreward_ros.offline.video import FrameError, Video, open_video
from topreward_ros.scoring.checkpoint.vocabulary import UNKNOWN_INSTRUCTION, is_known
from topreward_ros.views import colours
from topreward_ros.views.picture import write_picture
from topreward_ros.views.score_names import score_names
from topreward_ros.views.terminal import RANDOM_WARNING

_WIDTH_PX, _HEIGHT_PX, _DPI = 1200, 780, 100
_LEFT, _RIGHT = 0.065, 0.985  # edges of the panels, share of the width
_STRIP_HEIGHT_PX = 92
_DOTS = {State.SUCCEEDED: "green dot: SUCCESS", State.FAILED: "red dot: FAILURE or TIMEOUT"}


def plot_curve(curve: Curve, picture: str | Path, *, rate: float = 0.0, video: Video | None = None) -> None:
    """Write the curve with key frames of its video to ``picture`` (.png, .svg, .pdf ...).

    ``video``: what was scored; None: the one at the path in ``curve``, with ``rate`` [Hz] as in
    `score_video`. Raises `VideoError`, `OutputFileError`, and `ValueError` for a file
    type that matplotlib does not know.
    """
    figure = Figure(figsize=(_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI), dpi=_DPI, facecolor="white")
    grid = figure.add_gridspec(
        3, 1, height_ratios=(3.2, 2.2, 1.25), hspace=0.2, left=_LEFT, right=_RIGHT, top=0.86, bottom=0.07
    )
    progress = figure.add_subplot(grid[0])
    log_prob = figure.add_subplot(grid[1], sharex=progress)
    strip = figure.add_subplot(grid[2], sharex=progress)
    video = open_video(curve.video, rate) if video is None else video
    end_s = _end_of_video(curve, video)
    margin_s = 0.02 * max(end_s, 0.5)
    progress.set_xlim(-margin_s, max(end_s, 0.5) + margin_s)

    _draw_title(figure, curve, Path(curve.video).name)
    _draw_progress(progress, curve)
    _draw_log_prob(log_prob, curve)
    _draw_strip(strip, video, end_s)
    _draw_events((progress, log_prob), curve.events)
    if curve.ended_early:
        for axes in (progress, log_prob):
            axes.axvspan(curve.events[-1].time_s, end_s, color="0.93", zorder=0)
        middle_s = 0.5 * (curve.events[-1].time_s + end_s)
        progress.text(middle_s, 0.03, "not scored:\nepisode over", ha="center", fontsize=8, color="0.4")
    write_picture(figure, picture)


def plot_curves(curves: Sequence[Curve], picture: str | Path) -> None:
    """Write the progress of several videos over one time axis. Raises as `write_picture` does."""
    figure = Figure(figsize=(_WIDTH_PX / _DPI, 5.4), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((_LEFT, 0.11, 0.66, 0.73))
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(curves)))
    for curve, colour in zip(curves, shades, strict=True):
        times = [point.time_s for point in curve.points]
        values = [point.progress for point in curve.points]
        # matplotlib leaves names out that begin with an underscore
        label = printable(Path(curve.video).name, 34).lstrip("_")
        axes.plot(times, values, "-", color=colour, linewidth=1.6, label=label)
        if times and curve.state in _DOTS:
            axes.plot(times[-1], values[-1], "o", color=colours.STATES[curve.state.name], markersize=6)
    axes.set_ylim(-0.03, 1.09)
    axes.set_ylabel("progress")
    axes.set_xlabel("time [s]")
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False,
        ncols=1 + (len(curves) > 28),
    )  # fmt: skip
    states = {curve.state for curve in curves if curve.points}
    dots = [said for state, said in _DOTS.items() if state in states]
    axes.set_title(", ".join(dots), fontsize=9, loc="right", color="0.35")
    for text in legend.get_texts():
        text.set_parse_math(False)
    _draw_title(figure, curves[0], f"{len(curves)} videos")
    write_picture(figure, picture)


def _draw_title(figure: Figure, curve: Curve, name: str) -> None:
    # parse_math off: an instruction may hold a dollar sign
    figure.text(
        _LEFT, 0.955, f"“{printable(on_one_line(curve.instruction), 90)}”",
        fontsize=15, weight="bold", parse_math=False,
    )  # fmt: skip
    model = f"{printable(name, 90)}   ·   model {printable(curve.model.model_id, 60)}"
    figure.text(_LEFT, 0.92, model, fontsize=10, color="0.35", parse_math=False)
    is_unknown = not all(is_known(stage, curve.model) for stage in curve.instruction.split("\n"))
    warnings = [RANDOM_WARNING] * curve.model.random_weights + [UNKNOWN_INSTRUCTION] * is_unknown
    if warnings:
        figure.text(
            _RIGHT, 0.92, "; ".join(warnings),
            fontsize=12, weight="bold", color="white", ha="right",
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "#c62828", "edgecolor": "none"},
        )  # fmt: skip


def _draw_progress(axes: Axes, curve: Curve) -> None:
    times = [point.time_s for point in curve.points]
    values = np.array([point.progress for point in curve.points])
    axes.fill_between(times, values, color=colours.PROGRESS, alpha=0.12, linewidth=0)
    mode = curve.settings.progress_mode.value.replace("_", " ")
    if any(point.score.states_progress for point in curve.points):
        mode = "as the model states it"
    axes.plot(times, values, "o-", color=colours.PROGRESS, markersize=4, linewidth=2, label=f"live ({mode})")
    if curve.prefix_schedule is not None and curve.stages == 1:
        # Of who scores as the paper does. It ends near 1 whatever the robot did, so that nobody else has it.
        axes.plot(
            times, curve.minmax(), ":", color="0.45", linewidth=1.3,
            label="min-max over the whole curve (the paper's, not causal)",
        )  # fmt: skip
    if times and not np.isfinite(values).any():
        axes.text(
            0.5, 0.5, "progress is NaN: the first frame alone already reads as success",
            transform=axes.transAxes, ha="center", color="0.35",
        )  # fmt: skip
    axes.set_ylim(-0.03, 1.09)
    axes.set_ylabel("progress")
    _tidy(axes)


def _draw_log_prob(axes: Axes, curve: Curve) -> None:
    names = score_names(curve.model.answers)
    series = (
        (names.log_prob, colours.LOG_PROB, "o-", [point.score.log_prob for point in curve.points]),
        (names.log_prob_false, colours.LOG_PROB_FALSE, "-",
         [point.score.log_prob_false for point in curve.points]),
        (f"{names.log_prob}, first frame held", colours.LOG_PROB_STATIC, "--",
         [point.score.log_prob_static for point in curve.points]),
        ("ln of the stated probability of success", colours.LOG_PROB, "o-",
         [nan if isnan(it.score.success_probability) else it.score.success_log_prob for it in curve.points]),
    )  # fmt: skip
    for label, colour, style, values in series:
        if np.isfinite(values).any():
            axes.plot(
                *_by_stage(curve, values), style, color=colour, markersize=3, linewidth=1.4, label=label
            )
    thresholds = [point.threshold for point in curve.points]
    if any(threshold < 0.0 for threshold in thresholds):
        axes.plot(
            *_by_stage(curve, thresholds), color="0.25", linewidth=0.9, linestyle=(0, (1, 2)),
            label="success threshold",
        )  # fmt: skip
    axes.set_ylabel("log-probability [nat]")
    _tidy(axes)


def _by_stage(curve: Curve, values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Times and values with a gap between two stages, whose answers are to different questions."""
    times: list[float] = []
    with_gaps: list[float] = []
    stage = curve.points[0].stage if curve.points else 0
    for point, value in zip(curve.points, values, strict=True):
        if point.stage != stage:
            times.append(point.time_s)
            with_gaps.append(nan)
            stage = point.stage
        times.append(point.time_s)
        with_gaps.append(value)
    return times, with_gaps


def _tidy(axes: Axes) -> None:
    # above the panel, where no curve can run behind it
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 0.985), ncols=4, fontsize=9, frameon=False,
        borderpad=0.2, borderaxespad=0.0, handlelength=1.8,
    )  # fmt: skip
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelbottom=False, length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_events(panels: Sequence[Axes], events: Sequence[CurveEvent]) -> None:
    """A line through the panels per moment, named above the first; the start of the episode is the axis."""
    names: dict[float, list[str]] = {}
    for event in events:
        if event.type not in ("EPISODE_STARTED", "EPISODE_ENDED"):
            names.setdefault(event.time_s, []).append(event.type)
    for time_s, at_once in names.items():
        colour = colours.EVENTS.get(at_once[0], colours.OTHER)
        for axes in panels:
            axes.axvline(time_s, color=colour, linewidth=1.4)
        starts_left = time_s < 0.5 * panels[0].get_xlim()[1]
        panels[0].annotate(
            printable(" · ".join(at_once)), (time_s, 0.98), xycoords=("data", "axes fraction"),
            xytext=(4 if starts_left else -4, 0), textcoords="offset points", va="top",
            ha="left" if starts_left else "right", fontsize=9, weight="bold", color=colour,
            parse_math=False,
        )  # fmt: skip


def _draw_strip(axes: Axes, video: Video, end_s: float) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("time [s]")
    info = video.info
    width_px = _STRIP_HEIGHT_PX * info.width / info.height
    count = max(1, int((_RIGHT - _LEFT) * _WIDTH_PX / (width_px + 8)))
    centres = [(k + 0.5) * end_s / count for k in range(count)]
    for time_s, image in frames_at(video, centres):
        thumbnail = cv2.resize(image, (round(width_px), _STRIP_HEIGHT_PX), interpolation=cv2.INTER_AREA)
        box = AnnotationBbox(OffsetImage(thumbnail, dpi_cor=False), (time_s, 0.53), frameon=False)
        axes.add_artist(box)
        axes.plot([time_s, time_s], [0.0, 0.03], color="0.4", linewidth=1)


def frames_at(video: Video, times_s: Sequence[float]) -> list[tuple[float, np.ndarray]]:
    """The first frame (H, W, 3) RGB at or after each of the increasing times, with its own time [s]."""
    frames: list[tuple[float, np.ndarray]] = []
    with closing(iter(video)) as opened:
        for stamp_ns, read in opened:
            if len(frames) == len(times_s):
                break
            if stamp_ns * 1e-9 >= times_s[len(frames)]:
                with suppress(FrameError):  # the next one takes its place
                    frames.append((stamp_ns * 1e-9, read()))
    return frames


def _end_of_video(curve: Curve, video: Video) -> float:
    """Time of the last frame [s], also of the part that was not scored."""
    if not curve.ended_early:
        return curve.duration_s
    return max(stamp_ns for stamp_ns, _ in video) * 1e-9
