"""A scorer that another package brings: found by its entry point, never trusted, and as good as any other."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from test.bags import video_frames
from test.plugins import install_plugin
from topreward_ros.core.frames import NS_PER_S, Frame
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import DEMO_CLIPS, DEMO_TASK, monitor_defaults, shared_file
from topreward_ros.offline.models import Presence, check_model, list_models
from topreward_ros.offline.score_video import score_video
from topreward_ros.scoring.base import LinkError, ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint
from topreward_ros.scoring.registry import about_model, load_scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "scorer_plugin"
SETTINGS = ScorerSettings.from_parameters(monitor_defaults())

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package whose plug-in has this body of `score_one`; gives the name of the model."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(*body: str, **how: str) -> str:
        monkeypatch.delitem(sys.modules, "plugin_of_a_test_mine", raising=False)
        return install_plugin(tmp_path, *body, **how)

    return installed


def request(frames: int = 3) -> ScoreRequest:
    image = np.full((32, 32, 3), 128, np.uint8)
    return ScoreRequest.of_frames("lift", [Frame(k * NS_PER_S, image.copy()) for k in range(frames)])


def test_what_it_says_comes_through(install: Install) -> None:
    name = install("return PrefixScore(np.float32(-1.0), -0.5, log_prob_static=np.array(-4.0))")
    scorer = load_scorer(f"{name}:weights.npz", SETTINGS)
    score = scorer.score(request())
    assert (score.log_prob, score.log_prob_false, score.log_prob_static) == (-1.0, -0.5, -4.0)
    assert score.num_frames == 3 and type(score.log_prob) is float
    digest = hashlib.sha256(b"weights.npz").hexdigest()[:8]
    assert (
        scorer.info.model_id == "plugin:mine:weights.npz"
        and scorer.info.revision == f"mine of mine 1.5, argument {digest}, weights-1"
    )
    assert scorer._plugin.argument == "weights.npz"
    assert about_model(name, SETTINGS).revision == "mine of mine 1.5, weights-1"
    assert "plugin:mine" in [model.name for model in list_models()]


def test_stated_progress_needs_no_log_probability(install: Install) -> None:
    name = install("return PrefixScore(nan, nan, stated_progress=0.5, success_probability=0.25)")
    score = load_scorer(name, SETTINGS).score(request())
    assert (score.stated_progress, score.success_probability) == (0.5, 0.25)
    assert score.note == "the model states progress itself, and has no log p"


# After the trial at its loading, which two frames pass, so that it is the monitor that meets the fault.
LATER = "if len(request.prefix) == 2: return PrefixScore(-1.0, -0.5)\n"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ZeroDivisionError('by\\x1b[31m nought')", "ZeroDivisionError: by"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import asyncio; raise asyncio.CancelledError('lost')", "CancelledError: lost"),
        ("raise GeneratorExit('odd')", "GeneratorExit: odd"),
        ("return PrefixScore(-(10**400), -1.0)", "for log_prob, which is a number"),
        ("return PrefixScore(-1.0, inf)", "the scorer gave inf for a log-probability"),
        ("return PrefixScore(-1.0, -1.0, log_prob_static=5.0)", "gave 5.0 for a log-probability"),
        ("return PrefixScore(-1.0, -1.0, log_prob_std=-1.0)", "gave -1.0 for a standard deviation"),
        ("return PrefixScore('-1.5', -1.0)", "gave '-1.5' for log_prob"),
        ("return PrefixScore(-1.0, -1.0, num_frames=0.5)", "gave num_frames 0.5"),
        ("return PrefixScore(-1.0, -1.0, num_frames=np.zeros(2))", "for num_frames, which is a number"),
        ("raise ScorerError('too dark')", "failed: too dark"),
        ("return -1.0", "gave a float where a PrefixScore is asked for"),
        ("return PrefixScore(nan, nan)", "the scorer gave nan for a log-probability"),
        ("return PrefixScore(0.5, -1.0)", "the scorer gave 0.5 for a log-probability"),
        ("return PrefixScore(-inf, -1.0)", "the scorer gave -inf for a log-probability"),
        ("return PrefixScore(nan, nan, stated_progress=1.5)", "gave 1.5 for stated_progress"),
        ("return PrefixScore(np.zeros(4), -1.0)", "for log_prob, which is a number"),
        ("return PrefixScore('high', -1.0)", "gave 'high' for log_prob, which is a number"),
        ("return PrefixScore(-1.0, -1.0, num_frames=99)", "gave num_frames 99 for a prefix of 3 frames"),
        ("request.prefix[-1].image[:] = 0", "read-only"),
    ],
)
def test_what_is_wrong_is_a_sentence_that_names_it(install: Install, body: str, problem: str) -> None:
    scorer = load_scorer(install(LATER + body), SETTINGS)
    with pytest.raises(ScorerError, match=r"plug-in 'mine' of mine 1\.5") as raised:
        scorer.score(request())
    assert problem in str(raised.value) and "\x1b" not in str(raised.value)
    assert scorer.score(request(2)).log_prob == -1.0, "it lives on"


def test_what_no_score_hangs_on_may_fail(install: Install) -> None:
    broken = "".join(
        f"def {name}(self, *_):\n    raise OSError('{name}')\n"
        for name in ("memory_bytes", "forget", "episodes_at_once", "close")
    )
    scorer = load_scorer(install(methods=broken), SETTINGS)
    assert scorer.memory_bytes() > 0 and scorer.episodes_at_once() == 1
    scorer.forget()
    scorer.close()


def test_what_it_prints_is_not_in_the_results(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    name = install("print('hello'); return PrefixScore(-1.0, -0.5)", head="print('imported')\n")
    load_scorer(name, SETTINGS).score(request())
    said = capsys.readouterr()
    assert said.out == "" and "imported" in said.err and "hello" in said.err


# What a plug-in may write into what it is given, in any of the ways that Python has.
_SPOILS = """
for frame in request.prefix:
    for name, value in (("stamp_ns", 0), ("image", None), ("frame_id", "x"), ("widths", (1,))):
        object.__setattr__(frame, name, value)
for name, value in (("instruction", "x"), ("prefix", ()), ("episode_id", "x"), ("extra", True)):
    object.__setattr__(request, name, value)
request.buffer.append(request.buffer.prefix()[0])
request.buffer._pairs.clear()
object.__setattr__(self.info, "model_id", "x")
return PrefixScore(-1.0, -0.5)
"""
_SPOILS_LISTS = """
def score_all(self, requests, kept=()):
    scores = super().score_all(requests, kept)
    requests.clear()
    kept.clear()
    return scores

def ahead(self, request):
    self.score_one(request)
    yield
"""


def test_what_it_writes_into_what_it_is_given_reaches_nobody(install: Install) -> None:
    settings = replace(SETTINGS)
    init = "object.__setattr__(settings, 'max_frames', 0)"
    scorer = load_scorer(install(_SPOILS, methods=_SPOILS_LISTS, init=init), settings)
    asked, other = request(), request()
    known = (asked.prefix, asked.buffer.prefix(), asked.instruction, asked.episode_id, asked.extra)
    frames = [(it.stamp_ns, it.image, it.frame_id, it.widths) for it in asked.prefix]
    requests, kept = [asked], [other.prefix[0]]
    assert len(scorer.score_all(requests, kept)) == 1
    assert [*scorer.ahead(asked)] == [None]
    assert (requests, kept) == ([asked], [other.prefix[0]]) and kept[0].stamp_ns == 0
    assert known == (asked.prefix, asked.buffer.prefix(), asked.instruction, asked.episode_id, asked.extra)
    assert frames == [(it.stamp_ns, it.image, it.frame_id, it.widths) for it in asked.prefix]
    assert scorer.info.model_id == "plugin:mine" and settings == SETTINGS


def test_a_frame_that_comes_again_is_the_same_object_to_it(install: Install) -> None:
    """Scorers know frames, and the episodes that they begin, by identity; pixels are not copied."""
    methods = """
    seen = []
    def score_all(self, requests, kept=()):
        self.seen.append([[*it.prefix] for it in requests] + [[*kept]])
        return super().score_all(requests, kept)
    """
    scorer = load_scorer(install(methods=methods), SETTINGS)
    one, other = request(4), request(3)
    shorter = ScoreRequest.of_frames("lift", one.prefix[:3])
    scorer.score_all([shorter, other])
    scorer.score_all([one], [other.prefix[0]])
    scorer.score_all([other, one])
    (first, second), (longer, (start,)), (again, once_more) = [
        [frames for frames in call if frames] for call in scorer._plugin.seen[1:]
    ]
    assert longer[:3] == first and start is second[0] and again == second and once_more == longer
    assert all(np.shares_memory(ours.image, its.image) for ours, its in zip(one.prefix, longer, strict=True))


def test_one_episode_that_fails_harms_no_other(install: Install) -> None:
    scorer = load_scorer(install("return PrefixScore(-1.0 / (len(request.prefix) - 1), -1.0)"), SETTINGS)
    first, second = scorer.score_all([request(1), request(3)])
    assert isinstance(first, ScorerError) and not isinstance(second, ScorerError)


def test_a_link_that_is_down_is_tried_again_soon(install: Install) -> None:
    scorer = load_scorer(install(LATER + "raise LinkError('no server')"), SETTINGS)
    with pytest.raises(LinkError, match="no server"):
        scorer.score(request())


@pytest.mark.parametrize("given", ["[]", "None", "[PrefixScore(-1.0, -1.0)] * 2"])
def test_another_number_of_scores_than_was_asked_for(install: Install, given: str) -> None:
    methods = f"def score_all(self, requests, kept=()):\n    return {given}"
    with pytest.raises(ScorerError, match="for 1 prefixes, not a list of as many"):
        load_scorer(install(methods=methods), SETTINGS)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"head": "import no_such_library\n"}, "cannot be imported .ModuleNotFoundError"),
        ({"head": "raise SystemExit('no licence')\n"}, "cannot be imported .SystemExit: no licence"),
        ({"target": "plugin_of_a_test_mine:nan"}, "is no subclass of topreward_ros.scoring.plugins.Scorer"),
        ({"target": "plugin_of_a_test_mine:ScorerPlugin"}, "abstract class"),
        ({"init": "raise ScorerError('no such file')"}, "cannot be loaded: no such file"),
        ({"init": "raise RuntimeError('no GPU')"}, "cannot be loaded .RuntimeError: no GPU"),
        ({"revision": " "}, "has no revision: let it say which weights it has"),
        ({"methods": "instructions = 'lift'"}, "its instructions must be a tuple of at most"),
        ({"methods": "instructions = None"}, "its instructions must be a tuple of at most"),
        ({"methods": "max_pixels = None"}, r"plug-in 'mine' of mine 1\.5 says wrongly what it is"),
        ({"methods": "max_pixels = 10**30"}, "its max_pixels 1e.30"),
        ({"methods": "device = 'cuda:7; rm'"}, "its device is 'cuda:7; rm'"),
        ({"methods": "info = property(lambda self: None)"}, "takes no `info`"),
        ({"body": "return PrefixScore(nan, nan)"}, "fails in a trial with two small frames: plug-in 'mine'"),
        ({"body": "return -1.0"}, "a trial with two small .* gave a float where a PrefixScore is asked for"),
        ({"body": "return PrefixScore(nan, nan, note='dark')"}, "nor progress in a trial .dark.: see to tha"),
        ({"body": "return PrefixScore(-2000.0, -1.0)"}, "goes below -1000: see to that package"),
    ],
)
def test_what_cannot_be_loaded_is_said(install: Install, how: dict[str, str], problem: str) -> None:
    with pytest.raises(ScorerError, match=problem) as raised:
        load_scorer(install(**how), SETTINGS)
    for untrue in ("dtype float32", "checkpoint", "weights are damaged"):  # advice for other models
        assert untrue not in str(raised.value)


@pytest.mark.parametrize(
    "how",
    [
        {"head": "int('x')  # here\n"},
        {"init": "int('x')  # here"},
        {"body": "int('x')  # here"},
        {"body": "import json; json.loads('{')  # here"},
        {"methods": "def score_all(self, requests, kept=()):\n    int('x')  # here"},
        {"methods": "def keep(self, starts):\n    int('x')  # here"},
        {"methods": "device = property(lambda self: int('x'))  # here"},
    ],
)
def test_an_error_tells_where_in_its_code_it_was(
    install: Install, tmp_path: Path, how: dict[str, str]
) -> None:
    name = install(**how)
    source = tmp_path / "plugin_of_a_test_mine.py"
    (line,) = [k for k, text in enumerate(source.read_text().splitlines(), 1) if "# here" in text]
    with pytest.raises(ScorerError) as raised:
        load_scorer(name, SETTINGS)
    place = str(source) if len(str(source)) <= 200 else str(source)[-197:]
    assert f"{place}, line {line}" in str(raised.value)


def test_an_error_with_a_long_text_still_tells_where_it_was(install: Install) -> None:
    kind = "type('\\x1b[2J' + 'k' * 5000, (Exception,), {})"
    with pytest.raises(ScorerError, match=r"plugin_of_a_test_mine\.py, line") as raised:
        load_scorer(install(f"raise {kind}('long ' * 5000)"), SETTINGS)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 2000


def test_a_name_that_nobody_has_or_two_packages_have(install: Install) -> None:
    with pytest.raises(ScorerError, match=r"has a plug-in 'other': there are .*plugin:mine"):
        load_scorer(install().replace("mine", "other"), SETTINGS)
    (name,) = {install(package="mine"), install(package="yours", target="plugin_of_a_test_mine:Other")}
    with pytest.raises(ScorerError, match=r"is in mine 1\.5 and yours 1\.5: uninstall all but one"):
        load_scorer(name, SETTINGS)


@pytest.mark.parametrize("name", ["embedded", "my scorer", "-x"])
def test_a_name_that_is_taken_or_cannot_be_written_is_objected_to(install: Install, name: str) -> None:
    install(name=name)
    with pytest.raises(ScorerError, match="has a name that is taken, or cannot be written: let the entry"):
        load_scorer(f"plugin:{name}", SETTINGS)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mine", "there is a plug-in: write plugin:mine. Use"),
        ("mine:weights.npz", "there is a plug-in: write plugin:mine:weights.npz. Use"),
        ("Plugin:mine", r"did you mean plugin:mine\? Use"),
        ("embeded", r"did you mean embedded\? Use"),
        ("roboreward", "it is a question: set prompts to roboreward, and name the model"),
        ("xyzzy", "no such folder. Use 'embedded', .* or a plug-in .installed: .*plugin:mine"),
    ],
)
def test_a_name_without_a_folder_is_told_what_it_may_be(install: Install, model: str, said: str) -> None:
    install()
    with pytest.raises(ScorerError, match=said):
        load_scorer(model, SETTINGS)


def test_a_plugin_that_cannot_be_imported_is_listed_as_broken(install: Install) -> None:
    install(head="import no_such_library\n")
    (listed,) = [model for model in list_models() if model.name == "plugin:mine"]
    assert listed.presence is Presence.BROKEN and "ModuleNotFoundError" in listed.summary


def test_where_a_checkpoint_is_needed_a_plugin_is_refused(install: Install) -> None:
    with pytest.raises(ScorerError, match="is a plug-in, and this needs a checkpoint"):
        open_checkpoint(install())


def test_the_example_works_as_it_is_shipped(tmp_path: Path) -> None:
    """It is installed by pip, fitted by its own command, checked, and judges the shipped videos."""
    place = tmp_path / "site"
    source = shutil.copytree(EXAMPLE, tmp_path / "scorer_plugin")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", place, source], check=True, timeout=300)
    sys.path.insert(0, str(place))
    try:
        import newest_frame

        videos = {clip.succeeds: clip.video for clip in DEMO_CLIPS[:2]}
        good, bad = ([video_frames(videos[kind])[at][1] for at in (-5, -1)] for kind in (True, False))
        thumbnails = np.stack([newest_frame.thumbnail(image) for image in (*good, *bad)])
        weights, bias = newest_frame.fit(thumbnails, np.array([1.0, 1.0, 0.0, 0.0]), steps=3000)
        np.savez(tmp_path / "weights.npz", weights=weights, bias=bias)
        name = f"plugin:newest_frame:{tmp_path / 'weights.npz'}"
        assert check_model(name).info.revision.startswith(
            "newest_frame of newest-frame-scorer 0.1.0, argument "
        )
        settings = replace(MonitorSettings.from_parameters(monitor_defaults()), end_episode_on_success=False)
        scorer = load_scorer(name, SETTINGS)
        ends = {
            kind: score_video(shared_file(video), DEMO_TASK, scorer, settings).points[-1].progress
            for kind, video in videos.items()
        }
        assert ends[True] > 0.5 > ends[False]
        with pytest.raises(ScorerError, match="holds no weights of newest_frame"):
            load_scorer(f"plugin:newest_frame:{tmp_path / 'none.npz'}", SETTINGS)
    finally:
        sys.path.remove(str(place))
        sys.modules.pop("newest_frame", None)
