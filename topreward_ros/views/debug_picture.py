"""What `~/debug_image` shows: the camera's picture and, under it, state, progress, curve and task.

Pure: an array and numbers in, an array out. Nothing of the scene is hidden, because all that is drawn lies
below it. The fonts of OpenCV have ASCII alone: other letters lose their accents or become question marks.
Whether somebody looks, and how the picture is sent, is known in nodes/debug_image.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from math import isfinite

import cv2
import numpy as np

from topreward_ros.core.outputs import State
from topreward_ros.core.printable import printable
from topreward_ros.core.stages import numbered
from topreward_ros.views import colours
from topreward_ros.views.messages import Sample
from topreward_ros.views.terminal import number

Colour = tuple[int, int, int]  # RGB

_NARROWEST, _WIDEST = 320, 960  # [px] the picture is enlarged or shrunk to between these
_TALLEST = 960  # [px] of the camera's part
_GROUND: Colour = (24, 26, 30)
_TRACK: Colour = (58, 62, 70)
_INK: Colour = (236, 238, 242)
_DIM: Colour = (150, 156, 166)
_CURVE: Colour = (90, 190, 255)
_WARNING: Colour = (255, 170, 90)
_STATE_COLOURS: dict[State | int, Colour] = {
    State[name]: colours.rgb(colour) for name, colour in colours.STATES.items()
}
_OTHER_STATE = colours.rgb(colours.OTHER)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22.0  # [px] of a capital letter at scale 1
_SHIFT = 4  # binary places of the coordinates in a curve
_SHORTEST_SPAN_S = 5.0  # of the time axis


def debug_picture(image: np.ndarray, scores: Sequence[Sample]) -> np.ndarray:
    """The picture of the newest of ``scores``, which are of one episode, in order, and at least one.

    ``image``: the frame that was scored last, (H, W, 3) uint8 RGB. Returns (h, w, 3) uint8 RGB, where w is
    that of the image brought to between 320 and 960, and the camera's part of h is at most 960.
    """
    newest = scores[-1]
    camera = _fitted(image)
    width = camera.shape[1]
    unit = max(width / 64.0, 7.0)  # [px]
    notes = [newest.message] if newest.message else []
    panel = np.full((round((17.5 + 2.4 * len(notes)) * unit), width, 3), _GROUND, np.uint8)
    _draw_head(panel, unit, newest)
    _draw_bar(panel, unit, newest.progress)
    _draw_text(panel, unit, 7.9, numbered(newest.instruction, newest.stage, newest.stages), _INK)
    for note in notes:
        _draw_text(panel, unit, 10.3, note, _WARNING)
    top = round((9.4 + 2.4 * len(notes)) * unit)
    _draw_curve(panel, unit, top, scores)
    return np.concatenate((camera, panel))


def ascii_text(text: str, longest: int = 400) -> str:
    """``text`` on one line in ASCII: accents are dropped, and any other letter becomes a question mark.

    >>> ascii_text("öffne die\\nSchublade 引き出し")
    'offne die Schublade ????'
    """
    plain = unicodedata.normalize("NFKD", printable(text, longest))
    bare = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return printable(bare.encode("ascii", "replace").decode("ascii"), longest)


def _fitted(image: np.ndarray) -> np.ndarray:
    """The image at a size at which text under it can be read and the message stays small."""
    height, width = image.shape[:2]
    scale = min(max(1.0, _NARROWEST / width), _WIDEST / width, _TALLEST / height)
    size = max(_NARROWEST, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image
    fitted = round(width * scale), size[1]
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    small = cv2.resize(image, (max(1, fitted[0]), fitted[1]), interpolation=method)
    # a picture far higher than wide stands in the middle
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    left = (size[0] - small.shape[1]) // 2
    canvas[:, left : left + small.shape[1]] = small
    return canvas


def _draw_head(panel: np.ndarray, unit: float, newest: Sample) -> None:
    """State, progress and time in the first row."""
    base = round(3.1 * unit)
    scale = 1.5 * unit / _FONT_HEIGHT
    name = ascii_text(newest.state_name).replace("_", " ")
    name_width = _width(name, scale)
    left, right = round(unit), round(2.2 * unit) + name_width
    colour = _STATE_COLOURS.get(newest.state, _OTHER_STATE)
    cv2.rectangle(panel, (left, round(0.8 * unit)), (right, round(3.9 * unit)), colour, cv2.FILLED)
    _put(panel, name, (round(1.6 * unit), base), scale, (255, 255, 255))
    progress = f"progress {number(newest.progress, 2)}"
    _put(panel, progress, (right + round(unit), base), scale, _INK)
    said = f"{newest.elapsed_s:.1f} s" if isfinite(newest.elapsed_s) else "-"
    right_edge = panel.shape[1] - round(unit)
    start = right_edge - _width(said, scale)
    if start > right + 2 * unit + _width(progress, scale):
        _put(panel, said, (start, base), scale, _DIM)


def _draw_bar(panel: np.ndarray, unit: float, progress: float) -> None:
    left, right = round(unit), panel.shape[1] - round(unit)
    top, bottom = round(4.6 * unit), round(5.8 * unit)
    cv2.rectangle(panel, (left, top), (right, bottom), _TRACK, cv2.FILLED)
    if isfinite(progress) and progress > 0.0:
        end = left + round((right - left) * min(progress, 1.0))
        cv2.rectangle(panel, (left, top), (end, bottom), _CURVE, cv2.FILLED)


def _draw_text(panel: np.ndarray, unit: float, base: float, text: str, colour: Colour) -> None:
    """One line over the whole width; what finds no room is cut, marked by dots."""
    scale = 1.15 * unit / _FONT_HEIGHT
    room = panel.shape[1] - round(2 * unit)
    said = ascii_text(text)
    while said and _width(said, scale) > room:
        said = said[: min(len(said) - 4, len(said) * room // _width(said, scale))].rstrip(". ") + "..."
        if said == "...":
            break
    _put(panel, said, (round(unit), round(base * unit)), scale, colour)


def _draw_curve(panel: np.ndarray, unit: float, top: int, scores: Sequence[Sample]) -> None:
    """Progress over the time of the episode, with a grid at 0, 0.5 and 1 and the time at its ends."""
    left, right = round(3.6 * unit), panel.shape[1] - round(unit)
    bottom = panel.shape[0] - round(2.2 * unit)
    scale = 0.9 * unit / _FONT_HEIGHT
    for share in (0.0, 0.5, 1.0):
        y = round(bottom - share * (bottom - top))
        cv2.line(panel, (left, y), (right, y), _TRACK, 1)
        _put(panel, f"{share:g}", (round(unit), y + round(0.4 * unit)), scale, _DIM)
    times = np.array([score.elapsed_s for score in scores], np.float64)
    values = np.array([score.progress for score in scores], np.float64)
    usable = np.isfinite(times)
    span_s = max(_SHORTEST_SPAN_S, float(times[usable].max(initial=0.0)))
    end = f"{span_s:.1f} s"
    _put(panel, "0", (left, panel.shape[0] - round(0.7 * unit)), scale, _DIM)
    _put(panel, end, (right - _width(end, scale), panel.shape[0] - round(0.7 * unit)), scale, _DIM)
    x = left + np.clip(np.where(usable, times, 0.0) / span_s, 0.0, 1.0) * (right - left)
    y = bottom - np.clip(np.nan_to_num(values), 0.0, 1.0) * (bottom - top)
    points = np.round(np.stack((x, y), axis=1) * (1 << _SHIFT)).astype(np.int32)
    thick = max(1, round(0.2 * unit))
    for piece in _pieces(usable & np.isfinite(values)):
        cv2.polylines(panel, [points[piece]], False, _CURVE, thick, cv2.LINE_AA, _SHIFT)
        if piece.stop - piece.start == 1 or piece.stop == len(scores):
            centre = (int(points[piece.stop - 1, 0]), int(points[piece.stop - 1, 1]))
            cv2.circle(panel, centre, round(0.4 * unit) << _SHIFT, _CURVE, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _pieces(there: np.ndarray) -> list[slice]:
    """Runs of True: a curve has a gap where a value is missing.

    >>> _pieces(np.array([True, True, False, True]))
    [slice(0, 2, None), slice(3, 4, None)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], there, [False])).astype(np.int8)))
    return [slice(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def _width(text: str, scale: float) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    return int(width)


def _put(panel: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: Colour) -> None:
    cv2.putText(panel, text, at, _FONT, scale, colour, max(1, round(1.6 * scale)), cv2.LINE_AA)
