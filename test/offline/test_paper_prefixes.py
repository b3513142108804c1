"""Which frames the authors' schedule takes where the stamps of a video are not those of its frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from topreward_ros.offline.paper_prefixes import PaperPrefixes, scheduled_frames


@pytest.mark.parametrize("rate", [3.0, 5.0, 15.0, 24.0, 25.0, 30000 / 1001, 30.0, 60.0])
def test_stamps_that_a_container_rounded_to_milliseconds_change_nothing(rate: float) -> None:
    exact = [k / rate for k in range(400)]
    rounded = [round(time, 3) for time in exact]
    rule = np.round(np.arange(0, 400, rate / 2)).astype(int)
    assert scheduled_frames(rounded, rate, 2.0) == scheduled_frames(exact, rate, 2.0) == list(rule)
    stamps_ns = [round(time * 1e9) for time in rounded]
    prefixes = PaperPrefixes.of(stamps_ns, rate, 2.0, 15)
    assert list(prefixes.stamps_ns.values()) == [round(k * 1e9 / rate) for k in rule]


def test_a_rate_below_the_sampling_takes_every_frame() -> None:
    assert scheduled_frames([float(k) for k in range(6)], 1.0, 2.0) == [0, 1, 2, 3, 4, 5]


def test_at_a_variable_rate_the_stamps_count() -> None:
    """2 s at 10 Hz, a gap of 3 s, 2 s at 30 Hz; the file states 20 Hz."""
    stamps = [k / 10 for k in range(21)] + [5 + k / 30 for k in range(61)]
    taken = scheduled_frames(stamps, 20.0, 2.0)
    assert [stamps[k] for k in taken] == pytest.approx([0, 0.5, 1, 1.5, 2, 5, 5.5, 6, 6.5, 7])
    prefixes = PaperPrefixes.of([round(time * 1e9) for time in stamps], 20.0, 2.0, 4)
    assert list(prefixes.stamps_ns.values()) == [round(stamps[k] * 1e9) for k in taken]
    assert sum(len(lengths) for lengths in prefixes.lengths.values()) == 4
