"""A monitor whose scorer does what a file says: a number to give, `raise`, or `hang` until the file
says otherwise. Run by test_scorers.py.

    FAULT_FILE=fault.txt python test/faults/faulty_monitor.py --ros-args -p task:=...

Everything but the scorer is the monitor's own, and a scorer hangs after 2 s.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import registry, worker
from topreward_ros.scoring.base import PrefixScore, ScorerInfo, ScorerSettings, SequentialScorer

FAULT = Path(os.environ["FAULT_FILE"])


class FaultyScorer(SequentialScorer):
    """Its score is what the file says when it is asked."""

    info = ScorerInfo(
        model_id="faulty",
        revision="",
        random_weights=False,
        device="cpu",
        dtype="float32",
        prompt_hash="",
        max_pixels=1,
    )

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        fault = FAULT.read_text()
        if fault == "raise":
            raise ZeroDivisionError("what no scorer says\x1b[2J")
        while fault == "hang":
            time.sleep(0.05)
            fault = FAULT.read_text()
        return PrefixScore(float(fault), -1.0, log_prob_static=-8.0, num_frames=len(request.prefix))

    def close(self) -> None:
        pass


def _load(model: str, settings: ScorerSettings) -> FaultyScorer:
    return FaultyScorer()


worker._HANGS_AFTER_S = 2.0
registry.load_scorer = _load  # before the node takes it from there

from topreward_ros.nodes import monitor  # noqa: E402

if __name__ == "__main__":
    monitor.main()
