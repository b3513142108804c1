"""A monitor whose scorer does what a file says: a number to give, `raise`, or `hang`. Run by test_scorers.py.

    FAULT_FILE=fault.txt python test/faults/faulty_monitor.py --ros-args -p task:=...

Everything but the scorer is the monitor's own.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from topreward_ros.core.episode import ScoreRequest
from topreward_ros.scoring import registry
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
        if fault == "hang":
            threading.Event().wait()
        return PrefixScore(float(fault), -1.0, log_prob_static=-8.0, num_frames=len(request.prefix))

    def close(self) -> None:
        pass


def _load(model: str, settings: ScorerSettings) -> FaultyScorer:
    return FaultyScorer()


registry.load_scorer = _load  # before the node takes it from there

from topreward_ros.nodes import monitor  # noqa: E402

if __name__ == "__main__":
    monitor.main()
