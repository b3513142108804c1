"""What a replica does with many clients: turns, bounds, and calls that are none."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from test.scorers import Brightness
from test.scoring.remote.conftest import SETTINGS, Serve, Served, serve
from topreward_ros.core.frames import EpisodeBuffer, Frame, Window
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import PrefixScore, ScorerError
from topreward_ros.scoring.registry import load_scorer
from topreward_ros.scoring.remote import protocol
from topreward_ros.scoring.remote.protocol import Encoding, NamedFrame, ScoreCall, SentImage, Status
from topreward_ros.serving.engine import Limits

__all__ = ["serve"]

GREY = np.full((8, 8, 3), 128, np.uint8)


class Gated(Brightness):
    """Waits in every pass until the test lets it go; several episodes may share one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.passes: list[int] = []

    def episodes_at_once(self) -> int:
        return 8

    def score_all(self, requests: Any, kept: Any = ()) -> list[PrefixScore | ScorerError]:
        self.passes.append(len(requests))
        self.begun.release()
        assert self.gate.acquire(timeout=60.0)
        return super().score_all(requests, kept)


def call(
    name: str = "e1", client: str = "c1", frames: int = 1, brought: bool = True, **changes: Any
) -> ScoreCall:
    """A call for an episode of grey frames, all of which it brings."""
    png = cv2.imencode(".png", GREY)[1].tobytes()
    made = ScoreCall(
        client=client,
        episode=name,
        kept=(name,),
        instruction="lift",
        extra=False,
        count=frames,
        stride=1,
        max_frames=64,
        window=Window.EPISODE,
        frames=tuple(NamedFrame(k, k, k * 500_000_000) for k in range(frames)),
        images=tuple(SentImage(k, 8, 8, Encoding.PNG, png) for k in range(frames) if brought),
    )
    return replace(made, **changes)


def named(*frames: tuple[int, int, int], **changes: Any) -> ScoreCall:
    """A call with frames of these numbers, places and stamps."""
    return replace(call(frames=len(frames)), frames=tuple(NamedFrame(*it) for it in frames), **changes)


def post(
    served: Served, body: bytes, path: str = protocol.SCORE, **headers: str
) -> tuple[int, dict[str, Any]]:
    """What the server answers: status and JSON."""
    sent = {
        protocol.PROTOCOL_HEADER: str(protocol.VERSION),
        protocol.ENGINE_HEADER: served.engine.info.engine,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    with closing(http.client.HTTPConnection("127.0.0.1", served.http.port, timeout=60)) as connection:
        connection.request("POST", path, body, sent)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def ask(served: Served, made: ScoreCall) -> tuple[int, dict[str, Any]]:
    return post(served, protocol.pack_call(made))


# ---- turns --------------------------------------------------------------------------------------


def test_robots_that_wait_share_a_pass_and_the_newest_call_wins(serve: Serve) -> None:
    scorer = Gated()
    served = serve(scorer)
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(ask, served, call("e0", "c0"))
        assert scorer.begun.acquire(timeout=60.0)
        others = [pool.submit(ask, served, call(f"e{k}", f"c{k}")) for k in range(1, 5)]
        wait_until(served, lambda: served.engine.calls == 5)
        newer = pool.submit(ask, served, call("e1", "c1", frames=2))
        status, content = others[0].result(60.0)
        assert status == Status.REPLACED and "newer call" in content["error"]
        for _ in range(2):
            scorer.gate.release()
        assert first.result(60.0)[0] == 200 and newer.result(60.0)[1]["num_frames"] == 2
        assert [it.result(60.0)[0] for it in others[1:]] == [200] * 3
    assert scorer.passes == [1, 4]


def wait_until(served: Served, done: Callable[[], bool]) -> None:
    """Wait for the server's loop to come to something."""
    for _ in range(6000):
        if done():
            return
        threading.Event().wait(0.01)
    pytest.fail("the server has not come to it")


class Failing(Brightness):
    """Cannot score two frames."""

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        if len(request.prefix) == 2:
            raise ScorerError("two frames are\x1b[2J too many")
        return super().score_one(request)


def test_an_error_is_of_one_call_and_makes_no_pause(serve: Serve) -> None:
    served = serve(Failing())
    assert ask(served, call(frames=1))[0] == 200
    for _ in range(4):  # pauses would add up to seconds, and the other episodes go on
        assert ask(served, call(frames=2)) == (Status.NO_SCORE, {"error": "two frames are\x1b[2J too many"})
    assert ask(served, call(frames=3))[0] == 200
    with (
        closing(load_scorer(served.url, SETTINGS)) as scorer,
        pytest.raises(ScorerError, match="two frames") as caught,
    ):
        scorer.score(ScoreRequest.of_frames("lift", [Frame(0, GREY), Frame(1, GREY)]))
    assert str(caught.value).isprintable()


# ---- which episodes stay ------------------------------------------------------------------------


def test_episodes_are_freed_that_their_client_names_no_longer(serve: Serve) -> None:
    served = serve(Brightness())
    ask(served, call("e1"))
    ask(served, call("e2", kept=("e1", "e2")))
    assert served.engine.episodes == 2
    ask(served, call("e2", kept=("e2",)))
    assert served.engine.episodes == 1
    assert ask(served, call("e1", brought=False))[1]["lacks"] == [0]
    ask(served, call("e2", client="c2"))  # the name is of the other client, and its kept say nothing of it
    assert served.engine.episodes == 2


def test_episodes_of_robots_that_vanished_are_freed(serve: Serve) -> None:
    served = serve(Brightness(), limits=Limits(idle_s=100.0))
    now = [served.engine._clock()]
    served.engine._clock = lambda: now[0]
    ask(served, call("e1"))
    now[0] += 60.0
    ask(served, call("e2", client="c2"))
    now[0] += 60.0
    served.http.run(free_idle(served))
    assert served.engine.episodes == 1 and served.engine.frame_bytes == GREY.nbytes
    assert ask(served, call("e1", brought=False))[0] == Status.LACKS
    assert ask(served, call("e2", client="c2", brought=False))[0] == 200


async def free_idle(served: Served) -> None:
    served.engine.free_idle()


def test_episodes_and_their_frames_are_bounded(serve: Serve) -> None:
    served = serve(Brightness(), limits=Limits(episodes=3, frame_bytes=5 * GREY.nbytes))
    for number in range(5):
        assert ask(served, call(f"e{number}", f"c{number}"))[0] == 200
    assert served.engine.episodes == 3
    assert ask(served, call("e9", "c9", frames=4))[0] == 200
    assert served.engine.frame_bytes <= 5 * GREY.nbytes
    status, content = ask(served, call("e9", "c9", frames=6))
    assert status == Status.GARBAGE and "at most 960" in content["error"]
    assert ask(served, call("e1", "c1"))[0] == 200


# ---- calls that are none ------------------------------------------------------------------------

PNG = cv2.imencode(".png", GREY)[1].tobytes()


def image(**changes: Any) -> tuple[SentImage, ...]:
    return (replace(SentImage(0, 8, 8, Encoding.PNG, PNG), **changes),)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (call(images=image(height=9)), "8x8 pixels large, and the call says 8x9"),
        (call(images=image(data=PNG[:-20])), "cut off"),
        (call(images=image(data=PNG[:60] + b"\xff" + PNG[61:])), "corrupt"),
        (call(images=image(data=b"GIF89a" * 9)), "is no png"),
        (call(images=image(encoding=Encoding.JPEG)), "is no jpeg"),
        (call(images=image(height=1 << 20, width=1 << 20)), "a frame at most"),
        (call(images=image(number=5)), "no frame of the call"),
        (call(images=image(number=[0])), "no frame of the call"),
        (call(images=image(number=False)), "no frame of the call"),
        (call(images=image() * 2), "no frame of the call"),
        (call(count=5), "only the newest"),
        (call(count=0), "only the newest"),
        (call(stride=3), "power of 2"),
        (call(stride=2, window=Window.SLIDING), "sliding"),
        (call(max_frames=65), "max_frames"),
        (call(max_frames=3), "must be even"),
        (call(frames=65), "frames must be a list of at most 64"),
        (call(instruction="x" * 3000), "instruction must be"),
        (call(instruction="\ud800"), "half a character"),
        (call(client=""), "client"),
        (call(episode="e/1"), "episode"),
        (call(kept=("x" * 65,)), "kept"),
        (call(kept=tuple(f"e{k}" for k in range(300))), "kept"),
        (named((0, 0, 5), (1, 1, 4)), "in order"),
        (named((0, 0, 0), (1, 0, 1)), "one place"),
        (named((0, 0, 1 << 64)), "whole number"),
        (named((0, 0, 0), (1, 1, 1), (2, 2, 2), count=9), "only the newest"),
        (named((0, 2, 0), (1, 3, 1), count=4), "first and every 1"),
    ],
)
def test_a_call_that_is_wrong_is_refused_and_others_go_on(serve: Serve, made: ScoreCall, said: str) -> None:
    served = serve(Brightness())
    status, content = ask(served, made)
    assert status == Status.GARBAGE and said in content["error"]
    assert ask(served, call("e2", "c2"))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\xff" * 100,
        b"\0\0\0\4null",
        b"\0\0\0\2{}",
        b"\0\0\0\7[[[[[[[",
        b"\0\0\xff\xff" + b"[" * 65535,
    ],
)
def test_bytes_that_are_no_call(serve: Serve, body: bytes) -> None:
    served = serve(Brightness())
    assert post(served, body)[0] == Status.GARBAGE
    packed = protocol.pack_call(call())
    for cut in range(0, len(packed), 23):
        assert post(served, packed[:cut])[0] == Status.GARBAGE
    assert post(served, packed + b"x")[0] == Status.GARBAGE
    assert post(served, packed)[0] == 200


def test_a_frame_keeps_its_stamp_and_its_first_image(serve: Serve) -> None:
    served = serve(Brightness())
    assert ask(served, call())[1]["log_prob"] == pytest.approx(-2.0, abs=0.1)
    white = cv2.imencode(".png", np.full((8, 8, 3), 255, np.uint8))[1].tobytes()
    again = call(images=image(data=white))
    assert ask(served, again)[1]["log_prob"] == pytest.approx(-2.0, abs=0.1)
    moved = replace(again, frames=(NamedFrame(0, 0, 7),))
    assert "another stamp" in ask(served, moved)[1]["error"]


# ---- HTTP ---------------------------------------------------------------------------------------


def test_other_versions_engines_paths_and_methods(serve: Serve) -> None:
    served = serve(Brightness(), token="open")
    body = protocol.pack_call(call())
    assert post(served, body)[0] == Status.NO_TOKEN
    assert post(served, body, authorization="Basic open")[0] == Status.NO_TOKEN
    bearer = {"authorization": "Bearer open"}
    assert post(served, body, **bearer)[0] == 200
    status, content = post(served, body, **bearer, x_topreward_protocol="1")
    assert status == Status.GARBAGE and "version 1 of the protocol" in content["error"]
    assert post(served, body, **bearer, x_topreward_engine="0" * 32)[0] == Status.OTHER_ENGINE
    for path in ("/", "/info", "/score/", "/../etc/passwd"):
        assert post(served, body, path, **bearer)[0] == 404


def test_ten_gigabytes_are_refused_before_they_come(serve: Serve) -> None:
    served = serve(Brightness(), limits=Limits(body_bytes=1 << 20))
    with socket.create_connection(("127.0.0.1", served.http.port)) as connection:
        connection.sendall(head(served, 10 << 30))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    assert ask(served, call())[0] == 200
    packed = protocol.pack_call(call()) + bytes(2 << 20)
    with pytest.raises((ConnectionError, AssertionError)):  # it is cut off while it is sent, or refused
        assert post(served, packed)[0] == 200
    assert ask(served, call())[0] == 200


def head(served: Served, length: int) -> bytes:
    """The head of a call of so many bytes."""
    lines = (
        f"POST {protocol.SCORE} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n"
        f"{protocol.PROTOCOL_HEADER}: {protocol.VERSION}\r\n"
        f"{protocol.ENGINE_HEADER}: {served.engine.info.engine}\r\n\r\n"
    )
    return lines.encode()


def test_a_call_that_never_arrives_is_given_up(serve: Serve) -> None:
    served = serve(Brightness(), limits=Limits(body_s=0.3))
    with socket.create_connection(("127.0.0.1", served.http.port)) as connection:
        connection.sendall(head(served, 1000) + b"\0\0")
        answer = b"".join(
            iter(lambda: connection.recv(1 << 16), b"")
        )  # it comes in pieces, until it is closed
    assert answer.startswith(b"HTTP/1.1 503 ") and b"has not arrived" in answer


def test_calls_beyond_the_bound_are_told_to_come_again(serve: Serve) -> None:
    scorer = Gated()
    served = serve(scorer, limits=Limits(calls=4))
    with ThreadPoolExecutor(64) as pool:
        answers = [pool.submit(ask, served, call(f"e{k}", f"c{k}")) for k in range(60)]
        wait_until(served, lambda: sum(it.done() for it in answers) >= 56)
        for _ in range(8):
            scorer.gate.release()
        statuses = sorted(it.result(60.0)[0] for it in answers)
    assert statuses == [200] * 4 + [Status.BUSY] * 56


def test_a_thousand_connections_that_say_nothing(serve: Serve) -> None:
    served = serve(Brightness())
    with ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.http.port)))
            connection.sendall(head(served, 1 << 20) if number % 2 else b"GET /")
        assert ask(served, call())[0] == 200
    wait_until(served, lambda: not served.engine.calls)


def test_calls_without_a_body_length_leave_no_trace(serve: Serve) -> None:
    served = serve(Brightness())
    for number in range(50):
        with socket.create_connection(("127.0.0.1", served.http.port)) as connection:
            connection.sendall(head(served, 100 + number) + b"\0")
    assert ask(served, call())[0] == 200
    wait_until(served, lambda: served.engine.calls == 0)
    assert served.engine.episodes == 1


def test_the_clock_of_the_client_does_not_matter(serve: Serve) -> None:
    with closing(load_scorer("embedded", SETTINGS)) as local:
        served = serve(load_scorer("embedded", SETTINGS))
        with closing(load_scorer(served.url, SETTINGS)) as scorer:
            rng = np.random.default_rng(0)
            pictures = [rng.integers(0, 256, (90, 120, 3), np.uint8) for _ in range(3)]
            for start in (-(10**15), 0, 4 * 10**18):
                frames = [Frame(start + k * 500_000_000, image) for k, image in enumerate(pictures)]
                request = ScoreRequest("open the drawer", EpisodeBuffer.holding(frames, 64))
                assert scorer.score(request).log_prob == pytest.approx(
                    local.score(request).log_prob, abs=1e-4
                )
