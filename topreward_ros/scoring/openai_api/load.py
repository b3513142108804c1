"""From the URL of a served model to its scorer: which model, which way of asking, and whether it answers."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import Any

import numpy as np

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.frame_size import UNIT, VIDEO_PIXELS, smaller_frames
from topreward_ros.scoring.openai_api.address import key_for, read_endpoint
from topreward_ros.scoring.openai_api.client import Client, MissingError
from topreward_ros.scoring.openai_api.images import ImagesStyle
from topreward_ros.scoring.openai_api.scorer import AT_ONCE, ServedScorer, encoded
from topreward_ros.scoring.openai_api.style import SentVideo, Style
from topreward_ros.scoring.openai_api.video import TRIAL_SIDE, VideoStyle, reads_qwen_videos
from topreward_ros.scoring.question.answer_set import expected_of
from topreward_ros.scoring.question.prompts import Framing
from topreward_ros.scoring.question.templates import Question, asked_question, preset_advice

TIMEOUT_S = 30.0  #: for one answer
SERVED = "served"  #: in place of a device and a type of numbers, which only the server knows

_log = logging.getLogger(__name__)

_SHOWN_MODELS = 20
_MOST_MODELS = 10_000


def load_openai(model: str, settings: ScorerSettings, timeout_s: float = TIMEOUT_S) -> ServedScorer:
    """The scorer of the model at a URL, see `address`, after a trial. Raises `ScorerError`."""
    scorer = _made(model, settings, timeout_s)
    try:
        scorer.begin(_trial_video())
    except BaseException:
        scorer.close()
        raise
    return scorer


def about_openai(model: str, settings: ScorerSettings) -> ScorerInfo:
    """What is known of the model at a URL before it scores. Raises `ScorerError`."""
    scorer = _made(model, settings, TIMEOUT_S)
    scorer.close()
    return scorer.info


def _made(model: str, settings: ScorerSettings, timeout_s: float) -> ServedScorer:
    """The scorer before its trial."""
    endpoint = read_endpoint(model)
    _refuse_settings(settings)
    question = asked_question(settings)
    framing = Framing.of(question, settings)
    client = Client(endpoint, key_for(endpoint), timeout_s, AT_ONCE)
    try:
        name, is_vllm = find_model(client, endpoint.model)
        shown = f"model '{printable(name, 200)}' at {endpoint.url}"
        style: Style
        if is_vllm and reads_qwen_videos(client, name, shown):
            style = VideoStyle(client, name, framing)
        else:
            _refuse_for_images(settings, question)
            style = ImagesStyle(client, name, framing)
    except BaseException:
        client.close()
        raise
    if advice := preset_advice(name, question):
        _log.warning("%s", advice)
    model_id = f"{endpoint.url}#{name}"
    pixels = settings.max_pixels
    if isinstance(style, VideoStyle):
        pixels_of = partial(_video_frame_pixels, pixels)
        pixels = pixels_of(settings.shown_frames)
        if smaller := smaller_frames(settings, pixels_of):
            _log.warning("%s", smaller)
    info = ScorerInfo(
        model_id=model_id,
        # Scores that are kept are known by it, and those of two servers are not the same.
        revision=f"{SERVED}-{hashlib.sha256(model_id.encode()).hexdigest()[:8]}",
        random_weights=False,
        device=endpoint.origin,
        dtype=SERVED,
        prompt_hash=style.prompt_hash(question.templates),
        max_pixels=pixels,
        front_padding=settings.front_padding,
        fixed_length=settings.fixed_length,
        answers=expected_of(question.answers, settings.contrastive),
    )
    return ServedScorer(style, question, settings, info)


def _video_frame_pixels(most: int, frames: int) -> int:
    """Pixels of one frame of so many, which share those of a video; ``most`` at most."""
    return max(UNIT**2, min(most, VIDEO_PIXELS // frames))


def find_model(client: Client, wanted: str) -> tuple[str, bool]:
    """The model's name on the server, and whether the server is a vLLM. Raises `ScorerError`."""
    endpoint = client.endpoint
    try:
        answer = client.get("/models")
    except MissingError:
        if wanted:  # a server need not list its models
            return wanted, False
        raise
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise ScorerError(
            f"{endpoint.url}/models lists no models: check the URL, which ends in the path of the API, such "
            "as /v1"
        )
    known: dict[str, Any] = {
        entry["id"]: entry.get("owned_by")
        for entry in entries[:_MOST_MODELS]
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    }
    if not wanted:
        if len(known) == 1:
            wanted = next(iter(known))
            if client.holds_key(wanted):
                raise ScorerError(f"{endpoint.url} calls its model by the key, and names are published")
        else:
            raise ScorerError(
                f"{endpoint.url} has {_listed(client, known)}: name one, as in {endpoint.url}#NAME"
            )
    if known and wanted not in known and f"models/{wanted}" not in known:
        raise ScorerError(
            f"{endpoint.url} has no model '{printable(wanted, 200)}', but {_listed(client, known)}: name one "
            "of them after #"
        )
    return wanted, known.get(wanted) == "vllm"


def _listed(client: Client, known: dict[str, Any]) -> str:
    names = [client.quoted(name)[:100] for name in list(known)[:_SHOWN_MODELS]]
    more = f" and {len(known) - len(names)} more" if len(known) > len(names) else ""
    return f"the models {', '.join(names)}{more}" if names else "no model"


def _refuse_settings(settings: ScorerSettings) -> None:
    """Raise `ScorerError` for a setting that only a model in this process follows."""
    for name, usual in (
        ("device", "auto"),
        ("dtype", "auto"),
        ("quantization", "none"),
        ("compile", "false"),
    ):
        if (value := getattr(settings, name)) != usual:
            raise ScorerError(
                f"{name} is {value!r}, and the model is served elsewhere: the server decides that; leave "
                f"{name} at '{usual}'"
            )


def _refuse_for_images(settings: ScorerSettings, question: Question) -> None:
    """Raise `ScorerError` for a setting that a chat about images cannot follow."""
    if settings.contrastive:
        raise ScorerError(
            "contrastive is true, and this server lists only the likeliest words, often without one of True "
            "and False: set it to false"
        )
    if question.reply:
        raise ScorerError(
            f"prompts ({question.shown}) begins the reply with {question.reply!r}, and at "
            "this server nobody can begin the assistant's turn: name a file without a line 'reply:', or "
            "serve the model with vLLM, see docs/served_models.md"
        )
    if settings.layout != Framing().layout:
        raise ScorerError(
            f"layout is {settings.layout!r}, and this server writes the token stream itself: leave it at "
            f"'{Framing().layout}'"
        )


def _trial_video() -> SentVideo:
    """Four small frames, at times that no server would make up."""
    picture = np.tile(np.arange(TRIAL_SIDE, dtype=np.uint8)[:, None, None], (1, TRIAL_SIDE, 3))
    pictures = (encoded(picture), encoded(picture[::-1].copy()))
    return SentVideo(pictures * 2, (0.0, 0.5, 7.4, 12.2), 4 * TRIAL_SIDE**2)
