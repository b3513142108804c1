"""A monitor whose every score from a server is computed here as well, for the same prefix. Run by
test_served.py.

    COMPARED_FILE=scores.jsonl python test/ros/comparing_monitor.py --ros-args -p model:=http://...

Everything else is the monitor's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from topreward_ros.core.frames import Frame
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.scoring import registry
from topreward_ros.scoring.base import PrefixScore, PrefixScorer, ScorerError, ScorerSettings

COMPARED = Path(os.environ["COMPARED_FILE"])
load_scorer = registry.load_scorer


class Comparing(PrefixScorer):
    """Gives what the server says, and writes down what a local scorer says of the same request."""

    def __init__(self, model: str, settings: ScorerSettings) -> None:
        self._served = load_scorer(model, settings)
        self._local = load_scorer("embedded", settings)
        self.info = self._served.info

    def score_all(
        self, requests: Sequence[ScoreRequest], kept: Sequence[Frame] = ()
    ) -> list[PrefixScore | ScorerError]:
        outcomes = self._served.score_all(requests, kept)
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, PrefixScore):
                local = self._local.score(request)
                line = {
                    "stamp": request.prefix[-1].stamp_ns,
                    "frames": [outcome.num_frames, local.num_frames],
                    "log_prob": [outcome.log_prob, local.log_prob],
                    "log_prob_static": [outcome.log_prob_static, local.log_prob_static],
                }
                with COMPARED.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        return outcomes

    def close(self) -> None:
        self._served.close()
        self._local.close()


registry.load_scorer = Comparing  # before the node takes it from there

from topreward_ros.nodes import monitor  # noqa: E402

if __name__ == "__main__":
    monitor.main()
