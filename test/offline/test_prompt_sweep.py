"""Every template has its scores in its place, whatever is scored together and what an earlier run left."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from test.scorers import scorer_info
from test.videos import write_block
from topreward_ros.core.errors import UserError
from topreward_ros.core.measures import Measure
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.prompt_choice import candidates, choose
from topreward_ros.core.prompt_worth import PromptScores
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.kept_json import kept_text
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.prompt_scores import Sweep, batches, score_episodes
from topreward_ros.offline.prompt_sweep import Templates, prompts_file, read_all_templates, usable
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerError, ScorerSettings, SequentialScorer
from topreward_ros.scoring.question.templates import PAPER, file_of, read_question, read_templates

PARAMETERS = monitor_defaults()
SETTINGS = ScorerSettings.from_parameters(PARAMETERS)
MONITOR = MonitorSettings.from_parameters(PARAMETERS)


class Lengths(SequentialScorer):
    """Scores a prefix by its frames and each template by the number of its letters."""

    def __init__(self, settings: ScorerSettings, loaded: list[int]) -> None:
        self.info = scorer_info("lengths", revision="1")
        self._lengths = [len(text) for text in read_templates(settings.prompts)]
        self._static = settings.static_baseline
        loaded.append(len(self._lengths))

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        count = len(request.prefix)
        made = tuple(-length / count for length in self._lengths)
        static = tuple(float(-length) for length in self._lengths) if self._static else ()
        return PrefixScore(-1.0, -1.0, -1.0, num_frames=count, by_prompt=made, static_by_prompt=static)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_block(tmp_path_factory.mktemp("video") / "block.mp4", 96, 64)


def labelled(video: Path, name: str = "run", task: str = "push it", **more: object) -> LabelledEpisode:
    usual = {"succeeded": True, "done_s": None, "identity": name, "duration_s": 3.0} | more
    return LabelledEpisode(name, task, open=partial(open_video, video), **usual)  # type: ignore[arg-type]


def sweep_of(templates: Templates, loaded: list[int], counted: list[int], kept: Path | None = None) -> Sweep:
    return Sweep(
        templates.texts,
        templates.question,
        SETTINGS,
        MONITOR,
        partial(Lengths, loaded=loaded),
        counted.append,
        kept,
    )


def write_templates(path: Path, *texts: str) -> str:
    path.write_text("".join(f"{text}\n" for text in texts))
    return str(path)


def test_the_default_the_shipped_ones_and_those_of_files_are_each_there_once(tmp_path: Path) -> None:
    ten = read_templates("ten_prompts.txt")
    mine = write_templates(tmp_path / "mine.txt", ten[4], "Did it: {instruction}? The answer is:")
    templates = read_all_templates("", [mine, mine])
    assert templates.texts == (*ten, "Did it: {instruction}? The answer is:") and ten[0] == PAPER
    assert templates.default == (0,)
    assert templates.files == {"ten_prompts.txt": tuple(range(10)), mine: (4, 10)}
    names = [templates.name_of(members) for members in ((0,), (4, 10), (4,), (1, 2), tuple(range(10)))]
    assert names == ["default", "mine.txt", "5", "2 + 3", "ten_prompts.txt"]
    assert read_all_templates(mine, []).default == (0, 1)


def test_templates_that_end_otherwise_or_are_many_are_scored_apart_and_put_in_order(
    tmp_path: Path, video: Path
) -> None:
    many = write_templates(
        tmp_path / "many.txt", *(f"{k * 'x'} {{instruction}}? The answer is:" for k in range(60))
    )
    other = write_templates(tmp_path / "other.txt", "Done: {instruction}? Say:", "{instruction}. Say:")
    templates = read_all_templates("", [other, many])
    assert [len(batch) for batch in batches(templates.texts, templates.question)] == [64, 6, 2]
    assert templates.kinds[9:13] == ("The answer is:", "Say:", "Say:", "The answer is:")
    loaded: list[int] = []
    counted: list[int] = []
    (scores,), info = score_episodes([labelled(video)], sweep_of(templates, loaded, counted))
    assert loaded == [64, 6, 2] and info.model_id == "lengths"
    assert isinstance(scores, PromptScores) and scores.task == "push it" and scores.succeeded
    lengths = np.array([len(text) for text in templates.texts])
    frames = np.arange(1, 8)  # 3 s at 2 Hz
    assert np.allclose(scores.log_probs, -lengths / frames[:, None])
    assert np.allclose(scores.static, np.tile(-lengths, (7, 1)))
    assert sum(counted) == 3 * 7
    found, _ = candidates(templates.default, [], templates.kinds, largest=2)
    assert (9, 10) not in found and (10, 11) in found and (9, 12) in found


def test_what_was_scored_before_is_taken_again_where_it_fits(tmp_path: Path, video: Path) -> None:
    templates = read_all_templates("", [])
    kept = tmp_path / "kept"
    kept.mkdir()
    episodes = [labelled(video, "one"), labelled(video, "two")]

    class Forbidden(Lengths):
        def score_one(self, request: ScoreRequest) -> PrefixScore:
            raise AssertionError("it was scored before")

    counted: list[int] = []
    sweep = sweep_of(templates, [], counted, kept)
    first, _ = score_episodes(episodes, sweep)
    again, _ = score_episodes(episodes, replace(sweep, load=partial(Forbidden, loaded=[])))
    assert sum(counted) == 4 * 7
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, PromptScores) and isinstance(other, PromptScores)
        assert np.array_equal(one.log_probs, other.log_probs) and np.array_equal(one.static, other.static)
    # another episode, task, template, setting: not the same; nor is a file that is torn
    for changed in (
        ([labelled(video, "three")], sweep),
        ([labelled(video, "one", "pull it")], sweep),
        (episodes, replace(sweep, monitor=replace(MONITOR, sample_rate=4.0))),
        (episodes, replace(sweep, scorer=replace(SETTINGS, contrastive=True))),
        (episodes, replace(sweep, texts=(*templates.texts[:9], "{instruction}? The answer is:"))),
    ):
        with pytest.raises(AssertionError, match="scored before"):
            score_episodes(changed[0], replace(changed[1], load=partial(Forbidden, loaded=[])))
    torn = sorted(kept.iterdir())[0]
    for content in (
        b"",
        b"{",
        b"[]",
        b'{"x": {"log_probs": [[1]], "static": [[1]]}, "y": {"log_probs": [1], "static": [1]}}',
        b'{"x": {"log_probs": 1, "static": "1"}}',
        b'{"x": {"log_probs": [], "static": []}}',
        torn.read_bytes()[:-9],
        b"\xff",
    ):
        torn.write_bytes(content)
        score_episodes(episodes, sweep)
        assert len(torn.read_bytes()) > 100, content


def test_kept_scores_that_cannot_be_or_were_changed_are_scored_again_and_told(
    tmp_path: Path, video: Path
) -> None:
    templates = read_all_templates("", [])
    kept, notes = tmp_path / "kept", list[str]()
    kept.mkdir()
    sweep = replace(sweep_of(templates, [], [], kept), on_note=notes.append)
    ((first,), _) = score_episodes([labelled(video)], sweep)
    assert isinstance(first, PromptScores) and notes == []
    (file,) = kept.iterdir()
    whole = json.loads(file.read_text())
    text = templates.texts[0]
    curves = whole[text]
    values = {name: value for name, value in whole.items() if name != "sha256"}
    impossible = [
        curves | {"log_probs": [5.0, *curves["log_probs"][1:]]},
        curves | {"static": [5.0, *curves["static"][1:]]},
        {name: column[:-1] for name, column in curves.items()},
        curves | {"log_probs": "high"},
    ]
    texts = [kept_text(file.stem, values | {text: made}) for made in impossible]
    shorter = {name: {key: it[:-1] for key, it in made.items()} for name, made in values.items()}
    other = curves | {"log_probs": [-0.1, *curves["log_probs"][1:]]}
    huge = curves | {"log_probs": [10**400, *curves["log_probs"][1:]]}
    texts += [json.dumps(whole | more) for more in (shorter, {text: other}, {text: huge})]
    texts += ["[" * 100_000, '{"a": ' * 100_000]
    for number, content in enumerate(texts):
        file.write_text(content)
        ((again,), _) = score_episodes([labelled(video)], sweep)
        assert isinstance(again, PromptScores) and np.array_equal(again.log_probs, first.log_probs)
        assert len(notes) == number + 1 and "keeps of 1 episode was damaged" in notes[-1], content[:200]
        assert json.loads(file.read_text()) == whole


def test_without_a_static_baseline_there_is_none(video: Path, tmp_path: Path) -> None:
    sweep = sweep_of(read_all_templates("", []), [], [], tmp_path)
    sweep = replace(sweep, scorer=replace(SETTINGS, static_baseline=False))
    for _ in range(2):  # the second time from the file
        (scores,), _ = score_episodes([labelled(video)], sweep)
        assert isinstance(scores, PromptScores)
        assert np.isnan(scores.static).all() and scores.static.shape == (7, 10)


def test_an_episode_that_fails_leaves_the_others(video: Path, tmp_path: Path) -> None:
    gone = labelled(tmp_path / "gone.mp4", "gone")
    sweep = sweep_of(read_all_templates("", []), [], [], tmp_path)
    for _ in range(2):
        bad, good = score_episodes([gone, labelled(video)], sweep)[0]
        assert isinstance(bad, UserError) and "gone.mp4" in str(bad)
        assert isinstance(good, PromptScores)


def test_a_model_that_is_not_asked_in_words_is_named(video: Path) -> None:
    class Wordless(Lengths):
        def score_one(self, request: ScoreRequest) -> PrefixScore:
            return PrefixScore(-1.0, -1.0, num_frames=len(request.prefix))

    sweep = replace(sweep_of(read_all_templates("", []), [], []), load=partial(Wordless, loaded=[]))
    (outcome,), _ = score_episodes([labelled(video)], sweep)
    assert isinstance(outcome, UserError) and "lengths gives no log-probability of each wording" in str(
        outcome
    )


def test_what_was_scored_with_some_wordings_is_scored_with_the_others_alone(
    tmp_path: Path, video: Path
) -> None:
    texts = read_all_templates("", []).texts
    loaded: list[int] = []
    sweep = replace(sweep_of(read_all_templates("", []), loaded, [], tmp_path), texts=texts[:7])
    score_episodes([labelled(video, "one")], sweep)
    loaded.clear()
    whole = replace(sweep, texts=texts[::-1])
    first, second = score_episodes([labelled(video, "one"), labelled(video, "two")], whole)[0]
    assert loaded == [10]  # "two" lacks all
    score_episodes([labelled(video, "one")], replace(sweep, texts=(*texts, "{instruction}? The answer is:")))
    assert loaded == [10, 11, 1]  # to know the model, and to score
    for scores in (first, second):
        assert isinstance(scores, PromptScores)
        assert np.allclose(scores.log_probs[0], [-len(text) for text in texts[::-1]])


def test_what_the_sweep_cannot_take_is_named(video: Path) -> None:
    unsaid, staged = labelled(video, "unsaid", succeeded=None), labelled(video, "staged", "open it\nclose it")
    good, problems = usable([unsaid, labelled(video), staged])
    assert [episode.name for episode in good] == ["run"]
    assert "unsaid: nobody has said" in problems[0] and "staged: its task has stages" in problems[1]


@pytest.mark.parametrize("better", [True, False])
def test_the_file_is_one_that_prompts_takes(tmp_path: Path, video: Path, better: bool) -> None:
    templates = read_all_templates("", [])
    gap = 1.0 if better else 0.0
    rng = np.random.default_rng(0)
    episodes = []
    for name in "abcdef":
        for outcome in (True, False) * 4:
            finals = rng.normal(size=10) + outcome * gap * 9 * (np.arange(10) == 3)
            episodes.append(PromptScores(name, outcome, np.tile(finals, (4, 1)), np.zeros((4, 10))))
    found, _ = candidates(templates.default, [], templates.kinds, largest=1)
    choice = choose(episodes, found, Measure.AUC, draws=200)
    info = scorer_info("a\nb # \x1b[31m", revision="1", random_weights=True)
    file = tmp_path / "best.txt"
    file.write_text(prompts_file(choice, templates, [labelled(video)], info))
    assert read_templates(str(file)) == (templates.texts[3 if better else 0],)
    text = file.read_text()
    assert ("beats the default beyond noise" in text) == better
    assert ("to try on others" in text) == (not better) and choice.best != choice.default
    assert "random weights: it means nothing" in text and "\x1b" not in text


RATING = 'answers: " 1"=1 " 2"=2\n'


def test_wordings_for_other_answers_are_compared_among_themselves(tmp_path: Path, video: Path) -> None:
    first = write_templates(tmp_path / "first.txt", RATING.strip(), r"Rate\n{instruction}. The answer is:")
    second = write_templates(tmp_path / "second.txt", RATING.strip(), "How is {instruction}? The answer is:")
    templates = read_all_templates(first, [second])
    assert templates.texts == ("Rate\n{instruction}. The answer is:", "How is {instruction}? The answer is:")
    asked: list[str] = []

    class Rating(Lengths):
        def __init__(self, settings: ScorerSettings) -> None:
            question = read_question(settings.prompts)
            assert question.answers == read_question(first).answers and question.templates == templates.texts
            asked.append(settings.prompts)
            self.info = scorer_info("rating", revision="1")
            self._lengths = [len(text) for text in question.templates]
            self._static = True

    sweep = Sweep(templates.texts, templates.question, SETTINGS, MONITOR, Rating, lambda _: None)
    (scores,), _ = score_episodes([labelled(video)], sweep)
    assert isinstance(scores, PromptScores) and scores.log_probs.shape == (7, 2) and len(asked) == 1
    text = file_of(templates.texts[:1], templates.question)
    copy = tmp_path / "copy.txt"
    copy.write_text(text)
    assert read_question(str(copy)) == read_question(first)


@pytest.mark.parametrize("default", ["", "roboreward"])
def test_a_file_with_other_answers_than_the_default_is_refused(tmp_path: Path, default: str) -> None:
    other = write_templates(tmp_path / "other.txt", RATING.strip(), "Rate {instruction}. The answer is:")
    with pytest.raises(
        ScorerError, match=r"asks for the answers \" 1\"=1 \" 2\"=2, and the default"
    ) as error:
        read_all_templates(default, [other])
    assert f"--set prompts={other}" in str(error.value)


def test_behind_a_reply_all_templates_can_be_averaged(tmp_path: Path) -> None:
    mine = write_templates(
        tmp_path / "mine.txt", RATING.strip(), 'reply: "A:"', "Rate {instruction}.", "{instruction}!"
    )
    templates = read_all_templates(mine, [])
    assert templates.kinds == ("", "") and batches(templates.texts, templates.question) == [templates.texts]
