"""What every scorer has in common."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

pytest.importorskip("torch")

from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring.base import ScorerError, ScorerInfo, SequentialScorer


class Tensor:
    """Stands for what takes memory."""


class Failing(SequentialScorer):
    """Fails on frames that are black, with something large in the frames of the error and of its cause."""

    info = ScorerInfo("failing", "1", False, "cpu", "float32", "0" * 16, 4096)

    def __init__(self) -> None:
        self.held: list[weakref.ref[Tensor]] = []

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        tensor = Tensor()
        self.held.append(weakref.ref(tensor))
        try:
            self._run(request)
        except ZeroDivisionError as error:
            raise ScorerError("black cannot be scored") from error
        return PrefixScore(-1.0, -2.0, num_frames=len(request.prefix))

    def _run(self, request: ScoreRequest) -> float:
        tensor = Tensor()
        self.held.append(weakref.ref(tensor))
        return 1 / int(request.prefix[-1].image.max())

    def close(self) -> None:
        pass


def request(brightness: int) -> ScoreRequest:
    return ScoreRequest.of_frames("open it", [Frame(0, np.full((2, 2, 3), brightness, np.uint8))])


def test_an_error_stands_in_the_place_of_its_score() -> None:
    scorer = Failing()
    good, bad, other = scorer.score_all([request(9), request(0), request(8)])
    assert isinstance(good, PrefixScore) and isinstance(other, PrefixScore)
    assert isinstance(bad, ScorerError) and str(bad) == "black cannot be scored"
    with pytest.raises(ScorerError, match="black"):
        scorer.score(request(0))
    assert scorer.score(request(1)).num_frames == 1


@pytest.mark.parametrize("one", [True, False])
def test_an_error_holds_on_to_nothing_of_the_work_that_failed(one: bool) -> None:
    scorer = Failing()
    gc.collect()
    gc.disable()
    try:
        if one:
            try:
                scorer.score(request(0))
            except ScorerError as error:
                kept = str(error)
        else:
            outcomes = scorer.score_all([request(0), request(5), request(0)])
            kept = str(outcomes[0])
        assert kept == "black cannot be scored"
        assert scorer.held and not any(ref() is not None for ref in scorer.held)
    finally:
        gc.enable()
