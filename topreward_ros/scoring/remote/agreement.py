"""Whether a server scores as a monitor asks for, setting by setting; what differs is refused by name."""

from __future__ import annotations

from typing import Any

from topreward_ros.core.printable import printable
from topreward_ros.scoring.base import ScorerError, ScorerInfo, ScorerSettings
from topreward_ros.scoring.remote.address import Address
from topreward_ros.scoring.remote.protocol import AGREED, ServerInfo, templates_hash

_DTYPES = {"float16", "bfloat16", "float32"}


def check_agreement(address: Address, said: ServerInfo, settings: ScorerSettings) -> None:
    """Raise `ScorerError` where the server has another model, or would score in another way.

    How the server runs its model (threads, CUDA graphs, compiling) is its own business, and not looked at.
    """
    _check_model(address, said.model)
    _check_own(address, said.model, settings)
    asked = {name: getattr(settings, name) for name in AGREED}
    differs = [name for name in AGREED if said.settings[name] != asked[name]]
    if differs:
        theirs, ours = (
            ", ".join(f"{name} {printable(str(values[name]), 40)}" for name in differs)
            for values in (said.settings, asked)
        )
        raise ScorerError(
            f"{address.url} scores with {theirs}, and here {ours} is asked for: set the same on both sides "
            f"(there by --set {differs[0]}={asked[differs[0]]})"
        )
    if said.templates != templates_hash(settings):
        raise ScorerError(
            f"{address.url} asks other questions than prompts '{printable(settings.prompts, 200)}' here: "
            "give both the same file"
        )
    if settings.static_baseline and not said.settings["static_baseline"]:
        raise ScorerError(
            f"{address.url} computes no static baseline, which progress_mode here needs: start the server "
            "without --set progress_mode=raw_probability"
        )


def _check_model(address: Address, model: ScorerInfo) -> None:
    for name, asked, found in (
        ("model", address.model, model.model_id),
        ("revision", address.revision, model.revision),
    ):
        if asked and asked != found:
            raise ScorerError(
                f"{address.url} serves the {name} {printable(found, 200)}, and {printable(asked, 200)} was "
                f"asked for: start that one there, or leave ?{name}= out"
            )


def _check_own(address: Address, model: ScorerInfo, settings: ScorerSettings) -> None:
    """Settings that belong to a model on this machine, and were set to more than their default."""
    dtype, _, quantized = model.dtype.partition(", ")
    wrong: list[tuple[str, Any, str]] = []
    if settings.device != "auto":
        wrong.append(("device", settings.device, model.device))
    if settings.dtype in _DTYPES and settings.dtype != dtype:
        wrong.append(("dtype", settings.dtype, dtype))
    quantization = quantized.removesuffix(" weights") or "none"
    if settings.quantization not in ("none", quantization):
        wrong.append(("quantization", settings.quantization, quantization))
    for name, asked, found in wrong:
        default = "none" if name == "quantization" else "auto"
        raise ScorerError(
            f"{name} is {printable(str(asked), 60)} here, and {address.url} runs its model with "
            f"{printable(found, 60)}: set it there, and leave {name} at {default} here"
        )


def changed(before: ServerInfo, now: ServerInfo) -> str:
    """What a server that was started anew has changed, for a human; empty: nothing that matters."""
    if before.engine == now.engine:
        return ""
    pairs = [
        ("model", before.model.model_id, now.model.model_id),
        ("revision", before.model.revision, now.model.revision),
        ("dtype", before.model.dtype, now.model.dtype),
        ("prompts", before.templates, now.templates),
        *((name, before.settings[name], now.settings[name]) for name in before.settings),
    ]
    texts = [
        f"{name} {printable(str(new), 60)} instead of {printable(str(old), 60)}"
        for name, old, new in pairs
        if old != new
    ]
    return ", ".join(texts) or "its model reads frames or instructions otherwise"
