"""A model is loaded beside others: nothing keeps Python's interpreter for itself."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from topreward_ros.nodes import loading
from topreward_ros.nodes.loading import beside_others, let_go


def nothing() -> bool:
    """What there is to import."""
    return False


def broken() -> bool:
    raise ImportError("no such library")


class Model:
    """One that only a search for garbage finds, once nobody has it."""

    def __init__(self, gone: list[str]) -> None:
        self.itself, self.gone = self, gone

    def __del__(self) -> None:
        self.gone.append("model")


def test_nothing_is_searched_for_garbage_meanwhile() -> None:
    before = sys.getswitchinterval()
    with beside_others(nothing):
        assert not gc.isenabled() and sys.getswitchinterval() < before
    assert gc.isenabled() and sys.getswitchinterval() == before


def test_a_loading_that_fails_leaves_everything_as_it_was() -> None:
    before = sys.getswitchinterval()
    with pytest.raises(MemoryError), beside_others(broken):
        raise MemoryError
    assert gc.isenabled() and sys.getswitchinterval() == before


def test_code_that_is_imported_counts_as_lasting_and_a_model_does_not(monkeypatch) -> None:
    monkeypatch.setattr(loading, "_lasts", False)
    code: list[list[int]] = []
    gone: list[str] = []

    def imports() -> bool:
        code.extend([] for _ in range(1000))
        return True

    try:
        for other in (nothing, broken):
            with beside_others(other):
                assert not gc.get_freeze_count()
        with beside_others(imports):
            count = gc.get_freeze_count()
            assert count > len(code)
            model = Model(gone)
        with beside_others(imports):
            assert gc.get_freeze_count() <= count, "there is a model by now"
        del model
        let_go()
        assert gone == ["model"]
    finally:
        gc.unfreeze()


def test_a_model_that_goes_while_another_is_loaded_is_collected_at_the_end_of_that() -> None:
    gone: list[str] = []
    Model(gone)
    with beside_others(nothing):
        let_go()
        assert not gone
    assert gone == ["model"]


def test_a_checkpoint_that_is_let_go_is_free_at_once_and_the_search_is_short(tmp_path) -> None:
    program = f"""
import gc, time, weakref
from functools import partial
from topreward_ros.defaults import monitor_defaults
from topreward_ros.nodes.loading import beside_others, let_go
from topreward_ros.scoring.base import ScorerSettings
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.scoring.pool import ScorerPool
from topreward_ros.scoring.registry import import_libraries, load_scorer
model = {str(tmp_path / "model")!r}
with beside_others(partial(import_libraries, model)):
    make_random_checkpoint(model)
    place = ScorerPool(load_scorer).take(model, ScorerSettings.from_parameters(monitor_defaults()))
gc.disable()
weights = [weakref.ref(weight) for weight in place.worker.scorer._model.parameters()]
place.worker.stop()
del place
print(len(weights), sum(weight() is not None for weight in weights), len(gc.get_objects()))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    weights, left, searched = map(int, said.stdout.split())
    assert weights > 100 and not left
    assert searched < 100_000, "PyTorch alone has more than twice as many"


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries are mapped so on Linux alone")
def test_the_libraries_are_there_before_pytorch_is_imported() -> None:
    program = """
import sys
from pathlib import Path
from topreward_ros.nodes.loading import beside_others
with beside_others(lambda: False):
    assert "torch" not in sys.modules
    print("libtorch_cpu" in Path("/proc/self/maps").read_text())
    import torch
print(float(torch.ones(3).sum()))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "3.0"]


def test_two_loadings_at_once_leave_everything_as_it_was_once_both_are_over() -> None:
    before = sys.getswitchinterval()
    one, other = beside_others(nothing), beside_others(nothing)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert not gc.isenabled() and sys.getswitchinterval() < before, "the other one still loads"
    other.__exit__(None, None, None)
    assert gc.isenabled() and sys.getswitchinterval() == before
