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


def nodes() -> Drawing:
    """What a monitor listens to, and who listens to it."""
    drawing = Drawing(930, 452, "The monitor between cameras, operator, supervisor and learner")
    left, right = (20, 160), (755, 155)  # x and width of the columns
    monitor_x, monitor_end = 385, 525
    drawing.box(monitor_x, 40, monitor_end - monitor_x, 392, "ours", "monitor", "lifecycle node")
    for y, height, title, what, topic, kind in (
        (50, 50, "camera", "or video_player", "/camera/image_raw", "Image, CompressedImage"),
        (150, 50, "operator", "", "task_instruction", "String"),
    ):
        drawing.box(left[0], y, left[1], height, "yours", *filter(None, (title, what)))
        middle = y + height / 2
        drawing.arrow((left[0] + left[1], middle), (monitor_x, middle))
        drawing.text(192, middle - 6, topic, mono=True)
        drawing.text(192, middle + 16, kind, dim=True, size=12)
    drawing.box(left[0], 240, left[1], 112, "yours", "your programs", "operator, supervisor")
    for y, name in ((258, "~/set_task"), (284, "~/reset"), (310, "~/enable"), (336, "~/get_progress")):
        drawing.arrow((left[0] + left[1], y), (monitor_x, y), both=True)
        drawing.text(282, y - 5, name, mono=True, anchor="middle")
    drawing.text(282, 354, "services", dim=True, anchor="middle", size=12)
    drawing.box(left[0], 382, left[1], 40, "yours", "config/monitor.yaml")
    drawing.arrow((left[0] + left[1], 402), (monitor_x, 402))
    drawing.text(192, 396, "parameters", dim=True, size=12)
    rows = (
        ("task_progress", "TaskProgress", "topreward watch", "ours"),
        ("task_reward", "TaskReward", "learner", "yours"),
        ("task_event", "TaskEvent", "supervisor", "yours"),
        ("task_state", "TaskProgress, latched", "late subscriber", "yours"),
        ("monitor/info", "MonitorInfo, latched", "bag", "yours"),
        ("monitor/progress, reward", "Float32", "plotting tools", "yours"),
        ("/diagnostics", "DiagnosticArray", "diagnostics tools", "yours"),
    )
    for number, (topic, kind, who, whose) in enumerate(rows):
        y = 50 + number * 55
        drawing.box(right[0], y, right[1], 38, whose, who)
        drawing.arrow((monitor_end, y + 19), (right[0], y + 19))
        drawing.text(monitor_end + 12, y + 13, topic, mono=True)
        drawing.text(monitor_end + 12, y + 35, kind, dim=True, size=12)
    return drawing


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
