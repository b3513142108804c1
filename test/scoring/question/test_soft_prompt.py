"""Files of soft prompts: what is read back, and what is refused with a sentence."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from topreward_ros.core.output_files import write_file
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.question.prompts import prompt_hash
from topreward_ros.scoring.question.soft_prompt import (
    FORMAT,
    MAX_VECTORS,
    SoftPrompt,
    asked_of,
    check_fits,
    read_soft_prompt,
    soft_prompt_file,
)
from topreward_ros.scoring.question.templates import PAPER, read_templates

ARRAYS = {"before": np.full((3, 8), 0.5, np.float32), "after": np.full((2, 8), -0.25, np.float32)}
MARKS = {
    "format": FORMAT, "revision": "r", "layout": "v4.57", "chat_template": "false", "contrastive": "false",
    "template": PAPER,
}  # fmt: skip


@pytest.fixture
def soft() -> SoftPrompt:
    rng = np.random.default_rng(0)
    before, after = (rng.normal(size=(n, 8)).astype(np.float32) for n in (3, 2))
    return SoftPrompt(before, after, "r", "v5.10", True, True, PAPER, {"model": "m", "verdict": "better"})


def test_what_is_written_is_read(soft: SoftPrompt, tmp_path: Path, settings: ScorerSettings) -> None:
    path = tmp_path / "mine.safetensors"
    write_file(path, soft_prompt_file(soft))
    found = read_soft_prompt(str(path))
    assert np.array_equal(found.before, soft.before) and np.array_equal(found.after, soft.after)
    assert replace(found, before=soft.before, after=soft.after) == soft and found.digest == soft.digest
    assert asked_of(replace(settings, prompts=str(path))) == ("", f"soft prompt {soft.digest}")
    assert asked_of(settings) == ("", PAPER)


def test_the_digest_and_the_hash_follow_the_vectors(soft: SoftPrompt) -> None:
    moved = soft.after.copy()
    moved[-1, -1] = np.nextafter(moved[-1, -1], np.float32(9))
    others = [
        replace(soft, after=moved),
        replace(soft, before=soft.before[1:]),
        replace(soft, before=soft.after, after=soft.before),
        replace(soft, template="Is it done:{instruction}? Say:"),  # no space before the instruction
    ]
    assert len({it.digest for it in [soft, *others]}) == 5
    assert len({prompt_hash(soft=it) for it in [soft, *others]} | {prompt_hash()}) == 6
    assert replace(soft, about={}).digest == soft.digest


def test_another_model_and_what_asks_no_vectors_are_refused(soft: SoftPrompt) -> None:
    check_fits(soft, "x.safetensors", model="n", revision="r", hidden=8)
    with pytest.raises(
        ScorerError, match=r"'x.safetensors' is a soft prompt of m \(revision r\).*to n \(revision s\)"
    ):
        check_fits(soft, "x.safetensors", model="n", revision="s", hidden=8)
    with pytest.raises(ScorerError, match="vectors of 8 numbers, and n takes 9"):
        check_fits(soft, "x.safetensors", model="n", revision="r", hidden=9)
    with pytest.raises(ScorerError, match="which only a Qwen3-VL in this process can be asked"):
        read_templates("x.safetensors")


def bad(value: float) -> dict[str, np.ndarray]:
    return {**ARRAYS, "after": np.full((2, 8), value, np.float32)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda good: b"", "damaged, or cut short"),
        (lambda good: good[:-1], "damaged, or cut short"),
        (lambda good: good[:20], "damaged, or cut short"),
        (lambda good: b"\xff" * 100, "damaged, or cut short"),
        (lambda good: good + b"x", "damaged, or cut short"),
        (lambda good: b"version https://git-lfs.github.com/spec/v1\n", "git LFS"),
        (lambda good: b"x" * (65 << 20), "more than 64 MiB"),
        (lambda good: save(ARRAYS), "is no soft prompt of this version"),
        (lambda good: save(ARRAYS, {**MARKS, "format": "topreward_soft_prompt/2"}), "of this version"),
        (lambda good: save(ARRAYS, {k: v for k, v in MARKS.items() if k != "layout"}), "of this version"),
        (lambda good: save(ARRAYS, {**MARKS, "contrastive": "1"}), "of this version"),
        (
            lambda good: save(ARRAYS, {**MARKS, "template": PAPER + "a" * 17_000}),
            "template has more than 16,384",
        ),
        (lambda good: save(ARRAYS, {**MARKS, "layout": "v" * 17_000}), "layout has more than 16,384"),
        (lambda good: save(ARRAYS, {**MARKS, "\x1b" * 99: "v" * 17_000}), "has more than 16,384"),
        (lambda good: save({"before": ARRAYS["before"]}, MARKS), "it holds before, and must hold"),
        (lambda good: save({}, MARKS), "it holds nothing"),
        (lambda good: save({**ARRAYS, "more": ARRAYS["after"]}, MARKS), "it holds after, before, more"),
        (lambda good: save(bad(np.nan), MARKS), "not finite"),
        (lambda good: save(bad(np.inf), MARKS), "not finite"),
        (lambda good: save(bad(1e30), MARKS), "larger than any embedding"),
        (lambda good: save({**ARRAYS, "after": ARRAYS["after"].astype(np.float64)}, MARKS), "is float64"),
        (lambda good: save({**ARRAYS, "after": ARRAYS["after"][0]}, MARKS), "of shape (8,)"),
        (lambda good: save({**ARRAYS, "after": ARRAYS["after"][:, :4].copy()}, MARKS), "vectors of 8 and 4"),
        (lambda good: save({**ARRAYS, "after": ARRAYS["after"][:0]}, MARKS), "after has no vector"),
        (
            lambda good: save({**ARRAYS, "before": np.zeros((MAX_VECTORS + 1, 8), np.float32)}, MARKS),
            "before has 513 vectors",
        ),
        (lambda good: save(ARRAYS, {**MARKS, "template": "no place"}), "it has 0 times {instruction}"),
    ],
)
def test_a_file_that_is_none_is_named(
    content: Callable[[bytes], bytes], said: str, soft: SoftPrompt, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(content(soft_prompt_file(soft)))
    with pytest.raises(ScorerError) as error:
        read_soft_prompt(str(path))
    assert said in str(error.value) and "mine.safetensors" in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("no.safetensors", str(tmp_path), str(tmp_path / "no.safetensors")):
        with pytest.raises(ScorerError, match="cannot be read"):
            read_soft_prompt(name)


def test_a_header_that_is_no_object_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    none = b'{"__metadata__": null}'
    for header in (
        b"[]",
        b"1",
        none,
        b'{"__metadata__": 1}',
        json.dumps({"__metadata__": {"format": 1}}).encode(),
    ):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ScorerError, match=r"mine\.safetensors"):
            read_soft_prompt(str(path))
