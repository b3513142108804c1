"""Which size is taken: by the time of a thread, and with the embedded model's weights where that can be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from topreward_ros.offline.distill import sizes
from topreward_ros.offline.distill.sizes import CANDIDATES, Choice, Timed, chosen, warm_start

BY_NAME = {it.name: it for it in CANDIDATES}
TOOK = {"embedded": 41.0, "embedded, smallest frames": 27.2, "smallest": 4.3, "small": 4.0}  # [ms]


def test_a_machine_that_has_others_to_serve_makes_no_tick_longer() -> None:
    class Waits:
        def score(self, request: Any) -> None:
            time.sleep(0.004)  # [s], as another process would have the CPU

    assert 0 < sizes.tick_milliseconds(Waits(), 8, 8, "open the drawer") < 4  # type: ignore[arg-type]


def test_a_tick_is_the_least_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ticks = 0.0, 0
    of_round = sizes.FRAMES + sizes._TIMED

    class Scorer:
        def score(self, request: Any) -> None:
            nonlocal now, ticks
            now += 0.010 if ticks // of_round == 1 else 0.050  # [s]
            ticks += 1

    monkeypatch.setattr(sizes.time, "thread_time", lambda: now)
    assert sizes.tick_milliseconds(Scorer(), 8, 8, "open the drawer") == pytest.approx(10)  # type: ignore[arg-type]
    assert ticks == 3 * of_round


def test_what_gives_the_embedded_weights_back() -> None:
    timings = chosen((Timed(BY_NAME[name], took) for name, took in TOOK.items()), 25.0, lambda _: None)
    assert [it.candidate.name for it in timings] == ["embedded", "embedded, smallest frames", "smallest"]
    smallest, embedded = BY_NAME["smallest"], BY_NAME["embedded"]
    assert warm_start(smallest, timings, embedded.size) == "give --budget-ms 28"
    assert warm_start(smallest, (), embedded.size) == "give --size 'embedded, smallest frames'"
    assert warm_start(BY_NAME["large"], (), embedded.size) == "give --size 'embedded, larger frames'"
    assert warm_start(embedded, timings, None) == "leave out --start-from nothing"
    assert warm_start(embedded, timings, embedded.size) == "" and Choice(embedded, ()).goes_on
