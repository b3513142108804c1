"""The page of a bag: whole in itself, as HTML says, and nothing in it that a bag could have put there."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import inf, nan

import pytest

from test.hostile import TEXTS, variants
from topreward_ros.offline.bag_episodes import BagContent, BagEpisode, BagEvent, Score, ShownFrame
from topreward_ros.views.report import report
from topreward_ros.views.terminal import RANDOM_WARNING

SECOND = 10**9
START = 1_700_000_000 * SECOND
VOID = {"meta", "img", "path", "line"}


def episode(*values: float) -> BagEpisode:
    """An episode at 2 Hz that ends with SUCCESS; with three images."""
    stamps = [START + k * SECOND // 2 for k in range(len(values))]
    return BagEpisode(
        name="e1", task="open it", state="SUCCEEDED", message="note", namespace="/arm", stage=1, stages=2,
        scores=[Score(stamp_ns=stamp, progress=value, log_prob=-1.0, log_prob_false=-0.5,
                      log_prob_static=-4.0, reward=0.1) for stamp, value in zip(stamps, values, strict=True)],
        events=[BagEvent(START, "EPISODE_STARTED", "begun"), BagEvent(stamps[-1], "SUCCESS", "held"),
                BagEvent(0, "ABORTED", "before any frame")],
        start_ns=START, end_ns=stamps[-1],
        frames={"/image": [ShownFrame(START + k * SECOND // 2, b"jpeg %d" % k) for k in range(3)]},
    )  # fmt: skip


def content(*episodes: BagEpisode) -> BagContent:
    return BagContent(
        name="run", duration_s=2.0, messages=9, episodes=list(episodes or (episode(0.0, 0.5, 1.0),)),
        cameras=("/image",), about={"outcome": "success"}, model="m (r), cpu", notes=["a note"],
    )  # fmt: skip


class Page(HTMLParser):
    """Elements of a page, and their text; fails where they are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif self._open and self._open[-1] != "style":
            self.said.append(data)

    def all(self, tag: str, **having: str) -> list[dict[str, str]]:
        return [
            found for name, found in self.elements
            if name == tag and all(found.get(key.rstrip("_")) == value for key, value in having.items())
        ]  # fmt: skip


def test_it_needs_nothing_beside_itself() -> None:
    page = Page(report(content()))
    for _, attributes in page.elements:
        assert not {"href", "srcset", "action", "data", "poster"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    (script,) = page.scripts
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy["content"], "our script may run, and no other"


def test_images_curves_and_events_are_there() -> None:
    page = Page(report(content()))
    shown = [base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")]
    assert shown == [b"jpeg 2", b"jpeg 0", b"jpeg 1", b"jpeg 2"], "the last, large, and all in a strip"
    assert [image["data-time"] for image in page.all("img") if "data-time" in image] == [
        "0.000",
        "0.500",
        "1.000",
    ]
    assert len(page.all("svg")) == 3
    curve = page.all("path", stroke="#1769aa")[0]["d"]
    assert re.findall(r"[\d.]+ [\d.]+", curve) == ["56.0 172.0", "344.0 96.0", "632.0 20.0"]
    text = " ".join(page.said)
    for said in ("run", "open it", "held", "before any frame", "a note", "success", "in /arm",
                 "stage 1 of 2", "progress 1.00 at the end", "3 images shown, of 1 camera"):  # fmt: skip
        assert said in text, said
    assert RANDOM_WARNING not in text
    assert RANDOM_WARNING in " ".join(Page(report(replace(content(), random_weights=True))).said)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_a_bag_says_is_text_and_stays_text(text: str) -> None:
    plain = Page(report(content()))
    kept = [(tag, sorted(attributes)) for tag, attributes in plain.elements]
    whole = content()
    (one,) = whole.episodes
    changed = [replace(whole, episodes=[value]) for where, value in variants(one, text) if "key" not in where]
    changed += [replace(whole, episodes=[replace(one, events=[value])])
                for _, value in variants(one.events[1], text)]  # fmt: skip
    changed += [
        value for where, value in variants(whole, text) if not where.startswith(("cameras", "episodes"))
    ]
    changed += [replace(whole, notes=[text]), replace(whole, cameras=(text,), episodes=[
        replace(one, frames={text: one.frames["/image"]})])]  # fmt: skip
    for value in changed:
        said = report(value)
        assert len(said) < 50_000
        page = Page(said)
        assert page.scripts == plain.scripts and len(page.all("script")) == 1
        if len(value.episodes[0].events) == 3:
            assert [(tag, sorted(attributes)) for tag, attributes in page.elements] == kept
        assert all(part.isprintable() for line in page.said for part in line.split("\n"))


@pytest.mark.parametrize("value", [nan, inf, -inf, 3.4e38, -3.4e38, 1.7e308])
def test_numbers_that_cannot_be_break_no_curve(value: float) -> None:
    one = episode(0.0, 0.5, 1.0)
    for name in ("progress", "log_prob", "reward"):
        for scores in ([replace(score, **{name: value}) for score in one.scores],
                       [*one.scores[:2], replace(one.scores[2], **{name: value})]):  # fmt: skip
            page = Page(report(content(replace(one, scores=scores))))
            numbers = " ".join(path["d"] for path in page.all("path"))
            assert "nan" not in numbers and "inf" not in numbers
            assert all(0.0 <= float(it) <= 640.0 for it in re.findall(r"-?\d+\.?\d*", numbers))


def test_without_scores_events_or_images() -> None:
    bare = BagEpisode(name="e", task="")
    text = " ".join(Page(report(content(bare))).said)
    assert "without a task" in text and "No scores of this episode" in text and "No events" in text
    nowhere = " ".join(Page(report(content(BagEpisode()))).said)
    assert "The whole bag" in nowhere and "No scores" not in nowhere


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    long = episode(*(k / 10_000 for k in range(10_001)))
    page = Page(report(content(long)))
    points = re.findall(r"[\d.]+ [\d.]+", page.all("path", stroke="#1769aa")[0]["d"])
    assert 900 < len(points) <= 1002 and points[-1] == "632.0 20.0"


@pytest.mark.parametrize(
    ("state", "events", "badge"),
    [
        ("IDLE", ["EPISODE_STARTED", "REGRESSION", "ABORTED", "EPISODE_ENDED"], "ABORTED"),
        ("IDLE", ["SUCCESS", "ABORTED", "EPISODE_ENDED"], "SUCCESS"),
        ("FAILED", ["TIMEOUT", "EPISODE_ENDED"], "TIMEOUT"),
        ("IDLE", ["EPISODE_ENDED"], "ENDED"),
        ("RUNNING", ["EPISODE_STARTED", "event 77"], "RUNNING, no end in the bag"),
    ],
)
def test_the_badge_says_how_the_episode_ended(state: str, events: list[str], badge: str) -> None:
    made = episode(0.0, 0.5)
    made.state, made.events = state, [BagEvent(START, kind, "") for kind in events]
    html = report(content(made))
    heading = html[html.index("<h2>") : html.index("</h2>")]
    assert heading.endswith(f">{badge}</span>")


def test_axes_have_round_numbers_and_images_their_times() -> None:
    made = episode(0.0, 0.5, 1.0)
    made.scores = [
        replace(score, reward=value) for score, value in zip(made.scores, (-3.6e-5, 0.0, 0.024), strict=True)
    ]
    page = Page(report(content(made)))
    assert {"0.00 s", "0.50 s", "1.00 s"} <= set(page.said), "below the images of the strip"
    numbers = [text for text in page.said if re.fullmatch(r"-?[\d.]+", text)]
    assert numbers == ["0.0", "0.5", "1.0", "-4", "-2", "0.00", "0.02"]
