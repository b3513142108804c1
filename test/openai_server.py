"""A small server of OpenAI's protocol for tests: it answers with scores of a local model, or fails as told.

It listens on 127.0.0.1 alone. As a vLLM it tells the ids of the stream that the request would have, by the
times and the template in it; the tokenizer is that of the local model.
"""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import simplejpeg
from jinja2 import Template
from tokenizers import Tokenizer

#: (pictures, times [s], question) -> log-probability by token
Answers = Callable[[list[np.ndarray], list[float], str], dict[str, float]]
#: What a server does instead of answering: it writes to the handler.
Failure = Callable[["Handler"], None]


@dataclass
class Served:
    """What a server is, and what it saw."""

    answers: Answers
    tokenizer: Tokenizer | None = None  #: with one, it is a vLLM
    models: tuple[str, ...] = ("m",)
    failure: Failure | None = None  #: of scores, in place of an answer
    knows_ids: bool = True  #: logprob_token_ids
    turn_ends: bool = False  #: it closes the user's turn, whatever the template says
    url: str = ""  #: of the API
    asked: list[dict[str, Any]] = field(default_factory=list)  #: for scores
    headers: list[dict[str, str]] = field(default_factory=list)  #: of all requests
    connections: set[tuple[str, int]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served  # of the class that `serving` makes

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._note()
        owner = "vllm" if self.served.tokenizer else "somebody"
        self.say({"data": [{"id": name, "owned_by": owner} for name in self.served.models]})

    def do_POST(self) -> None:
        self._note()
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self._tokenize(asked)
            return
        assert self.path == "/v1/chat/completions"
        with self.served.lock:
            self.served.asked.append(asked)
        if self.served.failure:
            self.served.failure(self)
            return
        pictures, times, question = _content(asked)
        likely = self.served.answers(pictures, times, question)
        self.say(self._chosen(asked, likely) if self.served.tokenizer else listed(likely))

    def say(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _note(self) -> None:
        with self.served.lock:
            self.served.headers.append(dict(self.headers))
            self.served.connections.add(self.client_address)

    def _tokenize(self, asked: dict[str, Any]) -> None:
        tokenizer = self.served.tokenizer
        assert tokenizer is not None
        text = asked.get("prompt")
        if text is None and "chat_template" not in asked:
            self.say({"error": {"message": "there is no chat template"}}, 400)
            return
        if text is None:
            _, times, question = _content(asked)
            patches = "".join(
                f"<{(times[k] + times[k + 1]) / 2:.1f} seconds>"
                f"<|vision_start|>{'<|video_pad|>' * 4}<|vision_end|>"
                for k in range(0, len(times), 2)
            )
            messages = [{"content": [{"type": "video"}, {"type": "text", "text": question}]}]
            text = Template(asked["chat_template"]).render(messages=messages)
            assert text.count("<|video_pad|>") == 1
            text = text.replace("<|video_pad|>", patches) + "<|im_end|>" * self.served.turn_ends
        self.say({"tokens": tokenizer.encode(text, add_special_tokens=False).ids})

    def _chosen(self, asked: dict[str, Any], likely: dict[str, float]) -> dict[str, Any]:
        tokenizer = self.served.tokenizer
        assert tokenizer is not None
        by_id = {
            tokenizer.encode(word, add_special_tokens=False).ids[-1]: value for word, value in likely.items()
        }
        wanted = asked.get("logprob_token_ids") if self.served.knows_ids else None
        wanted = wanted or asked.get("allowed_token_ids") or []
        return listed({f"token_id:{number}": by_id[number] for number in wanted} or {"token_id:0": -0.1})


def listed(likely: dict[str, float], **more: Any) -> dict[str, Any]:
    """An answer with this list of likely tokens."""
    entries = [{"token": token, "logprob": value, "bytes": [255]} for token, value in likely.items()]
    first = {**entries[0], "top_logprobs": entries}
    choice = {
        "message": {"content": entries[0]["token"]},
        "logprobs": {"content": [first]},
        "finish_reason": "length",
    }
    return {"choices": [{**choice, **more}], "usage": {"prompt_tokens": 10_000}}


def _content(asked: dict[str, Any]) -> tuple[list[np.ndarray], list[float], str]:
    pictures, times, question = [], [], ""
    for part in asked["messages"][0]["content"]:
        if part["type"] == "text":
            question = part["text"]
        else:
            _, _, data = part[part["type"]]["url"].partition(";base64,")
            pictures += [simplejpeg.decode_jpeg(b64decode(one)) for one in data.split(",")]
    if said := asked.get("media_io_kwargs"):
        times = [number / said["video"]["fps"] for number in said["video"]["frames_indices"]]
        assert len(times) == len(pictures) and len(times) % 2 == 0
    return pictures, times, question


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Serve until the end of the block."""
    handler = type("TheHandler", (Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
