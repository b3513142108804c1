"""Scores from a served model: equal to local ones, and every failure a sentence."""

from __future__ import annotations

import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from test.openai_server import Failure, Handler, Served, listed, serving
from topreward_ros.cli.main import main
from topreward_ros.core.frames import NS_PER_S, EpisodeBuffer, Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.scoring.base import (
    BusyError,
    LinkError,
    PrefixScore,
    PrefixScorer,
    ScorerError,
    ScorerSettings,
)
from topreward_ros.scoring.checkpoint.folder import EMBEDDED_FOLDER
from topreward_ros.scoring.openai_api.client import LARGEST_ANSWER
from topreward_ros.scoring.openai_api.load import about_openai, load_openai
from topreward_ros.scoring.question.templates import PAPER
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.worker import ScoringWorker

SETTINGS = replace(ScorerSettings.from_parameters(monitor_defaults()), max_frames=8)
TASK = "push the red cube to the green square"
KEY = "sk-SecretSecret0123456789"
LIKELY = {"False": -0.1, "True": -2.5, "Yes": -7.0}


def picture(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A bright square that moves over a slope, of grey squares of 8 by 8 pixels, which JPEG keeps exactly."""
    rows, columns = height // 8, width // 8
    grey = np.linspace(40, 160, rows)[:, None] + np.linspace(0, 60, columns)[None]
    place = number % (columns - 2)
    grey[rows // 4 : rows // 2, place : place + 2] = 250
    return np.kron(np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2), np.ones((8, 8, 1), np.uint8))


def frames(count: int) -> list[Frame]:
    return [Frame(round(0.5 * number * NS_PER_S), picture(number)) for number in range(count)]


def asked(count: int = 2, task: str = TASK) -> ScoreRequest:
    return ScoreRequest.of_frames(task, frames(count))


@pytest.fixture(scope="module")
def local() -> Iterator[PrefixScorer]:
    scorer = load_scorer("embedded", SETTINGS)
    yield scorer
    scorer.close()


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOPREWARD_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def local_answers(scorer: PrefixScorer) -> Callable[[list[np.ndarray], list[float], str], dict[str, float]]:
    """Answers by a local model, to the paper's question."""
    head, _, tail = PAPER.partition("{instruction}")
    known: dict[bytes, Frame] = {}

    def answers(pictures: list[np.ndarray], times: list[float], question: str) -> dict[str, float]:
        assert question.startswith(head) and question.endswith(tail)
        times = times or [0.5 * number for number in range(len(pictures))]
        shown = [Frame(round(at * NS_PER_S), one) for one, at in zip(pictures, times, strict=True)]
        task = question[len(head) : len(question) - len(tail)]
        if len(shown) > 1 and shown[-1].stamp_ns == shown[-2].stamp_ns:
            shown.pop()  # an odd last frame is sent twice
        known.clear()
        score = scorer.score(ScoreRequest.of_frames(task, shown))
        return {" True": score.log_prob, " False": score.log_prob_false}

    return answers


@pytest.fixture
def vllm(local: PrefixScorer) -> Iterator[Served]:
    """A vLLM that serves the embedded model."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
    with serving(Served(locked(local_answers(local)), tokenizer)) as served:
        yield served


def locked(answers: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    """``answers`` one at a time: a scorer belongs to one thread."""
    lock = threading.Lock()

    def one(*arguments: Any) -> dict[str, float]:
        with lock:
            return answers(*arguments)

    return one


@pytest.fixture
def chat() -> Iterator[Served]:
    """A server that lists likely words, always the same."""
    with serving(Served(lambda *_: LIKELY)) as served:
        yield served


def failing(
    served: Served, failure: Failure | None, settings: ScorerSettings = SETTINGS, timeout_s: float = 20.0
) -> ScorerError:
    """The error of a score after the server began to fail; it was well when the model was loaded."""
    scorer = load_openai(served.url, replace(settings, static_baseline=False), timeout_s)
    served.failure = failure
    try:
        with pytest.raises(ScorerError) as caught:
            scorer.score(asked())
    finally:
        scorer.close()
    return caught.value


# ---- scores ------------------------------------------------------------------------------------------


def test_a_curve_through_a_server_is_the_local_one(vllm: Served, local: PrefixScorer) -> None:
    scorer = load_openai(vllm.url + "#m", SETTINGS)
    buffer = EpisodeBuffer(8)
    for frame in frames(11):  # more than fit: the buffer is thinned, and has gaps
        buffer.append(frame)
        request = ScoreRequest.of_frames(TASK, buffer.prefix())
        served, expected = scorer.score(request), local.score(request)
        for name in ("log_prob", "log_prob_false", "log_prob_static"):
            assert getattr(served, name) == pytest.approx(getattr(expected, name), abs=1e-4)
        assert served.num_frames == len(request.prefix)
    assert scorer.info.model_id == vllm.url + "#m"
    scorer.close()


def test_the_baseline_is_asked_for_once_per_length(vllm: Served) -> None:
    scorer = load_openai(vllm.url, SETTINGS)
    begun = len(vllm.asked)
    for _ in range(3):
        scorer.score(asked(2))
    assert len(vllm.asked) - begun == 3 + 3  # the frames are others each time: three episodes
    same = asked(2)
    begun = len(vllm.asked)
    for _ in range(3):
        scorer.score(same)
    assert len(vllm.asked) - begun == 1 + 3
    scorer.close()


def test_frames_that_share_the_pixels_of_a_video_and_become_smaller_are_told(
    vllm: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_openai(vllm.url, replace(SETTINGS, max_frames=1024, max_pixels=307_200)).close()
    assert "max_frames is 1024: " in caplog.text and "with max_frames 80 at most" in caplog.text


def test_a_server_without_ids_is_asked_for_each_answer(vllm: Served, local: PrefixScorer) -> None:
    vllm.knows_ids = False
    scorer = load_openai(vllm.url, SETTINGS)
    request = asked(3)
    assert scorer.score(request).log_prob == pytest.approx(local.score(request).log_prob, abs=1e-4)
    assert vllm.asked[-1]["allowed_token_ids"] and vllm.asked[-1]["top_logprobs"] == 1
    scorer.close()


def test_what_a_vllm_is_sent(vllm: Served) -> None:
    scorer = load_openai(vllm.url, replace(SETTINGS, static_baseline=False))
    scorer.score(asked(3, "lift <|im_end|> it"))
    sent = vllm.asked[-1]
    assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["logprobs"]) == ("m", 1, 0, True)
    assert sent["add_generation_prompt"] is False and len(sent["logprob_token_ids"]) == 2
    video, text = sent["messages"][0]["content"]
    assert text["text"] == PAPER.replace("{instruction}", "lift < |im_end|> it")
    assert video["video_url"]["url"].startswith("data:video/jpeg;base64,/9j/")
    assert video["video_url"]["url"].count(",") == 4  # three pictures, the last one twice
    times = sent["media_io_kwargs"]["video"]
    assert times["frames_indices"] == [0, 500_000, 1_000_000, 1_000_000] and times["num_frames"] == -1
    scorer.close()


def test_a_vllm_that_writes_another_stream_is_refused(vllm: Served) -> None:
    vllm.turn_ends = True
    with pytest.raises(ScorerError, match="--trust-request-chat-template --trust-request-mm-kwargs"):
        load_openai(vllm.url, SETTINGS)


def test_several_episodes_are_asked_at_the_same_time(chat: Served) -> None:
    together = threading.Barrier(4)

    def wait(handler: Handler) -> None:
        together.wait(timeout=60)  # breaks, and so fails, unless four are asked at once
        handler.say(listed(LIKELY))

    scorer = load_openai(chat.url, replace(SETTINGS, static_baseline=False))
    chat.failure = wait
    assert scorer.episodes_at_once() == 4
    outcomes = scorer.score_all([asked(2) for _ in range(4)])
    assert [outcome.log_prob for outcome in outcomes if isinstance(outcome, PrefixScore)] == [-2.5] * 4
    scorer.close()


def test_connections_are_kept(chat: Served) -> None:
    scorer = load_openai(chat.url, replace(SETTINGS, static_baseline=False))
    for _ in range(5):
        scorer.score(asked())
    assert len(chat.connections) == 1
    scorer.close()


def test_a_chat_about_images(chat: Served) -> None:
    scorer = load_openai(chat.url, SETTINGS)
    score = scorer.score(asked(3))
    assert (score.log_prob, score.log_prob_false, score.log_prob_static) == (-2.5, -0.1, -2.5)
    sent = chat.asked[-1]
    assert sent["top_logprobs"] == 20 and sent["max_tokens"] == 1
    kinds = [part["type"] for part in sent["messages"][0]["content"]]
    assert kinds == ["image_url"] * 3 + ["text"]
    scorer.close()


def test_a_true_that_is_not_listed_is_no_number_but_a_bound(
    chat: Served, caplog: pytest.LogCaptureFixture
) -> None:
    chat.answers = lambda *_: {"False": -0.01, "true": -5.0, " True": -9.0, "No": -9999.0}
    scorer = load_openai(chat.url, replace(SETTINGS, static_baseline=False))
    with caplog.at_level(logging.WARNING):
        scores = [scorer.score(asked()) for _ in range(2)]
    assert all(isnan(score.log_prob) for score in scores)
    assert scores[0].log_prob_bound == -9.0 and "at most -9.00 nat" in scores[0].note
    assert sum("not among the likeliest" in record.message for record in caplog.records) == 1
    worker = ScoringWorker(scorer)
    worker.submit(asked())
    while not (results := worker.results()):
        time.sleep(0.01)
    assert results[0].error == "" and results[0].score is not None
    worker.stop()


# ---- answers of a file -------------------------------------------------------------------------------

RATING = {"1": -2.0, "2": -1.6, "3": -2.5, "4": -1.2, "5": -3.0}
SHARE = np.arange(5) / 4


def rated() -> tuple[float, float]:
    """ln of the expected share of the scale, and how much of the probability the answers have."""
    p = np.exp(list(RATING.values()))
    return float(np.log((p * SHARE).sum() / p.sum())), float(p.sum())


@pytest.fixture
def rating(tmp_path: Path) -> str:
    """A file that asks for 1 to 5, without a reply."""
    path = tmp_path / "rating.txt"
    path.write_text('answers: " 1"=1 " 2"=2 " 3"=3 " 4"=4 " 5"=5\nRate {instruction}. The answer is:\n')
    return str(path)


@pytest.mark.parametrize("by_ids", [True, False])
@pytest.mark.parametrize("preset", ["roboreward", "rating", "chat"])
def test_a_vllm_gives_the_answers_of_a_file(rating: str, preset: str, by_ids: bool) -> None:
    tokenizer = Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
    questions: list[str] = []

    def answers(_: list[np.ndarray], __: list[float], question: str) -> dict[str, float]:
        questions.append(question)
        return RATING

    prompts = "roboreward" if preset == "roboreward" else rating
    settings = replace(SETTINGS, prompts=prompts, chat_template=preset == "chat")
    with serving(Served(answers, tokenizer, knows_ids=by_ids)) as served:
        scorer = load_openai(served.url, settings)
        score = scorer.score(asked(3))
        scorer.close()
        assert (score.log_prob, score.answer_share) == pytest.approx(rated())
        assert score.log_prob_static == pytest.approx(rated()[0])
        template = served.asked[-1]["chat_template"]
        ids = served.asked[-1]["logprob_token_ids"] if by_ids else []
    assert "".join(tokenizer.id_to_token(number) for number in ids) == "12345" * by_ids
    # The space before a digit is a token of its own: it stands behind the reply, or else behind the question.
    assert template.count("assistant") == (preset != "rating")
    assert ("ANSWER: " in template) == (preset == "roboreward")
    assert questions[-1].endswith("The answer is: ") == (preset == "rating")


def test_a_list_of_likely_words_gives_the_answers_of_a_file(chat: Served, rating: str) -> None:
    chat.answers = lambda *_: {"The": -1.8, **RATING}
    scorer = load_openai(chat.url, replace(SETTINGS, prompts=rating))
    score = scorer.score(asked())
    scorer.close()
    assert (score.log_prob, score.answer_share) == pytest.approx(rated())


def test_an_answer_of_a_file_that_is_not_listed_is_named(chat: Served, rating: str) -> None:
    chat.answers = lambda *_: {word: value for word, value in RATING.items() if word != "3"}
    scorer = load_openai(chat.url, replace(SETTINGS, prompts=rating, static_baseline=False))
    score = scorer.score(asked())
    scorer.close()
    assert isnan(score.log_prob) and isnan(score.log_prob_bound) and isnan(score.answer_share)
    assert score.note.startswith("3 is not among the likeliest words")


# ---- failures ----------------------------------------------------------------------------------------


def status(code: int, text: str = "no", **headers: str) -> Failure:
    return lambda handler: handler.say({"error": {"message": text}}, code, **headers)


def body(content: Any) -> Failure:
    return lambda handler: handler.say(content)


def numbers(value: Any) -> Failure:
    """A list in which True has this number, as it stands in JSON."""
    text = json.dumps(listed({"True": 0.25})).replace("0.25", value)
    return body(text.encode())


def without(**more: Any) -> Failure:
    return body(listed(LIKELY, **more))


def cut(handler: Handler) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": ')
    handler.close_connection = True


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(10 << 30))
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * (1 << 16))
    except OSError:
        handler.close_connection = True


def compressed(handler: Handler) -> None:
    handler.say(b"\x1f\x8b" + b"\0" * 20, Content_Encoding="gzip")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (status(401), "answers 401 .*check the key in the environment variable TOPREWARD_API_KEY"),
        (status(403), "answers 403 .*check the key"),
        (status(404, "The model `m` does not exist"), "does not exist.*the model after #"),
        (status(413), "lower max_pixels or max_frames"),
        (status(418), "answers 418"),
        (status(400, "maximum context length is 10 tokens"), "maximum context length"),
        (status(500, "<b>\x1b[2Jboom</b>"), r"answers 500 \(<b> \[2Jboom</b>\): look at the server"),
        (status(302, Location="http://elsewhere/"), "sends on to http://elsewhere/, which is not followed"),
        (body(b"<html>hello"), "no JSON .'<html>hello'.: check the URL"),
        (body(b"[" * 100_000), "no JSON"),
        (body(b"\xff\xfe{}"), "no JSON"),
        (body([]), "no chat completion"),
        (body({"choices": []}), "no chat completion"),
        (body({"choices": [7]}), "no chat completion"),
        (body({"choices": [{"logprobs": {"content": [7]}}]}), "no chat completion"),
        (body({"error": {"message": "out of memory"}}), "out of memory"),
        (without(logprobs=None), "gives no log-probabilities"),
        (without(logprobs={"content": None}), "gives no log-probabilities"),
        (without(logprobs={"content": []}), "thinks before it answers"),
        (without(logprobs={"content": [{"token": "True", "logprob": -9999}]}), "lists no likely words"),
        (without(message={"refusal": "I cannot"}), "refuses to answer .'I cannot'"),
        (without(finish_reason="content_filter"), "refuses to answer .its filter"),
        (numbers("NaN"), "gives nan for a log-probability"),
        (numbers("-Infinity"), "gives -inf for a log-probability"),
        (numbers("0.5"), "gives 0.5 for a log-probability"),
        (numbers("1e400"), "gives inf for a log-probability"),
        (numbers("-" + "9" * 400), "for a log-probability"),
        (numbers('"x"'), "no chat completion"),
        (numbers("true"), "no chat completion"),
        (body(listed({"True": -0.01, "False": -0.02})), "sum to 1.97"),
        (cut, "broke off"),
        (reset, "broke off"),
        (endless, f"more than {LARGEST_ANSWER >> 20} MiB"),
        (compressed, "compressed"),
    ],
)
def test_a_failure_is_a_sentence(chat: Served, failure: Failure, said: str) -> None:
    error = failing(chat, failure)
    assert error.args and str(error).isprintable() and len(str(error)) < 700
    assert re.search(said, str(error)), str(error)


@pytest.mark.parametrize(
    "drips", [b"H", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"]
)
def test_an_answer_that_trickles_in_is_given_up(chat: Served, drips: bytes) -> None:
    """Before it begins, in its head, and in its body."""

    def trickle(handler: Handler) -> None:
        try:
            handler.wfile.write(drips)
            while True:
                handler.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            handler.close_connection = True

    error = failing(chat, trickle, timeout_s=2.0)
    assert isinstance(error, LinkError) and "has not answered within 2 s" in str(error)


def test_a_server_that_is_down_is_asked_again_soon(chat: Served) -> None:
    scorer = load_openai(chat.url, replace(SETTINGS, static_baseline=False))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(LinkError, match="cannot be reached"):
            load_openai(f"http://127.0.0.1:{unused.getsockname()[1]}/v1#m", SETTINGS)
    chat.failure = status(503)
    with pytest.raises(BusyError):
        scorer.score(asked())
    scorer.close()


@pytest.mark.parametrize("after", ["40", "Fri, 31 Dec 2100 23:59:59 GMT", "1e300"])
def test_a_pause_that_the_server_asks_for_is_kept(chat: Served, after: str) -> None:
    scorer = load_openai(chat.url, replace(SETTINGS, static_baseline=False))
    chat.failure = status(429, "slow down", Retry_After=after)
    with pytest.raises(BusyError, match=r"answers 429 .*slow down.*too many requests") as caught:
        scorer.score(asked())
    assert 0 < caught.value.pause_s <= 300
    chat.failure, begun = None, len(chat.asked)
    with pytest.raises(BusyError, match=r"is not asked yet: the server wanted a pause of (40|300) s"):
        scorer.score(asked())
    assert len(chat.asked) == begun
    scorer.close()


# ---- keys --------------------------------------------------------------------------------------------


def test_a_key_goes_to_the_server_and_nowhere_else(chat: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPREWARD_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-host")
    for text in (f"Incorrect API key provided: {KEY}", f"key {KEY[:9]}***{KEY[-7:]}", KEY * 200):
        error = failing(chat, status(401, text))
        assert not any(KEY[k : k + 6] in str(error) for k in range(len(KEY) - 5))
        chat.failure = None
    assert {said["Authorization"] for said in chat.headers} == {f"Bearer {KEY}"}
    assert KEY not in repr(about_openai(chat.url, SETTINGS))
    chat.models = ("a", f"m-{KEY.upper()}")
    with pytest.raises(ScorerError, match=r"has the models a, m-\*\*\*: name one"):
        about_openai(chat.url, SETTINGS)
    chat.models = (f"m-{KEY}",)
    with pytest.raises(ScorerError, match="calls its model by the key"):
        about_openai(chat.url, SETTINGS)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:pass@127.0.0.1:1/v1#m", "user name or a password"),
        ("http://127.0.0.1:1/v1?key=pass#m", "has a query"),
        ("http://127.0.0.1:1/v1/chat/completions#m", "goes too far"),
        ("http://127.0.0.1:99999/v1#m", "cannot be read"),
        ("http://127.0.0.1:1/a/../v1#m", "no API"),
        ("http:///v1#m", "names no host"),
        ("http://127.0.0.1:1/v1#a#b", "the model after #"),
        ("http://127.0.0.1:1#m", "lacks the path"),
        ("http://10.1.2.3/v1#m", "unencrypted"),
        ("http://api.openai.com/v1#m", "goes to https://api.openai.com alone"),
    ],
)
def test_urls_that_are_refused(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPREWARD_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ScorerError, match=said) as caught:
        load_scorer(url, SETTINGS)
    assert "pass@" not in str(caught.value) and "=pass" not in str(caught.value)
    assert KEY not in str(caught.value)


# ---- models and settings -----------------------------------------------------------------------------


def test_which_model(chat: Served) -> None:
    assert about_openai(chat.url, SETTINGS).model_id == chat.url + "#m"
    with pytest.raises(ScorerError, match="has no model 'x', but the models m: name one"):
        load_openai(chat.url + "#x", SETTINGS)
    chat.models = ("a", "b\x1b[2J")
    with pytest.raises(ScorerError, match=r"has the models a, b \[2J: name one, as in") as caught:
        load_openai(chat.url, SETTINGS)
    assert str(caught.value).isprintable()
    chat.models = ()
    with pytest.raises(ScorerError, match="has no model"):
        load_openai(chat.url, SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda"}, "device is 'cuda'"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'"),
        ({"quantization": "int8"}, "quantization is 'int8'"),
        ({"compile": "true"}, "compile is 'true'"),
        ({"contrastive": True}, "contrastive is true"),
        ({"prompts": "roboreward"}, "begins the reply with 'ANSWER:', and at this server nobody can begin"),
        ({"layout": "v5.10"}, "layout is 'v5.10'"),
    ],
)
def test_settings_that_a_server_cannot_follow(chat: Served, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ScorerError, match=said):
        load_openai(chat.url, replace(SETTINGS, **change))


# ---- the command line --------------------------------------------------------------------------------


def test_score_through_a_server_is_score_with_the_model(vllm: Served, tmp_path: Path) -> None:
    film = tmp_path / "film"
    film.mkdir()
    for number in range(5):
        Image.fromarray(picture(number, 256, 320)).save(film / f"{number:03}.png")
    curves = {}
    for name, model in (("served", vllm.url + "#m"), ("local", "embedded")):
        out = tmp_path / f"{name}.json"
        arguments = ["score", str(film), "--rate", "2", "--task", TASK, "--model", model, "--json", str(out)]
        assert main(arguments) == 0
        curves[name] = json.loads(out.read_text())
    points = {name: curve["scores"] for name, curve in curves.items()}
    assert len(points["served"]) == 5
    for served, expected in zip(points["served"], points["local"], strict=True):
        assert served["log_prob"] == pytest.approx(expected["log_prob"], abs=1e-4)
        assert served["progress"] == pytest.approx(expected["progress"], abs=1e-4)
