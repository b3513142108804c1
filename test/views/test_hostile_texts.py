"""Whatever a text from outside holds, what is shown of it is printable; JSON and XML stay what they are.

The fields are found by looking at the types, so that a new one is tried, too.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from test.hostile import TEXTS, check_lines, check_xml, variants
from topreward_ros.core.episode import IgnoredImages
from topreward_ros.core.errors import UserError
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import State
from topreward_ros.core.printable import make_libraries_printable
from topreward_ros.core.progress import PrefixScore
from topreward_ros.defaults import DEMO_CLIPS, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.score_video import Curve, CurveEvent, CurvePoint, outcomes_to_json
from topreward_ros.offline.video import Damage
from topreward_ros.scoring.base import ScorerInfo
from topreward_ros.views import terminal
from topreward_ros.views.curve_plot import plot_curve, plot_curves
from topreward_ros.views.debug_picture import ascii_text, debug_picture
from topreward_ros.views.demo import Take, summary, takes_table
from topreward_ros.views.messages import Description, Happening, Sample
from topreward_ros.views.watch import WatchLog, description_line, event_line, sample_line, view

pytest.importorskip("torch", reason="the views of models need it")

from topreward_ros.offline.models import CheckResult, ListedModel, ModelFacts, Presence
from topreward_ros.scoring.checkpoint.notes import ModelNotes
from topreward_ros.views.models import check_view, facts_view, model_table

SECOND = 10**9
INFO = ScorerInfo("m", "r", False, "cpu", "float32", "h", 1024, ("open it", "open that"))
SAMPLE = Sample(
    episode_id="e1", instruction="open it", state=State.RUNNING, stamp_ns=SECOND, progress=0.5, log_prob=-1.0,
    log_prob_false=-0.5, log_prob_static=-4.0, num_frames=2, elapsed_s=0.5, latency_s=0.1, message="why",
)  # fmt: skip
CURVE = Curve(
    video=str(shared_file(DEMO_VIDEO)),
    duration_s=0.5,
    instruction="open it",
    model=INFO,
    settings=MonitorSettings.from_parameters(monitor_defaults()),
    state=State.RUNNING,
    points=(
        CurvePoint(0.0, PrefixScore(log_prob=-2.0, log_prob_false=-0.5, num_frames=1), 0.0, 0.0, 1),
        CurvePoint(0.5, PrefixScore(log_prob=-1.0, log_prob_false=-0.5, num_frames=2), 0.5, 0.5, 2),
    ),
    events=(CurveEvent(0.5, "ABORTED", math.nan, "reset"),),
    ended_early=False,
    ignored=IgnoredImages(0, 1, 0),
    damaged=(Damage(0.1, 0.2, 1, "cut"),),
)
FACTS = ModelFacts(
    "m", Path("/m"), "r", 1, 10, 10, ("F16",), False, True, None, 1024, "h",
    ModelNotes(1024, "small", "ab", {"open it": ("open it", "open that")}), None, Path("/m/README.md"),
)  # fmt: skip

OURS = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # from any folder

every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


def drawn(picture: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=StringIO(), color_system=None, force_terminal=False)
    console.print(picture)
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    return said


def file_name(text: str) -> str:
    """What of ``text`` can be the name of a file."""
    return text.replace("/", "|").replace("\0", "").replace("\ud83d", "")[:80]


def log_of(sample: Sample = SAMPLE, *events: Happening, **about: Any) -> WatchLog:
    log = WatchLog("/task_progress", **about)
    log.add_progress(sample, 0.0)
    for event in events:
        log.add_event(event)
    return log


@every_text
def test_watch(text: str) -> None:
    happening = Happening("e1", SECOND, "SUCCESS", "held")
    for _, sample in variants(SAMPLE, text):
        check_lines(sample_line(sample), 1)
        assert debug_picture(np.zeros((240, 320, 3), np.uint8), [sample]).shape[1] == 320
        for height in (None, 12, 30):
            shown = drawn(view(log_of(sample), 1.0, 80, height))
            check_lines(shown)
            assert height is None or shown.count("\n") <= height
    for _, event in variants(happening, text):
        check_lines(event_line(log_of(), event), 1)
        check_lines(drawn(view(log_of(SAMPLE, event), 1.0, 80, 30)))
        check_lines(summary(Take(log_of(SAMPLE, event), 1, gave_up=False)), 1)
        ended = log_of(SAMPLE, event, Happening("e1", 0, "EPISODE_ENDED", text))
        check_lines(summary(Take(ended, 2, gave_up=False)), 2)
    assert ascii_text(text).isascii() and ascii_text(text).isprintable() and len(ascii_text(text)) <= 400
    for _, description in variants(Description("m", "cpu", "float32", True, ("/image",)), text):
        check_lines(description_line(description), 1)
        log = log_of()
        log.add_description(description)
        check_lines(drawn(view(log, 1.0, 80, 30)))
    for _, log in variants(log_of(title="t", waiting="w", caption="c", warnings=("w",), advice=("a",)), text):
        check_lines(drawn(view(log, 1.0, 80, 30)))
        check_lines(drawn(view(replace(log, newest=None), 1.0, 80, 30)))


@every_text
def test_tables(text: str, tmp_path: Path) -> None:
    for where, curve in variants(CURVE, text):
        if where == "settings.calibrations.source":  # it has no calibration, and so no file of one
            continue
        if not isinstance(curve.settings, MonitorSettings) or (curve.video != CURVE.video and "\0" in text):
            continue
        check_lines(drawn(terminal.curve_summary(curve)))
        check_lines(drawn(terminal.curves_table([CURVE, curve])))
        check_lines(drawn(check_view(CheckResult(curve.model, 1.0, 1.0, curve))))
        check_lines(terminal.damage_text(curve.damaged), 1)
        read = json.loads(curve.to_json())
        assert text in _texts(read) or curve.model.instructions != INFO.instructions, "JSON keeps what it was"
        check_lines(curve.to_json())
    read = json.loads(outcomes_to_json([text], [UserError(text)]))
    assert read["curves"][0] == {"video": text, "error": text}
    for _, facts in variants(FACTS, text):
        check_lines(drawn(facts_view(facts), 200))
        check_lines(drawn(facts_view(facts, wordings=True), 200))
        check_lines(drawn(facts_view(replace(facts, hash_matches=False)), 200))
    for _, model in variants(ListedModel("m", Presence.HERE, summary="small"), text):
        check_lines(drawn(model_table([model]), 200))
    for _, clip in variants(DEMO_CLIPS[0], text):
        check_lines(drawn(takes_table([Take(log_of(), 9, False, clip)]), 200))


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {text for item in value.values() for text in _texts(item)}
    if isinstance(value, list):
        return {text for item in value for text in _texts(item)}
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("name", ["C0", "no text", "surrogates", "markup", "lines"])
def test_plots_are_xml(name: str, tmp_path: Path) -> None:
    picture = tmp_path / "p.svg"
    text = TEXTS[name]
    curve = replace(CURVE, instruction=text, model=replace(INFO, model_id=text))
    curve = replace(curve, events=(CurveEvent(0.5, text, math.nan, text),))
    plot_curves([curve, replace(curve, video=text)], picture)
    check_xml(picture.read_bytes())
    folder = tmp_path / file_name(text)
    folder.mkdir()
    video = folder / f"{folder.name}.mp4"
    video.symlink_to(shared_file(DEMO_VIDEO))
    plot_curve(replace(curve, video=str(video)), picture)
    check_xml(picture.read_bytes())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, -1e-9, 1.5, 3.4e38, -3.4e38, 1.7e308])
@pytest.mark.parametrize("state", [State.RUNNING, 9, 255])
def test_numbers_that_cannot_be_are_shown_as_they_are(value: float, state: State | int) -> None:
    for name in ("progress", "log_prob", "log_prob_false", "log_prob_static"):
        sample = replace(SAMPLE, state=state, **{name: value})
        log = log_of(sample)
        said = [sample_line(sample), drawn(view(log, 1.0, 80)), drawn(view(log, 1.0, 40, 20))]
        for text in said:
            check_lines(text)
            assert ("RUNNING" if state is State.RUNNING else f"state {state}") in text
            assert all(len(line) <= 250 for line in text.splitlines())
        assert all(len(line) <= 80 for line in said[1].splitlines())
    assert ("inf" in sample_line(replace(SAMPLE, progress=value))) == math.isinf(value)


@pytest.mark.parametrize("stamp_ns", [-(2**31) * SECOND, 0, (2**31 - 1) * SECOND + 4_294_967_295])
@pytest.mark.parametrize("elapsed_s", [-(2.0**31), -1.0, 2.0**31])
def test_stamps_that_cannot_be(stamp_ns: int, elapsed_s: float) -> None:
    wild = replace(SAMPLE, stamp_ns=stamp_ns, elapsed_s=elapsed_s, latency_s=-elapsed_s, num_frames=2**32 - 1)
    log = log_of(SAMPLE, Happening("e1", stamp_ns, "event 77", "new"))
    log.add_progress(wild, 0.0)  # at the same time as the one before
    check_lines(drawn(view(log, 1.0, 80)))
    check_lines(event_line(log, log.events[0]), 1)
    assert "event 77" in event_line(log, log.events[0])


@pytest.mark.parametrize("name", ["lines", "surrogates"])
def test_what_libraries_log_and_warn_of(name: str) -> None:
    script = (
        "import logging, sys, warnings; from topreward_ros.core.printable import make_libraries_printable;"
        "make_libraries_printable(); text = sys.stdin.buffer.read().decode('utf-8', 'surrogatepass');"
        "logging.getLogger('x').warning('%s', text); warnings.warn(text, stacklevel=1)"
    )
    sent = TEXTS[name].encode("utf-8", "surrogatepass")
    done = subprocess.run(
        [sys.executable, "-c", script], input=sent, env=OURS, capture_output=True, check=True
    )
    check_lines(done.stderr.decode(), 2)


def test_a_traceback_begins_no_line_as_we_do_and_commands_no_terminal() -> None:
    script = (
        "import logging, sys; from topreward_ros.core.printable import make_libraries_printable;"
        "make_libraries_printable()\n"
        "try: raise ValueError(sys.stdin.buffer.read().decode())\n"
        "except ValueError: logging.getLogger('x').exception('unexpected')"
    )
    sent = (TEXTS["lines"] + TEXTS["escapes"]).encode()
    done = subprocess.run(
        [sys.executable, "-c", script], input=sent, env=OURS, capture_output=True, check=True
    )
    first, *rest = done.stderr.decode().split("\n")[:-1]
    assert first == "unexpected" and "Traceback" in rest[0] and "ValueError: ab" in "".join(rest)
    assert all(line.isprintable() and line.startswith("    ") for line in rest)


def test_the_command_line(tmp_path: Path) -> None:
    """File names and arguments: whatever is wrong with them is said on one line, or below the usage."""
    names = ("lines", "escapes", "direction", "surrogates")
    argument = os.fsencode("".join(file_name(TEXTS[name])[:30] for name in names))
    command = [sys.executable, "-m", "topreward_ros.cli"]
    for arguments in (
        [b"score", argument, b"--task", b"open it"],
        [b"score", os.fsencode(shared_file(DEMO_VIDEO)), b"--task", b"open it", b"--model", argument],
        [b"score", b"x.mp4", b"--task", b"open it", b"--set", argument],
        [b"score", b"x.mp4", b"--task", b"open it", b"--plot", argument],
        [b"models", b"info", argument],
        [b"models", b"list", argument],
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, cwd=tmp_path, env=OURS)
        assert done.returncode in (1, 2) and not done.stdout
        said = done.stderr.decode()
        check_lines(said)
        assert "Traceback" not in said and (done.returncode == 2 or said.count("\n") == 1), said


def test_the_factory_is_of_logging() -> None:
    before = logging.getLogRecordFactory()
    try:
        make_libraries_printable()
        assert logging.makeLogRecord({"msg": "a\nb"}).getMessage() == "a b"
    finally:
        logging.setLogRecordFactory(before)
