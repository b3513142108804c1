"""A model proposes stages: real checkpoints, really loaded, one of which has learnt a single answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from topreward_ros.cli import main
from topreward_ros.core.plan import PlanError, question
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.plan import propose
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint

SETTINGS = ScorerSettings.from_parameters(monitor_defaults())
TASK = "tidy the workshop"
ANSWER = "1. open the drawer\n2. close the drawer"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_random_checkpoint(tmp_path_factory.mktemp("plan") / "random")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def trained(untrained: Path) -> Path:
    """It has learnt to answer one question."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

    folder = untrained.parent / "trained"
    shutil.copytree(untrained, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    chat = [{"role": "user", "content": question(TASK, sees=False)}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = tokenizer(f"{ANSWER}<|im_end|>")["input_ids"]
    tokens = torch.tensor([[*prompt, *answer]])
    labels = tokens.clone()
    labels[:, : len(prompt)] = -100
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is only slowed down by more
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.model.language_model.parameters(), 3e-3)
    for _ in range(200):
        loss = model(input_ids=tokens, labels=labels).loss
        if loss < 0.05:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    assert loss < 0.05
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def test_what_a_model_writes_is_proposed_a_stage_per_line(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["plan", TASK, "--model", str(trained)]) == 0
    said = capsys.readouterr()
    assert said.out == "open the drawer\nclose the drawer\n"
    assert "Read it and edit it before you use it" in said.err and "random weights" in said.err


def test_what_a_model_without_training_writes_is_refused(untrained: Path) -> None:
    with pytest.raises(PlanError, match=r"numbered list|has no end|no short command|cannot be read"):
        propose(TASK, str(untrained), SETTINGS)


def test_what_cannot_be_asked_is_refused_by_name(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"'embedded' was trained to score a list .* writes no text"):
        propose(TASK, "embedded", SETTINGS)
    folder = tmp_path / "dumb"
    shutil.copytree(untrained, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ScorerError, match=r"cannot be asked .* a chat template"):
        propose(TASK, str(folder), SETTINGS)
    with pytest.raises(PlanError, match=r"none.png cannot be read \(No such file"):
        propose(TASK, str(untrained), SETTINGS, tmp_path / "none.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(PlanError, match=r"broken\.png"):
        propose(TASK, str(untrained), SETTINGS, tmp_path / "broken.png")
