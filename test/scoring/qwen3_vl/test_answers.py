"""Answers of a file, incrementally: against plain forward passes of transformers, and the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from test.tape import TapeRunner
from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.core.progress import ProgressMode, live_progress
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import DEMO_TASK, DEMO_VIDEO, monitor_defaults, shared_file
from topreward_ros.offline.video import open_video
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.question.templates import read_question
from topreward_ros.scoring.qwen3_vl.references import PrefixCache
from topreward_ros.scoring.qwen3_vl.scorer import Qwen3VLScorer
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.shown_video import shown_video

asked = ScoreRequest.of_frames  # a request for all of some frames

TASK = "put the cup into the drawer"
THREE = """\
answers: " 0"=-1 " 1"=0.5 " 2"=1
{instruction}: rate it from 0 to 2. The answer is:
How far is the robot with: {instruction}? 0, 1 or 2. The answer is:
The task is: {instruction}. Is all of it done? The answer is:
"""
SHARES = {"roboreward": [0.0, 0.25, 0.5, 0.75, 1.0], "three": [0.0, 0.75, 1.0]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the parameter prompts is for each question."""
    three = tmp_path_factory.mktemp("prompts") / "three.txt"
    three.write_text(THREE)
    return {"roboreward": "roboreward", "three": str(three)}


class Plain:
    """A forward pass of transformers over the stream as one text, which is cut into tokens here alone."""

    def __init__(self, scorer: Qwen3VLScorer, checkpoint: Path) -> None:
        self.model, self.engine = scorer._model, scorer._engine
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def probabilities(self, frames: list[Frame], seconds: list[float], end: str, words: str) -> np.ndarray:
        """Those of each character of ``words`` behind the frames and the text ``end``."""
        if len(frames) % 2:
            frames, seconds = [*frames, frames[-1]], [*seconds, seconds[-1]]
        text, pixels = "<|im_start|>user\n", []
        for k in range(0, len(frames), 2):
            text += f"<{(seconds[k] + seconds[k + 1]) / 2:.1f} seconds><|vision_start|>"
            text += "<|video_pad|>" * 4 + "<|vision_end|>"
            pair = [torch.from_numpy(frame.image).permute(2, 0, 1) for frame in frames[k : k + 2]]
            pixels.append((torch.stack(pair).float() / 255 - 0.5) / 0.5)  # (2, 3, 64, 64)
        blocks = torch.stack(pixels).reshape(
            -1, 2, 3, 2, 2, 16, 2, 2, 16
        )  # height and width: block, patch, row
        rows = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(pixels) * 16, -1)
        ids = torch.tensor([self.tokenizer.encode(text + end, add_special_tokens=False).ids])
        with torch.inference_mode():
            logits = self.model(
                input_ids=ids,
                pixel_values_videos=rows,
                video_grid_thw=torch.tensor([[len(pixels), 4, 4]]),
                mm_token_type_ids=2 * (ids == self.tokenizer.token_to_id("<|video_pad|>")).int(),
            ).logits
        answers = [self.tokenizer.encode(word).ids for word in words]
        return torch.softmax(logits[0, -1].double(), -1)[torch.tensor(answers)[:, 0]].numpy()

    def score(self, name: str, prompts: str, shown: list[tuple[Frame, float]]) -> dict[str, float]:
        """What a score is by the definition: the logarithm of the mean share of the scale, over prompts."""
        question, shares = read_question(prompts), np.array(SHARES[name])
        frames, seconds = map(list, zip(*shown, strict=True))
        p = []
        for template in question.templates:
            end = template.replace("{instruction}", TASK)
            if question.reply:
                end += f"<|im_end|>\n<|im_start|>assistant\n{question.reply}"
            words = "".join(text.strip() for text in question.answers.texts)
            p.append(self.probabilities(frames, seconds, f"{end} ", words))
        mass = np.sum(p, axis=1)
        mean = (np.array(p) * shares).sum(1) / mass
        spread = np.log(mean).std(ddof=1) if len(mean) > 1 else np.nan
        return {
            "log_prob": np.log(mean).mean(),
            "log_prob_false": np.log1p(-mean).mean(),
            "log_prob_std": spread,
            "answer_share": mass.mean(),
        }


@pytest.fixture(scope="module")
def plain(loaded: Qwen3VLScorer, checkpoint: Path) -> Plain:
    return Plain(loaded, checkpoint)


@pytest.mark.parametrize("name", ["roboreward", "three"])
@pytest.mark.parametrize(
    "shown", [{}, {"front_padding": 4}, {"fixed_length": 6}, {"layout": "v4.57", "max_pixels": 64 * 64}]
)
def test_every_score_is_that_of_plain_forward_passes(
    to_rounding, new_scorer, make_video, plain, files, name, shown
):
    scorer = new_scorer(prompts=files[name], sample_rate=2.0, **shown)
    video = make_video(7, 64, 64)
    settings = scorer._settings
    for count in (1, 2, 5, 7):
        score = scorer.score(asked(TASK, video[:count]))
        seen = shown_video(video[:count], 2.0, settings.front_padding, settings.fixed_length)
        expected = plain.score(name, files[name], [(it.frame, it.seconds) for it in seen])
        for field, value in expected.items():
            assert getattr(score, field) == to_rounding(value, nan_ok=True), field
        still = plain.score(name, files[name], [(video[0], it.seconds) for it in seen])
        assert score.log_prob_static == to_rounding(still["log_prob"])
        assert len(score.by_prompt) == len(score.static_by_prompt) == (3 if name == "three" else 1)
        assert np.mean(score.by_prompt) == pytest.approx(score.log_prob)


def test_replayed_graphs_have_as_many_answers(to_rounding, new_scorer, make_video, files):
    graphs = TapeRunner()
    scorer = new_scorer(graphs=graphs, prompts=files["three"], max_frames=8, sample_rate=2.0)
    eager = new_scorer(prompts=files["three"], max_frames=8, sample_rate=2.0)
    buffer = EpisodeBuffer(8)
    for frame in make_video(21, 32, 64):
        buffer.append(frame)
        request = ScoreRequest(TASK, buffer)
        score, expected = scorer.score(request), eager.score(request)
        assert score.by_prompt == to_rounding(expected.by_prompt)
        assert score.log_prob_static == to_rounding(expected.log_prob_static)
        assert score.answer_share == to_rounding(expected.answer_share)
        for _ in scorer.ahead(request):
            pass
    assert graphs.replayed > 21 and "_PassWork" in graphs.captured


def test_several_episodes_share_a_pass(to_rounding, new_scorer, make_video, files):
    together, alone = (new_scorer(prompts=files["three"]) for _ in range(2))
    videos = [make_video(5, 64, 64, seed=seed) for seed in (1, 2, 3)]
    scores = together.score_all([asked(TASK, video) for video in videos])
    for video, score in zip(videos, scores, strict=True):
        assert score.log_prob == to_rounding(alone.score(asked(TASK, video)).log_prob)


def test_the_second_reference_gives_the_same(to_rounding, new_scorer, make_video, files):
    scorer = new_scorer(prompts=files["three"], static_baseline=False)
    engine = scorer._engine
    reference = PrefixCache(scorer._model, engine.tokens, engine.preprocessing, scorer.info)
    video = make_video(6, 64, 64)
    for count in (2, 5, 6):
        score = scorer.score(asked(TASK, video[:count]))
        assert reference.score(asked(TASK, video[:count])).log_prob == to_rounding(score.log_prob)


# ---- the embedded model ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> list[Frame]:
    """Eight frames of a success, evenly spread."""
    frames = [Frame(stamp, read()) for stamp, read in open_video(shared_file(DEMO_VIDEO))]
    return [frames[place] for place in np.linspace(0, len(frames) - 1, 8).astype(int)]


@pytest.fixture(scope="module")
def embedded() -> Callable[..., Qwen3VLScorer]:
    def make(**changes: object) -> Qwen3VLScorer:
        settings = ScorerSettings.from_parameters(monitor_defaults() | {"scorer_threads": 1})
        return load_scorer("embedded", replace(settings, **changes))

    return make


def test_true_against_false_of_a_file_is_the_contrastive_score(tmp_path, embedded, demo):
    mine = tmp_path / "mine.txt"
    paper = read_question("").templates[0]
    mine.write_text(f'answers: " True"=10 " False"=-10\n{paper}\n')
    by_file, by_parameter = embedded(prompts=str(mine)), embedded(contrastive=True)
    assert by_file.info.prompt_hash != by_parameter.info.prompt_hash
    assert by_file.info.answers == '" True"=10 " False"=-10', "those who read the numbers know their scale"
    assert by_parameter.info.answers == '" True"=1 " False"=0' and embedded().info.answers == ""
    for count in (1, 4, 8):
        one, other = (it.score(asked(DEMO_TASK, demo[:count])) for it in (by_file, by_parameter))
        assert one == other and one.answer_share > 0.99
    usual = embedded().score(asked(DEMO_TASK, demo))
    assert usual.log_prob == pytest.approx(other.log_prob + np.log(other.answer_share), abs=1e-5)
    progress = live_progress(one, ProgressMode.RAW_PROBABILITY, -0.22)
    assert progress == pytest.approx(np.exp(one.log_prob)) and progress > 0.8


def test_turned_values_turn_the_score(tmp_path, embedded, demo):
    paper = read_question("").templates[0]
    scores = []
    for number, values in enumerate(((1, 0), (0, 1))):
        mine = tmp_path / f"{number}.txt"
        mine.write_text(f'answers: " True"={values[0]} " False"={values[1]}\n{paper}\n')
        scores.append(embedded(prompts=str(mine)).score(asked(DEMO_TASK, demo)))
    assert scores[0].log_prob == scores[1].log_prob_false
    assert scores[0].log_prob_false == scores[1].log_prob
