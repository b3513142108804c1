"""Small charts as SVG: what stands along their axes."""

from __future__ import annotations

import re

from topreward_ros.views.svg_charts import Axis, Line, chart


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_axes_have_round_numbers_and_both_names() -> None:
    said = texts(chart(Axis(0.0, 11.1, "time [s]"), Axis(-0.25, 1.2, "delay [s]")))
    assert said == ["0.0", "0.5", "1.0", "0", "2", "4", "6", "8", "10", "time [s]", "delay [s]"]


def test_numbers_that_are_given_stand_alone_and_within() -> None:
    ticks = [(-9.0, "far"), (0.0, "-0.7"), (2.0, "-0.1")]
    said = texts(chart(Axis(-5.0, 5.0, "score [nat]", ticks), Axis(0.0, 1.0, "share", [])))
    assert said == ["-0.7", "-0.1", "score [nat]", "share"]


def test_a_line_has_its_label_inside_the_chart() -> None:
    for x, y in ((0.0, 1.0), (1.0, 0.0)):
        svg = chart(
            Axis(0.0, 1.0, "x"), Axis(0.0, 1.0, "y"), [Line([(0.5, 0.5), (x, y)], "red", label="<here>")]
        )
        found = re.search(
            r'<text class="label" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">&lt;here&gt;<', svg
        )
        assert found is not None
        assert 0 < float(found[1]) < 360 and 20 < float(found[2]) < 190
        assert found[3] == ("end" if x else "start")
