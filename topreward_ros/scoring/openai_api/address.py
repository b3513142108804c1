"""How a user names a served model, and which key goes to it.

A name is the base URL of the API, with its path, and after ``#`` the model's name on that server:
``http://host:8000/v1#Qwen/Qwen3-VL-8B-Instruct``. A URL without a path is a `topreward serve`, not ours here.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError

KEY = "TOPREWARD_API_KEY"  #: environment variable whose key goes to whatever server a user names
#: Environment variables whose key goes to one host alone, and only over https.
KEYS_OF_HOSTS = {"api.openai.com": "OPENAI_API_KEY", "generativelanguage.googleapis.com": "GEMINI_API_KEY"}

_LONGEST = 1000  # characters of a URL
_LONGEST_KEY = 10_000
_EXAMPLE = "http://host:8000/v1#Qwen/Qwen3-VL-8B-Instruct"
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_PATH = re.compile(r"[A-Za-z0-9._~%+:@/-]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served. Holds no secret."""

    scheme: str  #: 'http' or 'https'
    host: str  #: in lower case; an IPv6 address in brackets
    port: int
    path: str  #: of the API, for example '/v1', without a slash at the end
    model: str  #: its name on the server; empty: the only one

    @property
    def origin(self) -> str:
        """Scheme and host, with the port where it is not the usual one."""
        usual = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port != usual else "")

    @property
    def url(self) -> str:
        """The base URL, without the model."""
        return self.origin + self.path

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, so that nobody on a network can read along."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def is_openai_url(model: str) -> bool:
    """Whether ``model`` is a URL with a path, or a model after ``#``: an OpenAI-compatible endpoint.

    >>> [is_openai_url(name) for name in ("http://gpu:8000/v1#m", "http://gpu:8000/", "Qwen/Qwen3-VL-8B")]
    [True, False, False]
    >>> is_openai_url("http://gpu:8000?model=Qwen/Qwen3-VL-8B")  # a query is no path
    False
    """
    scheme, separator, rest = model.partition("://")
    if scheme.lower() not in ("http", "https") or not separator:
        return False
    address, marked, _ = rest.partition("#")
    _, _, path = address.partition("?")[0].partition("/")
    return bool(path.strip("/") or marked)


def read_endpoint(model: str) -> Endpoint:
    """The endpoint that ``model`` names. Raises `ScorerError`, whose text repeats no user name, password or
    query of the URL, because these may be secrets."""
    address, _, name = model.partition("#")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ScorerError(f"model: the URL cannot be read: write it like {_EXAMPLE}") from error
    if "@" in parts.netloc or "@" in parts.path.partition("/")[0]:
        raise ScorerError(
            "model: the URL has a user name or a password in it, which would be published with the model's "
            f"name: take that out (all before @), and give the key in the environment variable {KEY}"
        )
    if parts.query or "?" in address:
        raise ScorerError(
            "model: the URL has a query (?...), which may hold a key and would be published with the model's "
            f"name: take it out, and give the key in the environment variable {KEY}"
        )
    shown = f"model '{printable(address, 200)}'"
    host = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    if len(model) > _LONGEST or parts.scheme not in ("http", "https"):
        raise ScorerError(f"{shown} is no URL of http or https of at most {_LONGEST} characters")
    if not _HOST.fullmatch(host) or not model.isprintable() or port == 0:
        raise ScorerError(f"{shown} names no host and port that could be asked: write it like {_EXAMPLE}")
    if not path:
        raise ScorerError(f"{shown} lacks the path of the API, such as /v1: write it like {_EXAMPLE}")
    if not _PATH.fullmatch(path) or ".." in unquote(path).split("/") or "//" in path:
        raise ScorerError(f"{shown} has a path that no API has: write it like {_EXAMPLE}")
    if path.endswith(("/chat/completions", "/models", "/completions")):
        raise ScorerError(
            f"{shown} goes too far: name the base of the API, which ends before /chat/completions, as in "
            f"{_EXAMPLE}"
        )
    if name != name.strip() or "#" in name:
        raise ScorerError(f"{shown}: the model after # is '{printable(name, 100)}': write it like {_EXAMPLE}")
    port = port or {"http": 80, "https": 443}[parts.scheme]
    return Endpoint(parts.scheme, host.lower(), port, path, name)


def key_for(endpoint: Endpoint) -> str:
    """The key for ``endpoint`` from the environment; empty: none. Raises `ScorerError` where it would travel
    in the clear, or cannot be a key."""
    name = KEYS_OF_HOSTS.get(endpoint.host, "")
    if name and os.environ.get(name):
        if endpoint.scheme != "https" or endpoint.port != 443:
            raise ScorerError(
                f"{name} goes to https://{endpoint.host} alone: name that, not {endpoint.origin}"
            )
    else:
        name = KEY
    key = os.environ.get(name, "").strip()
    if not key:
        return ""
    if len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ScorerError(f"{name} is set to something that is no key (a space, a line break, other letters)")
    if endpoint.scheme == "http" and not endpoint.is_loopback:
        raise ScorerError(
            f"{name} is set, and {endpoint.origin} would be sent it unencrypted, for anybody on the "
            f"network to read: use https, or reach the server through a tunnel to localhost, or "
            f"unset {name} for a server that needs no key"
        )
    return key


def key_hint(endpoint: Endpoint) -> str:
    """Which environment variables may hold the key for ``endpoint``, for a human."""
    own = KEYS_OF_HOSTS.get(endpoint.host)
    return f"{own} or {KEY}" if own else KEY
