"""What monitor and server say to each other: version 2 of the protocol.

    GET  /info    -> JSON: `ServerInfo`
    POST /score   a `ScoreCall` -> JSON: a score (200), or {"error": ...} with one of the statuses below

A call is 4 bytes of length, so much JSON, and the images one after the other. A frame is sent once to each
replica: a call names all frames of its prefix by number, and brings the images of those that are new. A
replica that lacks others says which (409), and gets them. Stamps are compared with each other alone, so the
clocks of the two machines may differ. No HTTP is spoken here, and no image is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from enum import Enum, IntEnum
from hashlib import sha256
from math import isfinite, nan
from typing import Any

from topreward_ros.core.frames import Window
from topreward_ros.core.instruction import LONGEST
from topreward_ros.core.json_text import JsonError, parsed_json
from topreward_ros.core.progress import PrefixScore
from topreward_ros.scoring.base import PrefixScorer, ScorerInfo, ScorerSettings
from topreward_ros.scoring.question.answer_set import MAX_TEXT
from topreward_ros.scoring.question.soft_prompt import asked_of
from topreward_ros.scoring.question.templates import MAX_TEMPLATES

VERSION = 2
SERVICE = "topreward"

INFO = "/info"
SCORE = "/score"
PROTOCOL_HEADER = "x-topreward-protocol"  #: with every request: `VERSION`
ENGINE_HEADER = "x-topreward-engine"  #: with a call: `ServerInfo.engine` that the client was told
EPISODE_HEADER = "x-session-id"  #: with a call: by it Ray Serve chooses the replica

MAX_HEAD_BYTES = 1 << 18
_LONGEST_NOTE = 2000  # characters
MAX_NAME = 64  #: characters of the name of a client, an episode or a replica
MAX_KEPT = 256  #: episodes that a client names
_NS = 1 << 63
_MOST = 1 << 40  # of any count

#: The settings that decide a score. Monitor and server must have the same; the rest is the server's.
AGREED = (
    "max_pixels",
    "max_frames",
    "contrastive",
    "layout",
    "chat_template",
    "sample_rate",
    "front_padding",
    "fixed_length",
)


class ProtocolError(Exception):
    """What the other end sent is not of this protocol. The text says what is wrong, for a human."""


class Status(IntEnum):
    """HTTP statuses of a call that has no score."""

    GARBAGE = 400  #: no call of this protocol
    NO_TOKEN = 401
    LACKS = 409  #: {"lacks": [numbers]}: frames that the replica does not have, and the call did not bring
    REPLACED = 410  #: a newer call of the same episode came before this one was begun
    OTHER_ENGINE = 412  #: another model or other settings than the client was told of
    TOO_LARGE = 413
    NO_SCORE = 422  #: the scorer said no: {"error": what it said}
    FAILED = 500  #: what nobody thought of; it stands in the server's log
    BUSY = 503  #: too much to do, or not ready


class Encoding(Enum):
    """How the pixels of a frame are written."""

    PNG = "png"  #: exact
    JPEG = "jpeg"  #: smaller; scores differ


@dataclass(frozen=True, slots=True)
class SentImage:
    """A frame whose image is in the call."""

    number: int  #: of the frame
    height: int
    width: int
    encoding: Encoding
    data: bytes


@dataclass(frozen=True, slots=True)
class NamedFrame:
    """A frame of the prefix."""

    number: int  #: that the client gave it
    place: int  #: in the episode, see `EpisodeBuffer.places`
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """A `ScoreRequest` on its way."""

    client: str
    episode: str
    kept: tuple[str, ...]  #: episodes of the client that it will come back to; the others may go
    instruction: str
    extra: bool
    count: int  #: this and the next three: of the episode's buffer
    stride: int
    max_frames: int
    window: Window
    frames: tuple[NamedFrame, ...]
    images: tuple[SentImage, ...]


def pack_call(call: ScoreCall) -> bytes:
    """A call as the body of a request."""
    head = {
        "client": call.client,
        "episode": call.episode,
        "kept": call.kept,
        "instruction": call.instruction,
        "extra": call.extra,
        "count": call.count,
        "stride": call.stride,
        "max_frames": call.max_frames,
        "window": call.window.value,
        "frames": [[it.number, it.place, it.stamp_ns] for it in call.frames],
        "images": [[it.number, it.height, it.width, it.encoding.value, len(it.data)] for it in call.images],
    }
    written = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([len(written).to_bytes(4, "big"), written, *(it.data for it in call.images)])


def unpack_call(body: bytes, most_frames: int) -> ScoreCall:
    """The call in the body of a request, with at most ``most_frames`` frames. Raises `ProtocolError`."""
    length = int.from_bytes(body[:4], "big")
    if not 0 < length <= min(MAX_HEAD_BYTES, len(body) - 4):
        raise ProtocolError(f"a call of {len(body)} bytes cannot begin with a head of {length}")
    head = _Fields(_json(body[4 : 4 + length]))
    kept = head.list_of("kept", MAX_KEPT)
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in kept):
        raise ProtocolError("kept must hold names of episodes")
    rows = [_row(row, 3, "frames") for row in head.list_of("frames", most_frames)]
    frames = tuple(
        NamedFrame(_whole(number, _MOST), _whole(place, _MOST), _whole(stamp, _NS - 1, -_NS))
        for number, place, stamp in rows
    )
    if not frames:
        raise ProtocolError("a call names one frame or more")
    try:
        window = Window(head.text("window", MAX_NAME))
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    return ScoreCall(
        client=head.name("client"),
        episode=head.name("episode"),
        kept=tuple(kept),
        instruction=head.text("instruction", LONGEST),
        extra=head.flag("extra"),
        count=head.whole("count"),
        stride=head.whole("stride"),
        max_frames=head.whole("max_frames", most_frames),
        window=window,
        frames=frames,
        images=_images(head.list_of("images", most_frames), body, 4 + length, {it.number for it in frames}),
    )


def _images(rows: Sequence[Any], body: bytes, begin: int, numbers: set[int]) -> tuple[SentImage, ...]:
    images, at = [], begin
    for row in rows:
        number, height, width, encoding, length = _row(row, 5, "images")
        length = _whole(length, len(body) - at, 1)
        if encoding not in (it.value for it in Encoding):
            raise ProtocolError("an image is written as png or jpeg")
        if type(number) is not int or number not in numbers:
            raise ProtocolError("an image is of no frame of the call, or its frame has two")
        numbers = numbers - {number}
        data = body[at : at + length]
        at += length
        images.append(
            SentImage(number, _whole(height, _MOST, 1), _whole(width, _MOST, 1), Encoding(encoding), data)
        )
    if at != len(body):
        raise ProtocolError(f"{len(body) - at} bytes stand behind the last image")
    return tuple(images)


# ---- what a server says of itself ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Who serves, and how it scores."""

    version: str  #: of the package
    model: ScorerInfo
    settings: Mapping[str, Any]  #: `AGREED`, and "static_baseline"
    templates: str  #: `templates_hash`
    frame_unit: int  #: see `PrefixScorer.frame_unit`

    @property
    def engine(self) -> str:
        """A hash of all that decides a score: another one, other scores."""
        model = replace(self.model, device="")  # the same numbers, to rounding
        content = [asdict(model), dict(sorted(self.settings.items())), self.templates, self.frame_unit]
        return sha256(json.dumps(content).encode()).hexdigest()[:32]

    @classmethod
    def of(cls, version: str, scorer: PrefixScorer, settings: ScorerSettings) -> ServerInfo:
        """What a server with this scorer, and these settings, says. Raises `ScorerError`."""
        plain = {name: getattr(settings, name) for name in (*AGREED, "static_baseline")}
        return cls(version, scorer.info, plain, templates_hash(settings), scorer.frame_unit)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return {
            "service": SERVICE,
            "protocol": VERSION,
            "version": self.version,
            "engine": self.engine,
            "model": asdict(self.model),
            "settings": dict(self.settings),
            "templates": self.templates,
            "frame_unit": self.frame_unit,
        }

    @classmethod
    def from_json(cls, data: bytes) -> ServerInfo:
        """What a server said. Raises `ProtocolError`."""
        said = _Fields(_json(data))
        if said.get("service") != SERVICE:
            raise ProtocolError("it is no topreward server")
        if said.get("protocol") != VERSION:
            version = str(said.get("protocol"))[:20]
            raise ProtocolError(
                f"it speaks version {version} of the protocol, and this package version {VERSION}: install "
                "the same version of topreward_ros on both sides"
            )
        model = _Fields(said.get("model"))
        settings = _Fields(said.get("settings"))
        instructions = model.list_of("instructions", 10_000)
        if not all(isinstance(it, str) for it in instructions):
            raise ProtocolError("instructions must be texts")
        found = ScorerInfo(
            model_id=model.text("model_id", 1000),
            revision=model.text("revision", 1000),
            random_weights=model.flag("random_weights"),
            device=model.text("device", 1000),
            dtype=model.text("dtype", 1000),
            prompt_hash=model.text("prompt_hash", 1000),
            max_pixels=model.whole("max_pixels"),
            instructions=tuple(instructions),
            summary=model.text("summary", 1000),
            front_padding=model.whole("front_padding"),
            fixed_length=model.whole("fixed_length"),
            answers=model.text("answers", MAX_TEXT),
        )
        names = (*AGREED, "static_baseline")
        plain = {name: settings.plain(name) for name in names}
        templates = said.text("templates", MAX_NAME)
        return cls(said.text("version", MAX_NAME), found, plain, templates, said.whole("frame_unit", 1 << 12))


def templates_hash(settings: ScorerSettings) -> str:
    """A hash of what is asked and answered. Raises `ScorerError` for a file that cannot be read."""
    head, *texts = asked_of(settings)
    return sha256((head + "\n".join(texts)).encode()).hexdigest()[:16]


# ---- scores -------------------------------------------------------------------------------------


def answer_to_json(score: PrefixScore, replica: str, seconds: float) -> dict[str, Any]:
    """A score as JSON, of whom it is, and how long it took [s]; what is not there is null."""
    numbers = {
        name: (value if isfinite(value) else None) if isinstance(value, float) else value
        for name, value in asdict(score).items()
    }
    return {**numbers, "replica": replica, "seconds": seconds}


def answer_from_json(data: bytes) -> tuple[PrefixScore, str, float]:
    """Score, replica and seconds in an answer. Raises `ProtocolError`."""
    said = _Fields(_json(data))
    score = PrefixScore(
        log_prob=said.number("log_prob"),
        log_prob_false=said.number("log_prob_false"),
        log_prob_static=said.number("log_prob_static"),
        log_prob_std=said.number("log_prob_std"),
        num_frames=said.whole("num_frames"),
        by_prompt=tuple(map(_number, said.list_of("by_prompt", MAX_TEMPLATES))),
        static_by_prompt=tuple(map(_number, said.list_of("static_by_prompt", MAX_TEMPLATES))),
        note=said.text("note", _LONGEST_NOTE) if said.get("note") else "",
        answer_share=said.number("answer_share"),
        stated_progress=said.number("stated_progress"),
        success_probability=said.number("success_probability"),
    )
    seconds = said.number("seconds")
    if not seconds >= 0:
        raise ProtocolError("seconds is missing")
    return score, said.name("replica"), seconds


def lacks_from_json(data: bytes, numbers: Set[int]) -> set[int]:
    """Which of ``numbers`` a replica lacks, and at least one. Raises `ProtocolError`."""
    lacks = _Fields(_json(data)).list_of("lacks", len(numbers))
    if not lacks or not all(type(number) is int and number in numbers for number in lacks):
        raise ProtocolError("it lacks frames that the call does not name")
    return set(lacks)


def error_from_json(data: bytes) -> str:
    """What went wrong, as the server says; empty where it is not the server that answers."""
    try:
        return str(_Fields(_json(data)).text("error", 10_000))
    except ProtocolError:
        return ""


# ---- JSON that may be anything ------------------------------------------------------------------


def _json(data: bytes) -> Any:
    try:
        return parsed_json(data)
    except JsonError as error:
        raise ProtocolError("it is no JSON") from error


class _Fields:
    """An object of JSON, whose fields may be missing or of any type: then a `ProtocolError` comes."""

    def __init__(self, content: Any) -> None:
        if not isinstance(content, dict):
            raise ProtocolError("an object is missing")
        self._content = content

    def get(self, name: str) -> Any:
        return self._content.get(name)

    def text(self, name: str, longest: int) -> str:
        value = self.get(name)
        if not isinstance(value, str) or len(value) > longest:
            raise ProtocolError(f"{name} must be a text of at most {longest} characters")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ProtocolError(f"{name} holds half a character")
        return value

    def name(self, name: str) -> str:
        text = self.text(name, MAX_NAME)
        if not (text and text.isascii() and text.isalnum()):
            raise ProtocolError(f"{name} must be of letters and digits")
        return text

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            raise ProtocolError(f"{name} must be true or false")
        return value

    def whole(self, name: str, most: int = _MOST) -> int:
        try:
            return _whole(self.get(name), most)
        except ProtocolError as error:
            raise ProtocolError(f"{name}: {error}") from error

    def number(self, name: str) -> float:
        return _number(self.get(name))

    def plain(self, name: str) -> Any:
        value = self.get(name)
        if not isinstance(value, (bool, int, float, str)) or len(str(value)) > MAX_NAME:
            raise ProtocolError(f"{name} is missing")
        return value

    def list_of(self, name: str, most: int) -> list[Any]:
        value = self.get(name)
        if not isinstance(value, list) or len(value) > most:
            raise ProtocolError(f"{name} must be a list of at most {most}")
        return value


def _row(row: Any, length: int, name: str) -> list[Any]:
    if not isinstance(row, list) or len(row) != length:
        raise ProtocolError(f"{name} must hold lists of {length}")
    return row


def _whole(value: Any, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ProtocolError(f"a whole number from {least} to {most} is missing")
    return value


def _number(value: Any) -> float:
    if value is None:
        return nan
    if type(value) not in (int, float) or not -1e12 < value < 1e12:
        raise ProtocolError("a number is missing")
    return float(value)
