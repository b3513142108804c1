"""The band of successful runs, asked by the very detector that a monitor has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from topreward_ros.core.calibration.band import band_of
from topreward_ros.core.calibration.curves import LabelledCurve, Look
from topreward_ros.core.detectors.failure import ConformalBand, FailureDetector, FailureSettings
from topreward_ros.core.detectors.sample import Sample


def failing(band: ConformalBand | None, curves: Sequence[LabelledCurve]) -> list[str]:
    """The names of the runs that the detector of a monitor ends with this band."""
    made = []
    for it in curves:
        detector = FailureDetector(FailureSettings(threshold=0.0, after=0.0, dwell=0.0, band=band))
        if any(detector.update(Sample(look.stamp_ns, look.time_s, look.progress)) for look in it.looks):
            made.append(it.name)
    return made


def runs(count: int, *, seed: int, rate: float = 2.0, noise: float = 0.05) -> list[LabelledCurve]:
    """Successes that begin at no progress at all, and whose progress is noisy from score to score."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        times = np.arange(int(8 * rate)) / rate
        rise = 1 / (1 + np.exp(-2 * (times - rng.uniform(3.0, 4.0))))
        progress = np.clip(rise + rng.normal(0, noise, len(times)), 0, 1)
        progress[0] = 0.0  # as of the static baseline: the first frame against itself
        looks = [Look(round(t * 1e9), -1.0, -4.0, p) for t, p in zip(times, progress.tolist(), strict=True)]
        made.append(LabelledCurve(f"run-{number}", True, tuple(looks)))
    return made


@pytest.mark.parametrize("rate", [2.0, 3.0, 10.0])
@pytest.mark.parametrize("count", [19, 20, 45])
def test_the_successes_of_a_band_are_no_failures(count: int, rate: float) -> None:
    successes = runs(count, seed=count, rate=rate)
    band = band_of(successes, lambda look: look.progress)
    assert band is not None
    assert len(failing(band, successes)) <= 0.05 * count
    stopped = [
        replace(it, looks=tuple(replace(look, progress=0.0) for look in it.looks)) for it in successes[:5]
    ]
    assert len(failing(band, stopped)) == 5


def test_the_first_score_of_a_run_is_never_a_failure() -> None:
    band = band_of(runs(19, seed=1), lambda look: look.progress)
    first = [replace(it, looks=it.looks[:1]) for it in runs(200, seed=2)]
    assert band is not None and not failing(band, first)


def test_one_low_run_draws_no_band_above_all_others() -> None:
    """It lowers the mean so far that every other run is above it."""
    values = [0.9] * 44 + [0.01]
    looks = [tuple(Look(k * 10**9, -1.0, -4.0, value) for k in range(3)) for value in values]
    successes = [LabelledCurve(f"run-{k}", True, it) for k, it in enumerate(looks)]
    assert failing(band_of(successes, lambda look: look.progress), successes) == ["run-44"]


def with_dips(curves: Sequence[LabelledCurve], *, seed: int) -> list[LabelledCurve]:
    """One score of a quarter of the runs is low, late in it: mostly none at the half seconds of a band."""
    rng = np.random.default_rng(seed)
    made = []
    for it in curves:
        looks = list(it.looks)
        place = int(rng.integers(len(looks) * 3 // 4, len(looks)))
        if rng.random() < 0.25:
            looks[place] = replace(looks[place], progress=looks[place].progress * 0.2)
        made.append(replace(it, looks=tuple(looks)))
    return made


@pytest.mark.parametrize("count", [19, 39, 99])
def test_a_band_holds_however_fast_scores_come(count: int) -> None:
    def fast(number: int, seed: int) -> list[LabelledCurve]:
        return with_dips(runs(number, seed=seed, rate=10.0, noise=0.01), seed=seed)

    band = band_of(fast(count, seed=3), lambda look: look.progress)
    assert len(failing(band, fast(400, seed=4))) <= 0.1 * 400  # 0.05 are expected
