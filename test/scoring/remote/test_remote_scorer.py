"""A served scorer gives the numbers of a local one: at once, after a server that was started anew, and with
replicas that know nothing. What a server must not do is noticed, and what a link does is told apart."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import cycle
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test.bags import video_frames
from test.http_server import HttpServer
from test.scorers import Brightness
from test.scoring.remote.conftest import SETTINGS, Serve
from topreward_ros.core.frames import EpisodeBuffer, Frame, Window
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import DEMO_TASK
from topreward_ros.scoring.base import LinkError, PrefixScore, PrefixScorer, ScorerError
from topreward_ros.scoring.question.soft_prompt import soft_prompt_file
from topreward_ros.scoring.question.templates import PAPER
from topreward_ros.scoring.qwen3_vl.soft_training import SoftTraining
from topreward_ros.scoring.registry import load_qwen3_vl, load_scorer
from topreward_ros.scoring.remote import protocol
from topreward_ros.scoring.remote import scorer as remote
from topreward_ros.scoring.remote.protocol import ServerInfo
from topreward_ros.serving.app import Application, Message, Receive, Send
from topreward_ros.serving.engine import Engine, Limits

NAT = 1e-4


@cache
def pictures() -> list[tuple[int, np.ndarray]]:
    """Stamps and images of the shipped video at 2.5 Hz."""
    return video_frames()[::10]


def film(frames: int = 12) -> list[Frame]:
    """Frames of an episode of its own."""
    return [Frame(stamp, image) for stamp, image in pictures()[:frames]]


def curve(
    scorer: PrefixScorer, frames: Sequence[Frame], max_frames: int = 64, window: Window = Window.EPISODE
) -> list[PrefixScore]:
    """The scores of the prefixes of a film."""
    buffer = EpisodeBuffer(max_frames, window)
    scores = []
    for frame in frames:
        buffer.append(frame)
        scores.append(scorer.score(ScoreRequest(DEMO_TASK, buffer.copy())))
    return scores


def assert_equal(found: Sequence[PrefixScore], expected: Sequence[PrefixScore]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.num_frames == other.num_frames
        for name in ("log_prob", "log_prob_false", "log_prob_static"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=NAT), name


@pytest.fixture(scope="module")
def local() -> Iterator[PrefixScorer]:
    with closing(load_scorer("embedded", SETTINGS)) as scorer:
        yield scorer


@contextmanager
def asked(url: str, **settings: object) -> Iterator[PrefixScorer]:
    with closing(load_scorer(url, replace(SETTINGS, **settings))) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("max_frames", "window"), [(64, Window.EPISODE), (6, Window.EPISODE), (6, Window.SLIDING)]
)
def test_scores_are_those_of_a_local_scorer(
    serve: Serve, local: PrefixScorer, max_frames: int, window: Window
) -> None:
    served = serve()
    with asked(served.url) as scorer:
        assert_equal(curve(scorer, film(), max_frames, window), curve(local, film(), max_frames, window))
        assert scorer.info.model_id == "embedded" and scorer.info.revision == local.info.revision
        assert scorer.info.device == f"cpu at {served.url}"
    assert served.engine.episodes == 1


def test_answers_of_a_file_are_scored_alike_on_a_server(serve: Serve) -> None:
    settings = replace(SETTINGS, prompts="roboreward")
    served = serve(settings=settings)
    with (
        asked(served.url, prompts="roboreward") as scorer,
        closing(load_scorer("embedded", settings)) as local,
    ):
        found, expected = curve(scorer, film(4)), curve(local, film(4))
        assert_equal(found, expected)
        assert [it.answer_share for it in found] == pytest.approx([it.answer_share for it in expected])
        assert scorer.info.prompt_hash == local.info.prompt_hash
    with pytest.raises(ScorerError, match="asks other questions than prompts 'yes_no'"):
        load_scorer(served.url, replace(SETTINGS, prompts="yes_no"))


def test_a_soft_prompt_is_served_where_both_have_its_content(serve: Serve, tmp_path: Path) -> None:
    loaded = load_qwen3_vl("embedded", SETTINGS)
    soft = SoftTraining(*loaded, SETTINGS, PAPER).start
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file, share in zip(files, (0.5, 0.25), strict=True):
        file.write_bytes(soft_prompt_file(replace(soft, after=soft.after * np.float32(share))))
    mine, other = (str(file) for file in files)
    settings = replace(SETTINGS, prompts=mine)
    served = serve(settings=settings)
    with asked(served.url, prompts=mine) as scorer, closing(load_scorer("embedded", settings)) as own:
        assert_equal(curve(scorer, film(4)), curve(own, film(4)))
        assert scorer.info.prompt_hash == own.info.prompt_hash
    for prompts in (other, ""):
        with pytest.raises(ScorerError, match="asks other questions"):
            load_scorer(served.url, replace(SETTINGS, prompts=prompts))


def test_each_frame_is_sent_once_and_no_larger_than_the_model_sees_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_calls(monkeypatch)
    with asked(serve().url) as scorer:
        curve(scorer, film(8))
    assert [len(call.images) for call in calls] == [1] * 8
    assert max(image.height * image.width for call in calls for image in call.images) <= 34816


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[protocol.ScoreCall]:
    calls: list[protocol.ScoreCall] = []
    pack = protocol.pack_call

    def pack_and_note(call: protocol.ScoreCall) -> bytes:
        calls.append(call)
        return pack(call)

    monkeypatch.setattr(protocol, "pack_call", pack_and_note)
    return calls


def test_jpeg_is_smaller_and_drifts(serve: Serve, local: PrefixScorer) -> None:
    served = serve()
    expected = curve(local, film(6))
    with asked(f"{served.url}?frames=jpeg") as scorer:
        found = curve(scorer, film(6))
    drift = max(abs(one.log_prob - other.log_prob) for one, other in zip(found, expected, strict=True))
    assert NAT < drift < 1.0


def test_a_server_that_was_started_anew_gets_all_frames_again(serve: Serve, local: PrefixScorer) -> None:
    first = serve()
    frames, expected = film(), curve(local, film())
    with asked(first.url) as scorer:
        buffer = EpisodeBuffer(64)
        for place, frame in enumerate(frames):
            buffer.append(frame)
            request = ScoreRequest(DEMO_TASK, buffer.copy())
            if place == 6:
                first.stop()
                with pytest.raises(LinkError, match="cannot be reached"):
                    scorer.score(request)
                second = serve(port=first.http.port)
            assert_equal([scorer.score(request)], [expected[place]])
    assert second.engine.episodes == 1


def test_a_server_that_starts_gets_no_call_before_it_can_answer(
    serve: Serve, local: PrefixScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of one that starts keeps what it is asked until the model is loaded: the first score would be
    of old frames."""
    monkeypatch.setattr(remote, "_FIND_S", 0.3)
    loaded = threading.Event()
    paths: list[str] = []

    def behind_proxy(application: Application) -> Any:
        async def proxy(scope: Message, receive: Receive, send: Send) -> None:
            paths.append(scope["path"])
            while not loaded.is_set():
                await asyncio.sleep(0.01)
            await application(scope, receive, send)

        return proxy

    first, request = serve(), ScoreRequest.of_frames(DEMO_TASK, film(4))
    with asked(first.url) as scorer:
        scorer.score(request)
        first.stop()
        with pytest.raises(LinkError, match="cannot be reached"):
            scorer.score(request)
        serve(port=first.http.port, around=behind_proxy)
        for _ in range(2):
            with pytest.raises(LinkError, match="has not answered"):
                scorer.score(request)
        assert paths == [protocol.INFO] * 2
        loaded.set()
        assert_equal([scorer.score(request) for _ in range(2)], [local.score(request)] * 2)
    assert paths[2] == protocol.INFO and set(paths[3:]) == {protocol.SCORE}, "it is looked for once"


def test_an_episode_that_is_sent_to_another_replica_every_time(local: PrefixScorer) -> None:
    engines: list[Engine] = []

    async def application() -> Application:
        for _ in range(3):
            made = load_scorer("embedded", SETTINGS)
            engines.append(Engine(made, ServerInfo.of("1", made, SETTINGS), Limits()))
        turns = cycle([Application(engine, "") for engine in engines])

        async def choose(scope: Message, receive: Receive, send: Send) -> None:
            await next(turns)(scope, receive, send)

        return choose  # type: ignore[return-value]

    server = HttpServer(application)
    try:
        with asked(server.url) as scorer:
            assert_equal(curve(scorer, film(6)), curve(local, film(6)))
        assert [engine.episodes for engine in engines].count(1) > 1
    finally:
        for engine in engines:
            server.run(engine.close())
        server.stop()


def test_what_the_server_freed_is_sent_again(
    serve: Serve, local: PrefixScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_calls(monkeypatch)
    served = serve(limits=Limits(episodes=1))
    one, other = film(4), film(4)
    with asked(served.url) as scorer, asked(served.url) as second:
        for asker, frames in ((scorer, one[:3]), (second, other[:3])):
            curve(asker, frames)
        assert served.engine.episodes == 1
        expected = local.score(ScoreRequest.of_frames(DEMO_TASK, film(4)))
        assert_equal([scorer.score(ScoreRequest.of_frames(DEMO_TASK, one))], [expected])
    assert [len(call.images) for call in calls[-2:]] == [1, 4]  # it lacked three, and got all


def test_frames_of_another_size_and_an_extra_look(serve: Serve, local: PrefixScorer) -> None:
    frames = film(5)
    small = Frame(frames[4].stamp_ns, np.ascontiguousarray(frames[4].image[::3, ::3]))
    with asked(serve().url) as scorer:
        for asker in (scorer, local):
            asker.forget()
        for last, extra in ((frames[3], False), (frames[4], True), (small, False)):
            request = ScoreRequest(DEMO_TASK, EpisodeBuffer.holding([*frames[:3], last]), extra=extra)
            found, expected = scorer.score(request), local.score(request)
            assert found.log_prob == pytest.approx(expected.log_prob, abs=NAT)
            assert isnan(found.log_prob_static) == isnan(expected.log_prob_static) == extra


def test_without_a_static_baseline_there_is_none(serve: Serve) -> None:
    with asked(serve().url, static_baseline=False) as scorer:
        (score,) = curve(scorer, film(1))
    assert isnan(score.log_prob_static) and score.static_by_prompt == ()


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sample_rate": 4.0}, "sample_rate 4.0"),
        ({"max_frames": 32, "contrastive": True}, "max_frames 32, contrastive True"),
        ({"layout": "v5.10"}, "layout"),
        ({"chat_template": True}, "chat_template"),
        ({"max_pixels": 4096}, "max_pixels"),
        ({"front_padding": 4}, "front_padding"),
        ({"fixed_length": 8}, "fixed_length"),
        ({"prompts": "ten_prompts.txt"}, "ten_prompts.txt"),
        ({"prompts": "yes_no"}, "yes_no"),
        ({"device": "cuda:1"}, "device is cuda:1"),
        ({"dtype": "bfloat16"}, "dtype is bfloat16"),
        ({"quantization": "int8"}, "quantization is int8"),
    ],
)
def test_settings_that_the_server_does_not_have_are_named(
    serve: Serve, settings: dict[str, object], named: str
) -> None:
    served = serve(Brightness())
    with pytest.raises(ScorerError, match=named) as caught:
        load_scorer(served.url, replace(SETTINGS, **settings))
    assert not isinstance(caught.value, LinkError)


@pytest.mark.parametrize("asked", ["none", "int8", "fp8"])
def test_a_server_with_other_numbers_in_8_bits_is_another_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(Brightness, "info", replace(Brightness.info, dtype="bfloat16, fp8 weights"))
    served = serve(Brightness())
    if asked == "int8":
        with pytest.raises(ScorerError, match=r"quantization is int8 here, and .* runs its model with fp8"):
            load_scorer(served.url, replace(SETTINGS, quantization=asked))
    else:
        load_scorer(served.url, replace(SETTINGS, quantization=asked)).close()


def test_a_server_without_baselines(serve: Serve) -> None:
    served = serve(Brightness(), replace(SETTINGS, static_baseline=False))
    with pytest.raises(ScorerError, match="static baseline"):
        load_scorer(served.url, SETTINGS)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?model=Qwen/Qwen3-VL-8B-Instruct", "serves the model brightness"),
        ("?revision=2", "serves the revision 1"),
        ("?modell=x", "modell is not known"),
        ("?frames=gif", "frames is png"),
        ("?frames=jpeg:101", "frames is png"),
    ],
)
def test_what_a_url_asks_for(serve: Serve, query: str, named: str) -> None:
    served = serve(Brightness())
    load_scorer(f"{served.url}?model=brightness&revision=1&frames=jpeg:95", SETTINGS).close()
    with pytest.raises(ScorerError, match=named):
        load_scorer(served.url + query, SETTINGS)


@pytest.mark.parametrize("url", ["http://", "http://:8100", "http://h:99999", "https://a b", "http://[::1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ScorerError, match="http://host:8100"):
        load_scorer(url, SETTINGS)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ScorerError) as caught:
        load_scorer("http://me:secret@127.0.0.1:1", SETTINGS)
    assert "secret" not in str(caught.value) and "TOPREWARD_TOKEN" in str(caught.value)


def test_a_server_that_is_started_anew_with_another_model(serve: Serve) -> None:
    first = serve(Brightness())
    with asked(first.url) as scorer:
        frames = film(1)
        curve(scorer, frames)
        first.stop()
        other = Brightness()
        other.info = replace(other.info, revision="2")
        serve(other, port=first.http.port)
        with pytest.raises(ScorerError, match="revision 2 instead of 1") as caught:
            curve(scorer, frames)
    assert not isinstance(caught.value, LinkError)


def test_the_token(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(Brightness(), token="open")
    for token in ("", "close", "opens"):
        monkeypatch.setenv(remote.TOKEN, token)
        with pytest.raises(ScorerError, match="TOPREWARD_TOKEN"):
            load_scorer(served.url, SETTINGS)
    monkeypatch.setenv(remote.TOKEN, "open")
    with asked(served.url) as scorer:
        curve(scorer, film(1))
    monkeypatch.setenv(remote.TOKEN, "op\nen")
    with pytest.raises(ScorerError, match="holds a blank"):
        load_scorer(served.url, SETTINGS)


# ---- servers that are none, or hostile ----------------------------------------------------------


@pytest.mark.parametrize("status", [401, 422])
def test_a_server_that_quotes_the_token(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.TOKEN, "s3cret")
    quoting = response(b'{"error": "no: Bearer s3cret"}', status)
    with answering(quoting) as url, pytest.raises(ScorerError) as caught:
        load_scorer(url, SETTINGS)
    assert "Bearer ***" in str(caught.value) and "s3cret" not in str(caught.value)


@contextmanager
def answering(*answers: bytes, hold_open: bool = False) -> Iterator[str]:
    """A server that sends these bytes, one answer to each connection, whatever is asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def run() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 20)
                connection.sendall(answer)
                if hold_open:
                    done.wait(60.0)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        listener.close()


def test_a_url_of_https_where_there_is_none() -> None:
    with answering(response(b"", 400)) as url, pytest.raises(ScorerError, match="write http://") as caught:
        load_scorer(url.replace("http:", "https:"), SETTINGS)
    assert not isinstance(caught.value, LinkError), "waiting does not mend it"


def response(body: bytes, status: int = 200, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, size, body)


def info(**changes: object) -> bytes:
    """What a server says of itself, but for ``changes``."""
    content = ServerInfo.of("1", Brightness(), SETTINGS).to_json() | changes
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (response(b"<html>"), "no JSON"),
        (response(b"[" * 100_000), "no JSON"),
        (response(b"{}"), "no topreward server"),
        (response(info(protocol=1)), "version 1 of the protocol"),
        (response(info(model={})), "must be"),
        (response(info(settings={})), "is missing"),
        (response(info(version="v" * 100)), "version must be a text"),
        (response(b'{"error": "no \\u001b[2J such"}', 500), "no  .2J such"),
        (response(b"", 308), "status 308.*not followed"),
        (response(b"<html>", 413), "status 413, and it is no topreward server.*jpeg"),
    ],
)
def test_a_server_that_says_nonsense(answer: bytes, said: str) -> None:
    with answering(answer) as url, pytest.raises(ScorerError, match=said) as caught:
        load_scorer(url, SETTINGS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "cannot be reached"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "cannot be reached"),
        (response(b"", 502), "is not ready .status 502"),
        (response(b"x", length=1 << 40), "more than 1048576 bytes"),
        (
            b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n" + bytes(2 << 20),
            "more than 1048576",
        ),
        (b"HTTP/1.1 200 x\r\n", "cut off"),
        (b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 10_000, "cannot be reached"),
        (response(b"x", length=5), "cannot be reached"),
    ],
)
def test_a_link_that_brings_no_answer(answer: bytes, said: str) -> None:
    with answering(answer) as url, pytest.raises(LinkError, match=said):
        load_scorer(url, SETTINGS)


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """Of a server with a certificate of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("closes_without_a_word", [True, False])
def test_a_url_of_http_where_there_is_tls(tls: ssl.SSLContext, closes_without_a_word: bool) -> None:
    """As the servers of Python do, and as those that answer with an alert of TLS."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                if closes_without_a_word and connection.recv(1, socket.MSG_PEEK) == b"G":
                    connection.recv(1 << 16)
                    connection.close()
                    continue
                with suppress(OSError):
                    tls.wrap_socket(connection, server_side=True).close()
                connection.close()

    threading.Thread(target=run, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, pytest.raises(LinkError, match=r"cannot be reached .*write https://"):
        load_scorer(url, SETTINGS)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 x\r\n", response(b"abc", length=9)])
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_server_in_plain_http_that_dies_is_not_taken_for_one_of_tls(begun: bytes, comes_back: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        connection.sendall(begun)
        if not comes_back:
            listener.close()
        # As the system does for a process that was killed before it had read everything.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        with suppress(OSError):  # nobody may come
            connection, _ = listener.accept()
            connection.recv(1 << 16)
            connection.sendall(response(b"", 400))
            connection.close()

    threading.Thread(target=run, daemon=True).start()
    with listener, pytest.raises(LinkError, match="cannot be reached") as caught:
        load_scorer(f"http://127.0.0.1:{listener.getsockname()[1]}", SETTINGS)
    assert "https" not in str(caught.value)


def test_a_certificate_that_nobody_trusts(tls: ssl.SSLContext) -> None:
    with tls.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:

        def run() -> None:
            with suppress(OSError):
                listener.accept()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        with pytest.raises(ScorerError, match="set SSL_CERT_FILE") as caught:
            load_scorer(f"https://127.0.0.1:{listener.getsockname()[1]}", SETTINGS)
        thread.join(60.0)
    assert not isinstance(caught.value, LinkError)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LinkError, match=r"cannot be reached \(Connection refused"):
        load_scorer(f"http://127.0.0.1:{port}", SETTINGS)


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 x\r\n", b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nabc"]
)
def test_a_server_that_hangs_is_given_up(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_INFO_S", 0.5)
    with answering(begun, hold_open=True) as url, pytest.raises(LinkError, match="has not answered"):
        load_scorer(url, SETTINGS)


def test_a_server_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is in time, and the answer is not."""
    monkeypatch.setattr(remote, "_INFO_S", 1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        with connection:
            connection.sendall(b"HTTP/1.1 200 x\r\nx: ")
            while not over.wait(0.05):
                try:
                    connection.sendall(b"y")
                except OSError:
                    return

    threading.Thread(target=drip, daemon=True).start()
    with listener, pytest.raises(LinkError, match="has not answered"):
        load_scorer(f"http://127.0.0.1:{listener.getsockname()[1]}", SETTINGS)
    over.set()


@pytest.mark.parametrize("status", [200, 409])
def test_a_server_that_answers_calls_with_nonsense(status: int) -> None:
    nonsense = response(b'{"lacks": [7], "log_prob": "x"}', status)
    with (
        answering(response(info()), nonsense) as url,
        asked(url) as scorer,
        pytest.raises(ScorerError, match="does not answer as a topreward server"),
    ):
        scorer.score(ScoreRequest.of_frames(DEMO_TASK, film(1)))


def test_replicas_that_lack_the_same_frame_for_ever() -> None:
    lacks = response(b'{"lacks": [0]}', 409)
    with (
        answering(response(info()), lacks, lacks, lacks) as url,
        asked(url) as scorer,
        pytest.raises(LinkError, match="another replica"),
    ):
        scorer.score(ScoreRequest.of_frames(DEMO_TASK, film(1)))


def test_what_a_model_states_itself_comes_through_the_wire() -> None:
    """Every field of a score but the bound of what an endpoint did not tell, which no server has."""
    score = PrefixScore(
        *(-1.5, -0.25, -4.0, 0.5, 7),
        by_prompt=(-1.0, -2.0),
        static_by_prompt=(-3.0, -5.0),
        note="why",
        answer_share=0.75,
        stated_progress=0.25,
        success_probability=0.125,
    )
    body = json.dumps(protocol.answer_to_json(score, "abc", 0.5)).encode()
    found, replica, seconds = protocol.answer_from_json(body)
    assert replace(found, log_prob_bound=0.0) == replace(score, log_prob_bound=0.0)
    assert (replica, seconds) == ("abc", 0.5)
    old = {name: value for name, value in json.loads(body).items() if "stated" not in name and name != "note"}
    assert isnan(protocol.answer_from_json(json.dumps(old).encode())[0].stated_progress)
