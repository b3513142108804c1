"""A model is loaded beside others: nothing keeps Python's interpreter for itself."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from topreward_ros.nodes.loading import beside_others, let_go


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_searched_for_garbage_meanwhile_and_what_came_is_left_alone_afterwards() -> None:
    before = sys.getswitchinterval()
    with beside_others():
        assert not gc.isenabled() and sys.getswitchinterval() < before
        lasting = [[] for _ in range(1000)]
    assert gc.isenabled() and sys.getswitchinterval() == before
    assert gc.get_freeze_count() > len(lasting)


def test_a_loading_that_fails_leaves_everything_as_it_was() -> None:
    before = sys.getswitchinterval()
    with pytest.raises(MemoryError), beside_others():
        raise MemoryError
    assert gc.isenabled() and sys.getswitchinterval() == before and not gc.get_freeze_count()


def test_a_model_that_is_let_go_is_collected() -> None:
    collected: list[str] = []

    class Model:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            collected.append("model")

    with beside_others():
        model = Model()
    del model
    gc.collect()
    assert not collected, "it counts as lasting"
    let_go()
    assert collected == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries are mapped so on Linux alone")
def test_the_libraries_are_there_before_pytorch_is_imported() -> None:
    program = """
import sys
from pathlib import Path
from topreward_ros.nodes.loading import beside_others
with beside_others():
    assert "torch" not in sys.modules
    print("libtorch_cpu" in Path("/proc/self/maps").read_text())
    import torch
print(float(torch.ones(3).sum()))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "3.0"]


def test_two_loadings_at_once_leave_everything_as_it_was_once_both_are_over() -> None:
    before = sys.getswitchinterval()
    one, other = beside_others(), beside_others()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert not gc.isenabled() and sys.getswitchinterval() < before, "the other one still loads"
    other.__exit__(None, None, None)
    assert gc.isenabled() and sys.getswitchinterval() == before
