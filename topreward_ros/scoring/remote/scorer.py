"""A `PrefixScorer` whose model is on another machine, behind `topreward serve`.

Numbers are those of the same scorer here, to rounding, as frames go as PNG; with JPEG they drift. Each frame
goes once to the replica that has its episode. A replica that was started anew, or that Ray Serve chose
instead, lacks frames: it says which, and gets them from the prefix at hand. So nothing is lost with a server
but time. Where it cannot be reached, the error is a `LinkError`, and the worker tries again with one of the
next frames. Who asks first, whose frames are scored together and what is forgotten, serving/ decides.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import nan
from secrets import token_hex

from topreward_ros.core.frames import Frame
from topreward_ros.core.printable import printable
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import (
    LinkError,
    PrefixScore,
    ScorerError,
    ScorerSettings,
    SequentialScorer,
    check_frames,
    process_memory_bytes,
)
from topreward_ros.scoring.bounded_dict import BoundedDict
from topreward_ros.scoring.remote import protocol
from topreward_ros.scoring.remote.address import Address
from topreward_ros.scoring.remote.agreement import changed, check_agreement
from topreward_ros.scoring.remote.link import Answer, Link
from topreward_ros.scoring.remote.pictures import sent
from topreward_ros.scoring.remote.protocol import ProtocolError, ServerInfo, Status

TOKEN = "TOPREWARD_TOKEN"  #: environment variable, of servers and of those who ask them

_INFO_S = 5.0
_FIND_S = 2.0  # until a server that was lost is asked anew whether it is there
_PATIENCE_S = 8.0  # until a call is given up; one that brings frames, later
_PER_FRAME_S = 0.5
_LONGEST_PATIENCE_S = 60.0
_LONGEST_ANSWER = 1 << 20  # bytes
_MAX_REPLICAS = 64
#: Statuses that waiting does not mend, of one who is not the server, and what to look at.
_OF_A_PROXY = {
    403: "",
    405: "",
    413: ", and how large a request it lets through; JPEG is smaller (?frames=jpeg behind the URL)",
}
_TRIES = 3  # what the replica is thought to lack; what it says that it lacks; everything


@dataclass
class _Episode:
    """What the client knows of an episode at the server."""

    name: str = field(default_factory=lambda: token_hex(12))
    numbers: dict[Frame, int] = field(default_factory=dict)  #: of the frames that may be named again
    given: int = 0  #: numbers
    held: BoundedDict[str, Set[int]] = field(default_factory=lambda: BoundedDict(_MAX_REPLICAS))
    replica: str = ""  #: that answered last

    def number(self, prefix: Sequence[Frame]) -> dict[int, Frame]:
        """The frames of ``prefix`` by their numbers; new ones get some."""
        for frame in prefix:
            if frame not in self.numbers:
                self.numbers[frame] = self.given
                self.given += 1
        return {self.numbers[frame]: frame for frame in prefix}

    def scored(self, replica: str, prefix: Sequence[Frame], extra: bool) -> None:
        """The replica has scored ``prefix``, and holds its frames."""
        self.replica = replica
        self.held[replica] = {self.numbers[frame] for frame in prefix}
        if not extra:  # the frames of the prefix before an extra look come again
            self.numbers = {frame: self.numbers[frame] for frame in prefix}


class RemoteScorer(SequentialScorer):
    """Asks a `topreward serve` for scores; see `served_models.load_served`."""

    def __init__(self, address: Address, settings: ScorerSettings) -> None:
        """Ask the server what it has. Raises `ScorerError` where that is not what is asked for, `LinkError`
        where there is no server."""
        self._address = address
        self._settings = settings
        self._client = token_hex(12)
        self._episodes: dict[Frame, _Episode] = {}  # by first frame
        self._patience_s = _PATIENCE_S
        self._is_lost = False  # the last call found no server
        headers = {protocol.PROTOCOL_HEADER: str(protocol.VERSION)}
        if token := token_of_environment():
            headers["authorization"] = f"Bearer {token}"
        self._link = Link(address.scheme, address.host, address.port, headers)
        try:
            self._said = self.ask_info()
            check_agreement(address, self._said, settings)
        except BaseException:
            self._link.close()
            raise
        model = self._said.model
        self.info = replace(model, device=f"{model.device} at {address.url}")

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        """See `PrefixScorer.score`.

        A server that was lost is looked for by a short question. A call would wait at a server that starts
        until its model is loaded, and then bring a score of frames that are long gone.
        """
        check_frames(request.prefix)
        try:
            if self._is_lost:
                self.ask_info(_FIND_S)
            self._is_lost = False
            return self._score(request)
        except LinkError:
            self._is_lost = True
            raise

    def _score(self, request: ScoreRequest) -> PrefixScore:
        episode = self._episodes.setdefault(request.prefix[0], _Episode())
        frames = episode.number(request.prefix)
        wanted: Set[int] = frames.keys() - episode.held.get(episode.replica, set())
        for tries_left in reversed(range(_TRIES)):
            answer = self._call(request, episode, frames, wanted)
            if answer.status == 200:
                score, replica = self._read(answer.body)
                episode.scored(replica, request.prefix, request.extra)
                return score if self._settings.static_baseline else _without_static(score)
            if answer.status != Status.LACKS:
                self._refuse(answer)
            lacks = self._checked(protocol.lacks_from_json, answer.body, frames.keys())
            wanted = wanted | lacks if tries_left > 1 else frames.keys()
        raise LinkError(f"{self._address.url}: every answer came from another replica")

    def ask_info(self, seconds: float = _INFO_S) -> ServerInfo:
        """What the server says of itself now. Raises `ScorerError`."""
        answer = self._link.ask("GET", protocol.INFO, seconds=seconds, longest=_LONGEST_ANSWER)
        if answer.status != 200:
            self._refuse(answer)
        said: ServerInfo = self._checked(ServerInfo.from_json, answer.body)
        return said

    def keep(self, starts: Set[Frame]) -> None:
        """See `SequentialScorer.keep`."""
        self._episodes = {start: it for start, it in self._episodes.items() if start in starts}

    def forget(self) -> None:
        """See `PrefixScorer.forget`: the next score is of an episode that no replica knows."""
        self._episodes.clear()

    def memory_bytes(self) -> int:
        """Of this process: that of the server is not asked for."""
        return process_memory_bytes()

    def close(self) -> None:
        """See `PrefixScorer.close`."""
        self.forget()
        self._link.close()

    # ---- asking -----------------------------------------------------------------------------------

    def _call(
        self, request: ScoreRequest, episode: _Episode, frames: Mapping[int, Frame], wanted: Set[int]
    ) -> Answer:
        buffer = request.buffer
        call = protocol.ScoreCall(
            client=self._client,
            episode=episode.name,
            kept=tuple(it.name for it in self._episodes.values())[: protocol.MAX_KEPT],
            instruction=request.instruction,
            extra=request.extra,
            count=buffer.count,
            stride=buffer.stride,
            max_frames=buffer.max_frames,
            window=buffer.window,
            frames=tuple(
                protocol.NamedFrame(number, place, frame.stamp_ns)
                for frame, place in zip(request.prefix, buffer.places(), strict=True)
                for number in (episode.numbers[frame],)
            ),
            images=tuple(
                sent(number, frame.image, request.prefix[0].image, self._said, self._address.jpeg_quality)
                for number, frame in frames.items()
                if number in wanted
            ),
        )
        try:
            return self._link.ask(
                "POST",
                protocol.SCORE,
                seconds=self._patience_s + _PER_FRAME_S * (len(wanted) - 1 if wanted else 0),
                longest=_LONGEST_ANSWER,
                body=protocol.pack_call(call),
                headers={
                    "content-type": "application/octet-stream",
                    protocol.ENGINE_HEADER: self._said.engine,
                    protocol.EPISODE_HEADER: episode.name,
                },
            )
        except LinkError:
            # A slow model needs more patience; for a link that is down, to connect takes longest anyway.
            self._patience_s = min(2.0 * self._patience_s, _LONGEST_PATIENCE_S)
            raise

    def _read(self, body: bytes) -> tuple[PrefixScore, str]:
        score, replica, seconds = self._checked(protocol.answer_from_json, body)
        self._patience_s = min(max(_PATIENCE_S, 3.0 * seconds), _LONGEST_PATIENCE_S)
        return score, replica

    def _checked(self, read, data: bytes, *more):  # type: ignore[no-untyped-def]
        try:
            return read(data, *more)
        except ProtocolError as error:
            raise ScorerError(
                f"{self._address.url} does not answer as a topreward server does: "
                f"{printable(str(error), 300)}"
            ) from error

    def _refuse(self, answer: Answer) -> None:
        """Raise the error that an answer without a score means."""
        url = self._address.url
        said = " ".join(protocol.error_from_json(answer.body).split())
        if token := token_of_environment():  # a server that quotes it does not get it into a log
            said = said.replace(token, "***")
        said = printable(said, 300)
        if 300 <= answer.status < 400:  # waiting does not mend it
            raise ScorerError(
                f"{url} sends on to another place (status {answer.status}), which is not followed: name the "
                "URL where the server is, perhaps https://"
            )
        if answer.status == Status.NO_TOKEN:
            raise ScorerError(
                f"{url} wants a token ({said or 'status 401'}): set {TOKEN} in the environment to the one "
                "that the server was started with"
            )
        if answer.status == Status.OTHER_ENGINE:
            raise self._other_engine()
        if not said and answer.status in _OF_A_PROXY:
            raise ScorerError(
                f"{url} refuses the call with status {answer.status}, and it is no topreward server that "
                f"says so: look at the proxy before it{_OF_A_PROXY[answer.status]}"
            )
        if not said or answer.status in (Status.BUSY, Status.REPLACED):  # a proxy answers, or nobody has time
            raise LinkError(f"{url} is not ready ({said or f'status {answer.status}'})")
        raise ScorerError(f"{url}: {said}")

    def _other_engine(self) -> ScorerError:
        said = self.ask_info()
        if difference := changed(self._said, said):
            return ScorerError(
                f"{self._address.url} was started anew with {difference}: start it as before, or configure "
                "the monitor anew"
            )
        return LinkError(f"{self._address.url}: one replica is of another model than the others")


def token_of_environment() -> str:
    """The token in `TOKEN`; empty: none. Raises `ScorerError` for one that no header can carry."""
    token = os.environ.get(TOKEN, "")
    if not set(token) <= set(string.ascii_letters + string.digits + string.punctuation):
        raise ScorerError(
            f"{TOKEN} holds a blank, or what is no ASCII: write letters, digits and signs alone"
        )
    return token


def _without_static(score: PrefixScore) -> PrefixScore:
    return replace(score, log_prob_static=nan, static_by_prompt=())
