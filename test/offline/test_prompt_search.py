"""The search: what is scored, when it ends, what a writer may do to it, and who judges."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from test.openai_server import Served, serving
from test.scorers import scorer_info
from test.videos import write_block
from topreward_ros.core.measures import Measure
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.prompt_scores import Sweep
from topreward_ros.offline.prompt_search import (
    PER_ROUND,
    Ranked,
    Recombiner,
    Round,
    Search,
    SearchError,
    WrittenBy,
    judged,
    search,
)
from topreward_ros.offline.prompt_sweep import read_all_templates
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerError, ScorerSettings, SequentialScorer
from topreward_ros.scoring.openai_api.writer import Writer
from topreward_ros.scoring.question.templates import PAPER, PAPERS, read_templates
from topreward_ros.scoring.question.wordings import wordings_in

PARAMETERS = monitor_defaults()
SETTINGS = ScorerSettings.from_parameters(PARAMETERS)
MONITOR = MonitorSettings.from_parameters(PARAMETERS)
WRITTEN = "Number {}: {{instruction}} is done. True or False? The answer is:"


class Likes(SequentialScorer):
    """Tells a success (a task whose name ends in +) from a failure the better, the more a question has of
    what it likes; notes which questions it was asked about which task."""

    def __init__(self, settings: ScorerSettings, asked: list[tuple[str, str]], likes: str) -> None:
        self.info = scorer_info("likes", revision="1")
        self._texts = read_templates(settings.prompts)
        self._asked, self._likes = asked, likes

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        self._asked += [(request.instruction, text) for text in self._texts]
        count = len(request.prefix)
        sign = 1 if count % 2 else -1  # without what it likes there is no order
        made = tuple((count if self._likes in text else sign * 0.1) / 100 - 9 for text in self._texts)
        return PrefixScore(
            -1.0, -1.0, num_frames=count, by_prompt=made, static_by_prompt=made[:1] * len(made)
        )

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_block(tmp_path_factory.mktemp("video") / "block.mp4", 96, 64)


@pytest.fixture
def asked() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def episodes(video: Path) -> Callable[[str], list[LabelledEpisode]]:
    def make(tasks: str) -> list[LabelledEpisode]:
        return [
            LabelledEpisode(
                f"{task}{outcome}", task, outcome, None, f"{task}{outcome}", partial(open_video, video), 3.0
            )
            for task in tasks
            for outcome in (True, False)
        ]

    return make


def how(asked: list[tuple[str, str]], **changes: object) -> Search:
    usual = Search(
        Sweep(
            (),
            PAPERS,
            SETTINGS,
            MONITOR,
            partial(Likes, asked=asked, likes="Answer True or False."),
            lambda _: None,
        ),
        Measure.VOC,
        candidates=40,
        proposers=[Recombiner(0)],
        ensembles=2,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_each_wording_is_scored_once_on_the_training_tasks_and_the_best_on_the_others(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]]
) -> None:
    rounds: list[Round] = []
    setting = how(asked, on_round=rounds.append)
    found = search(episodes("ab"), read_all_templates("", []), setting)
    assert [(it.number, it.new, it.known) for it in rounds] == [(1, 10, 10), (2, 16, 26), (3, 14, 40)]
    assert len(set(found.templates.texts)) == 40 and found.templates.texts[0] == PAPER
    assert len(asked) == 40 * 4 * 7 and {task for task, _ in asked} == {"a", "b"}  # 7 prefixes of 3 s
    # the best has what is liked, and those to come have it more often than chance has it
    best = found.templates.texts[found.best[0]]
    assert len(found.best) == 1 and "Answer True or False." in best and rounds[-1].best == best
    assert sum("Answer True or False." in text for text in found.templates.texts[26:]) > 14 / 6
    asked.clear()
    choice, judges, failures = judged(found, episodes("cd"), setting)
    assert {text for _, text in asked} == {PAPER, best} and {task for task, _ in asked} == {"c", "d"}
    assert choice.parts == ("c", "d") and len(judges) == 4 and not failures
    assert choice.best.members == found.best and choice.gain > 0.5
    # the same seed finds the same, another one other wordings
    texts = [
        search(episodes("ab"), read_all_templates("", []), how([], proposers=[Recombiner(s)])) for s in (0, 1)
    ]
    assert texts[0].templates == found.templates and texts[1].templates != found.templates


def test_a_later_run_goes_on_with_what_was_kept(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]], tmp_path: Path
) -> None:
    setting = how(asked, candidates=26)
    setting = replace(setting, sweep=replace(setting.sweep, kept=tmp_path))
    first = search(episodes("ab"), read_all_templates("", []), setting)
    asked.clear()
    more = search(
        episodes("ab"), read_all_templates("", []), replace(setting, proposers=[Recombiner(0)], candidates=40)
    )
    assert more.templates.texts[:26] == first.templates.texts
    assert {text for _, text in asked} == set(more.templates.texts[26:])


def test_no_round_begins_that_would_end_too_late(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]]
) -> None:
    times = iter(range(0, 1000, 10))  # each look at the clock, of which there are two a round, 10 s later
    setting = how(asked, seconds=45.0, clock=lambda: float(next(times)))
    assert len(search(episodes("ab"), read_all_templates("", []), setting).rounds) == 2
    assert len(search(episodes("ab"), read_all_templates("", []), how(asked, seconds=1e-9)).rounds) == 1


def test_an_episode_that_fails_is_left_out_and_named(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]], tmp_path: Path
) -> None:
    gone = replace(episodes("a")[0], name="gone", open=partial(open_video, tmp_path / "gone.mp4"))
    found = search([*episodes("ab"), gone], read_all_templates("", []), how(asked, candidates=11))
    assert len(found.scores) == len(found.used) == 4 and len(found.failures) == 1
    assert "gone.mp4" in found.failures[0]
    with pytest.raises(SearchError, match=r"no episode could be scored; the first problem: .*gone"):
        search([gone], read_all_templates("", []), how(asked))


def test_curves_that_tell_nothing_leave_the_default(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]]
) -> None:
    """All wordings are worth the same on constant curves: the default stays, and nothing is beyond noise."""

    class Constant(Likes):
        def score_one(self, request: ScoreRequest) -> PrefixScore:
            same = (-3.0,) * len(self._texts)
            return PrefixScore(-3.0, -3.0, num_frames=1, by_prompt=same, static_by_prompt=same)

    setting = how(asked, candidates=20, measure=Measure.BOTH)
    load = partial(Constant, asked=asked, likes="")
    setting = replace(setting, sweep=replace(setting.sweep, load=load))
    found = search(episodes("ab"), read_all_templates("", []), setting)
    choice, _, _ = judged(found, episodes("cd"), setting)
    assert choice.best.members == (0,) and choice.gain == 0.0 and choice.recommended == choice.default


def writer_of(text: str | Callable[[], str], problems: list[str]) -> WrittenBy:
    def write(ranked: Ranked, count: int, seconds: float) -> str:
        return text if isinstance(text, str) else text()

    return WrittenBy(write, "the writer", problems.append)


def test_a_writer_fills_its_share_and_its_wordings_are_scored(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]]
) -> None:
    problems: list[str] = []
    writer = writer_of("\n".join(WRITTEN.format(k) for k in range(99)), problems)
    found = search(
        episodes("ab"),
        read_all_templates("", []),
        how(asked, candidates=42, proposers=[writer, Recombiner(0)]),
    )
    assert {WRITTEN.format(k) for k in range(PER_ROUND)} < set(found.templates.texts)  # half of two rounds
    assert WRITTEN.format(PER_ROUND) not in found.templates.texts
    assert [it.new for it in found.rounds] == [10, PER_ROUND, PER_ROUND] and not problems
    assert {text for _, text in asked} == set(found.templates.texts)


def fails() -> str:
    raise ScorerError("the server is gone")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the writer wrote no new wording that can be asked"),
        ("I cannot help with that.", "wrote no new wording"),
        (f"<p>{WRITTEN.format(1)}</p>\n" * 9, "wrote no new wording"),
        ("x" * 100_000, "wrote no new wording"),
        (PAPER, "wrote no new wording"),
        (fails, "the server is gone"),
    ],
)
def test_a_writer_that_gives_nothing_is_asked_twice_and_no_more(
    text: str | Callable[[], str], said: str
) -> None:
    problems: list[str] = []
    writer = writer_of(text, problems)
    for _ in range(3):
        assert writer.propose([(PAPER, 0.5)], {PAPER: 0}, 8, 9.0) == []
    assert len(problems) == 2 and all(said in it for it in problems)
    assert problems[1].endswith("not asked again") and not problems[0].endswith("not asked again")


def test_a_writer_that_gives_nothing_is_done_without(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]]
) -> None:
    setting = how(asked, candidates=30, proposers=[writer_of(fails, []), Recombiner(0)])
    assert len(search(episodes("ab"), read_all_templates("", []), setting).templates.texts) == 30


def reply(content: object) -> Callable[..., None]:
    return lambda handler: handler.say({"choices": [{"message": {"content": content}}]})


def test_a_writer_is_told_the_best_and_its_text_comes_back() -> None:
    served = Served(lambda *_: {}, failure=reply("one\ntwo"))
    with serving(served):
        writer = Writer(served.url)
        assert writer.write([(PAPER, 0.75), (WRITTEN.format(1), 0.5)], 5) == "one\ntwo"
        assert f"writer 'm' at {served.url}" == writer.shown
        writer.close()
    (request,) = served.asked
    said = request["messages"][0]["content"]
    assert f"0.750  {PAPER}" in said and "5 new wordings" in said and "'The answer is:'" in said
    assert request["model"] == "m" and request["max_tokens"] > 0
    # a writer that repeats what it was told has written nothing new
    assert wordings_in(said, {PAPER: 0, WRITTEN.format(1): 1}, "The answer is:") == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(None), "answers without a text"),
        (reply(["x"]), "answers without a text"),
        (lambda handler: handler.say([]), "answers without a text"),
        (lambda handler: handler.say(b"<html>"), "no JSON"),
        (lambda handler: handler.say({"error": "no"}, 400), "answers 400"),
        (lambda handler: handler.say({"error": "no"}, 401), "check the key"),
        (lambda handler: handler.say(b"x" * (5 << 20)), "more than 4 MiB"),
    ],
)
def test_a_writer_that_does_not_write_is_an_error(answer: Callable[..., None], said: str) -> None:
    served = Served(lambda *_: {}, failure=answer)
    with serving(served):
        writer = Writer(served.url, timeout_s=30)
        with pytest.raises(ScorerError, match=said):
            writer.write([(PAPER, 0.5)], 5)
        writer.close()


def test_a_writer_has_the_rest_of_the_time_and_no_more(
    episodes: Callable[[str], list[LabelledEpisode]], asked: list[tuple[str, str]]
) -> None:
    """The round before took 10 s, so a writer may have 100 - 10 - 10; with more the search ends."""
    given: list[float] = []
    times = iter([0.0, 0.0, 10.0, 91.0])

    def write(ranked: Ranked, count: int, seconds: float) -> str:
        given.append(seconds)
        return WRITTEN.format(1)

    setting = how(
        asked,
        proposers=[WrittenBy(write, "the writer", [].append), Recombiner(0)],
        seconds=100.0,
        clock=lambda: next(times),
    )
    found = search(episodes("ab"), read_all_templates("", []), setting)
    assert given == [80.0] and len(found.rounds) == 1 and len(found.templates.texts) == 10
    assert WrittenBy(write, "the writer", [].append).propose([(PAPER, 0.5)], {}, 8, 0.5) == []  # not asked


def test_a_writer_that_does_not_answer_in_its_time_is_an_error() -> None:
    go = threading.Event()
    served = Served(lambda *_: {}, failure=lambda handler: go.wait(60))
    with serving(served):
        writer = Writer(served.url, timeout_s=50)
        with pytest.raises(ScorerError, match=r"has not answered within 0\.3 s"):
            writer.write([(PAPER, 0.5)], 5, 0.3)
        go.set()
        writer.close()


def test_a_writer_that_is_not_there_is_said_at_once() -> None:
    served = Served(lambda *_: {})
    with serving(served):
        pass
    with pytest.raises(ScorerError, match="cannot be reached"):
        Writer(served.url)
    with pytest.raises(ScorerError, match="lacks the path"):
        Writer("http://127.0.0.1:1")
