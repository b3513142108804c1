"""Episodes scored side by side by a server that is away for a while."""

from __future__ import annotations

import gc
from collections.abc import Generator

import numpy as np
import pytest

from test.scorers import Brightness
from topreward_ros.core.frames import Frame
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.offline import side_by_side
from topreward_ros.offline.side_by_side import score_side_by_side
from topreward_ros.scoring.base import BusyError, LinkError, ScorerError


class Away(Brightness):
    """Answers as it is told: True, or the error of a server."""

    def __init__(self, *says: ScorerError | bool) -> None:
        super().__init__()
        self.says = iter(says)

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        said = next(self.says, True)
        if isinstance(said, ScorerError):
            raise said
        return super().score_one(request)


def episode() -> Generator[ScoreRequest, PrefixScore | None, str]:
    """One that asks for one score."""
    yield ScoreRequest.of_frames("t", [Frame(0, np.zeros((2, 2, 3), np.uint8))])
    return "done"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(side_by_side, "sleep", made.append)
    return made


def test_a_server_that_is_gone_is_told_once_and_that_it_answers_again(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    gone = (LinkError(f"cannot be reached {k}") for k in range(100))
    scorer = Away(*(next(gone) for _ in range(14)), True, True, *(next(gone) for _ in range(2)))
    outcomes = [it for _, it in score_side_by_side([episode() for _ in range(12)], scorer, 1)]
    assert [isinstance(it, LinkError) for it in outcomes] == [True] * 9 + [False] * 3
    assert pauses == [1, 2, 3, 4, 5, 1, 2], "it is waited for once, and again where it had come back"
    assert [it.getMessage().split(";")[0] for it in caplog.records] == [
        "cannot be reached 0",
        "brightness answers again",
        "cannot be reached 14",
        "brightness answers again",
    ]
    assert "6 times for a score, in 15 s, before an episode is given up" in caplog.records[0].getMessage()


def test_a_server_that_is_often_busy_is_told_once(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = Away(BusyError("wait", 7.0), True, BusyError("wait 8", 8.0), True)
    assert [it for _, it in score_side_by_side([episode(), episode()], scorer, 1)] == ["done"] * 2
    assert pauses == [7.0, 8.0] and len(caplog.records) == 1


def test_another_run_in_the_process_tells_anew_and_nothing_is_kept(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker asks the same scorer job after job; a run that ended while the server was gone is over."""
    gc.collect()  # those of other tests
    kept = len(side_by_side._outages)
    for _ in range(2):
        scorer = Away(*(LinkError("gone") for _ in range(7)), BusyError("busy", 1.0), BusyError("busy", 1.0))
        for _ in range(3):
            list(score_side_by_side([episode()], scorer, 1))
        assert len(side_by_side._outages) == kept + 1
        del scorer
        gc.collect()
    said = [it.getMessage().split(";")[0] for it in caplog.records]
    assert said == ["gone", "busy", "brightness answers again"] * 2
    assert len(side_by_side._outages) == kept
