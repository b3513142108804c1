"""The drawings of the documentation: the nodes and their topics, and one tick of the engine, as SVG.

They need nothing but Python. Each stands on a light ground of its own, so that it reads the same on a light
and on a dark page. Not part of the package.

    python docs/drawings.py docs
"""

from __future__ import annotations

import argparse
from html import escape
from pathlib import Path

from topreward_ros.core.output_files import write_file

_GROUND, _EDGE, _INK, _DIM = "#ffffff", "#8c959f", "#1f2328", "#57606a"
#: Fill and outline of a box, by what it is.
_KINDS = {
    "ours": ("#ddf4ff", "#0969da"),
    "yours": ("#f6f8fa", "#8c959f"),
    "kept": ("#fff8c5", "#9a6700"),
    "model": ("#dafbe1", "#1a7f37"),
    "out": ("#ffffff", "#1f2328"),
}
_SANS = "-apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', Helvetica, Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_LINE = 18  # [px] from one line of text to the next


class Drawing:
    """Boxes, arrows and text on a ground of ``width`` x ``height`` pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size, self._title = (width, height), title
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, text: str, *, mono: bool = False, bold: bool = False, dim: bool = False,
        anchor: str = "start", size: int = 13,
    ) -> None:  # fmt: skip
        """One line, whose base line is at ``y``."""
        style = f'font-family="{_MONO if mono else _SANS}" font-size="{size - mono}"'
        style += ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" {style} fill="{_DIM if dim else _INK}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, kind: str, *lines: str) -> None:
        """A box with ``lines`` in its middle: the first bold, one that begins with ` in the type of code."""
        fill, edge = _KINDS[kind]
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" '
            f'stroke="{edge}" stroke-width="1.3"/>'
        )
        top = y + height / 2 - (len(lines) - 1) * _LINE / 2 + 4.5
        for number, line in enumerate(lines):
            self.text(
                x + width / 2, top + number * _LINE, line.removeprefix("`"),
                mono=line.startswith("`"), bold=not number, dim=bool(number), anchor="middle",
            )  # fmt: skip

    def arrow(self, *points: tuple[float, float], both: bool = False, dashed: bool = False) -> None:
        """A line through ``points`` with a head at its end, or at both ends."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        style = ' stroke-dasharray="5 4"' if dashed else ""
        start = ' marker-start="url(#head)"' if both else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{_INK}" stroke-width="1.3"{style}{start} '
            f'marker-end="url(#head)"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img">\n<title>{escape(self._title)}</title>\n'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0 1 L10 5 L0 9 z" fill="{_INK}"/></marker></defs>\n'
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="{_GROUND}" '
            f'stroke="{_EDGE}"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"


_LEFT, _LEFT_WIDTH = 20, 160  # of the column of what the monitor is told [px]
_MONITOR, _MONITOR_END = 385, 525  # left and right edge
_RIGHT, _RIGHT_WIDTH = 755, 155  # of the column of who listens


def nodes() -> Drawing:
    """What a monitor listens to, who listens to it, and what the supervisor does with it."""
    drawing = Drawing(
        930, 628, "The monitor between cameras, operator, behaviour tree, recorder and supervisor"
    )
    drawing.text(20, 26, "blue: nodes and programs of this package; grey: yours", dim=True, size=12)
    drawing.box(_MONITOR, 40, _MONITOR_END - _MONITOR, 506, "ours", "monitor", "lifecycle node")
    _draw_inputs(drawing)
    _draw_listeners(drawing)
    _draw_supervisor(drawing)
    return drawing


def _draw_inputs(drawing: Drawing) -> None:
    edge, label, middle = _LEFT + _LEFT_WIDTH, 192, 282
    for y, title, what, topic, kind in (
        (50, "camera", "or video_player", "/camera/image_raw", "Image, CompressedImage"),
        (134, "operator", "", "task_instruction", "String"),
    ):
        drawing.box(_LEFT, y, _LEFT_WIDTH, 50, "yours", *filter(None, (title, what)))
        drawing.arrow((edge, y + 25), (_MONITOR, y + 25))
        drawing.text(label, y + 19, topic, mono=True)
        drawing.text(label, y + 41, kind, dim=True, size=12)
    drawing.box(_LEFT, 218, _LEFT_WIDTH, 112, "yours", "your programs")
    for y, name in ((236, "~/set_task"), (262, "~/reset"), (288, "~/enable"), (314, "~/get_progress")):
        drawing.arrow((edge, y), (_MONITOR, y), both=True)
        drawing.text(middle, y - 5, name, mono=True, anchor="middle")
    drawing.text(middle, 331, "services", dim=True, anchor="middle", size=12)
    drawing.box(_LEFT, 364, _LEFT_WIDTH, 50, "yours", "behaviour tree")
    drawing.arrow((edge, 389), (_MONITOR, 389), both=True)
    drawing.text(middle, 383, "~/monitor_task", mono=True, anchor="middle")
    drawing.text(middle, 405, "action", dim=True, anchor="middle", size=12)
    drawing.box(_LEFT, 448, _LEFT_WIDTH, 50, "yours", "config/monitor.yaml")
    drawing.arrow((edge, 473), (_MONITOR, 473))
    drawing.text(label, 467, "parameters", dim=True, size=12)


def _draw_listeners(drawing: Drawing) -> None:
    rows = (
        ("task_progress", "TaskProgress", "ours", "topreward watch", ""),
        ("task_reward", "TaskReward", "yours", "learner", ""),
        ("task_state", "TaskProgress, latched", "yours", "late subscriber", ""),
        ("monitor/progress, reward", "Float32", "yours", "plotting tools", ""),
        ("monitor/debug_image", "Image", "yours", "image viewers", ""),
        ("/diagnostics", "DiagnosticArray", "yours", "diagnostics tools", ""),
        ("monitor/info", "MonitorInfo, latched", "ours", "topreward record", "all topics, cameras"),
    )
    for number, (topic, kind, whose, who, what) in enumerate(rows):
        y = 50 + number * 55
        drawing.box(_RIGHT, y - 3, _RIGHT_WIDTH, 44, whose, *filter(None, (who, what)))
        drawing.arrow((_MONITOR_END, y + 19), (_RIGHT, y + 19))
        drawing.text(_MONITOR_END + 12, y + 13, topic, mono=True)
        drawing.text(_MONITOR_END + 12, y + 35, kind, dim=True, size=12)


def _draw_supervisor(drawing: Drawing) -> None:
    """Below all others, as its calls go on to the robot."""
    label = _MONITOR_END + 12
    drawing.box(_RIGHT, 436, _RIGHT_WIDTH, 110, "ours", "supervisor", "a rule per event")
    drawing.arrow((_MONITOR_END, 455), (_RIGHT, 455))
    drawing.text(label, 449, "task_event", mono=True)
    drawing.text(label, 471, "TaskEvent; and task_progress", dim=True, size=12)
    drawing.arrow((_RIGHT, 515), (_MONITOR_END, 515))
    drawing.text(label, 509, "~/set_task", mono=True)
    drawing.text(label, 531, "the next attempt", dim=True, size=12)
    drawing.box(_LEFT, 560, _LEFT_WIDTH, 50, "yours", "your robot", "policy, scene")
    x = _RIGHT + _RIGHT_WIDTH / 2
    drawing.arrow((x, 546), (x, 585), (_LEFT + _LEFT_WIDTH, 585))
    drawing.text(192, 579, "start_calls, end_calls, reset_calls, stop_calls", mono=True)
    drawing.text(
        192, 601, "services (Trigger) and topics (Bool, Empty, String) that you name", dim=True, size=12
    )


def tick() -> Drawing:
    """From the frames of a prefix to its score, with what is kept from tick to tick."""
    drawing = Drawing(900, 610, "One tick of the engine: frames, patches, features, passes, answers, score")
    x, width = 300, 300
    middle = x + width / 2
    side, side_width = 650, 230
    drawing.text(20, 34, "computed in every tick: what is new", bold=True)
    drawing.text(side, 34, "kept from tick to tick", bold=True)
    steps = (
        ("out", "frames", "the prefix: max_frames at most, newest last", "", "", ""),
        ("model", "patches", "two frames each, with their mean time", "EpisodeCache.begin_tick",
         "an odd last frame makes a", "patch with itself"),
        ("model", "features", "vision model, on patches that are new", "not_encoded, encode",
         "patches do not attend to one", "another, so they run as a batch"),
        ("model", "passes", "tokens of new patches and of all prompts", "EpisodeCache.prepare_passes",
         "prompts are a tree: what they", "share runs once, and none is kept"),
        ("model", "answers", "language model: log p(True), log p(False)", "Engine.answer",
         "all passes run as one; here is", "the one wait for the device"),
        ("out", "score", "mean over the prompts: r, with r_static", "Engine.read, end_tick",
         "dashed: only after a thinning,", "or where r_static is not known yet"),
    )  # fmt: skip
    tops = [56 + 92 * number for number in range(len(steps))]
    for top, (kind, title, what, function, *notes) in zip(tops, steps, strict=True):
        drawing.box(x, top, width, 58, kind, title, what)
        drawing.text(20, top + 14, function, mono=True)
        for number, note in enumerate(notes):
            drawing.text(20, top + 33 + number * _LINE, note, dim=True, size=12)
    for top in tops[:-1]:
        drawing.arrow((middle, top + 58), (middle, top + 92))
    for row, lines in (
        (1, ("KV cache after thinning", "filled between ticks, swapped in")),
        (2, ("features of the patches", "of this prefix; resized", "pixels of the newest patch")),
        (3, ("KV cache of the video", "rolled back, then extended")),
        (4, ("KV cache of the static video", "the first frame, repeated")),
        (5, ("static baseline", "r_static by instruction and times")),
    ):
        drawing.box(side, tops[row] - 6, side_width, 70, "kept", *lines)
        if row != 4:
            drawing.arrow((side, tops[row] + 29), (x + width, tops[row] + 29), both=True, dashed=row == 1)
    turn = x + width + 22
    drawing.arrow((side, tops[4] + 29), (turn, tops[4] + 29), (turn, tops[3] + 48), (x + width, tops[3] + 48),
                  both=True, dashed=True)  # fmt: skip
    return drawing


def main() -> None:
    """Write both from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where nodes.svg and tick.svg are written")
    folder: Path = parser.parse_args().folder
    for name, drawing in (("nodes", nodes()), ("tick", tick())):
        write_file(folder / f"{name}.svg", drawing.svg())


if __name__ == "__main__":
    main()
