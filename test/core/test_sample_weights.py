"""RA-BC's and TOP-AWR's weights against hand-computed cases, and against LeRobot's own where these are."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path

import numpy as np
import pytest

from topreward_ros.core.rewards import RabcSettings
from topreward_ros.core.sample_weights import advantage_weights, rabc_weights

ORACLES = Path(__file__).parents[3] / "shared" / "data"


def test_rabc_by_hand() -> None:
    """Two episodes; over 2 rows: 0.005, -0.1 (to the last row), 0 (the last row itself); then NaN and 0.5."""
    index = np.array([10, 11, 12, 13, 14])
    episode = np.array([0, 0, 0, 1, 1])
    progress = np.array([0.2, 0.305, 0.205, np.nan, 0.5])
    made = rabc_weights(index, episode, progress, RabcSettings(chunk_size=2))
    deltas = [0.005, -0.1, 0.0, 0.0]  # of the rows 10, 11, 12, 14
    mean, std = max(float(np.mean(deltas)), 0.0), float(np.std(deltas))
    assert made.delta_mean == mean == 0.0
    assert made.delta_std == pytest.approx(std)
    soft = [(delta + 2 * std) / (4 * std + 1e-6) for delta in deltas]
    assert made.weights.tolist() == pytest.approx([soft[0], 0.0, soft[2], 1.0, soft[3]], rel=1e-5)
    assert made.normalised(1e-6).mean() == pytest.approx(1.0)


def test_rabc_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    index, episode = np.arange(60), np.repeat([0, 1, 2], 20)
    progress = rng.random(60)
    progress[rng.integers(0, 60, 8)] = np.nan
    settings = RabcSettings(chunk_size=7)
    shuffled = rng.permutation(60)
    straight = rabc_weights(index, episode, progress, settings)
    mixed = rabc_weights(index[shuffled], episode[shuffled], progress[shuffled], settings)
    assert (mixed.weights == straight.weights[shuffled]).all()


def test_rabc_where_nothing_is_known_weighs_one() -> None:
    made = rabc_weights(np.arange(3), np.zeros(3, int), np.full(3, np.nan), RabcSettings())
    assert made.weights.tolist() == [1.0, 1.0, 1.0]
    assert (made.delta_mean, made.delta_std) == (0.0, 1e-6)


@pytest.mark.skipif(not (ORACLES / "rabc_weights.json").is_file(), reason="LeRobot's weights are not here")
def test_rabc_is_what_lerobot_computes() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    oracle = json.loads((ORACLES / "rabc_weights.json").read_text())
    table = parquet.read_table(ORACLES / "rabc_progress.parquet")
    columns = [table[name].to_numpy() for name in ("index", "episode_index", "progress_sparse")]
    settings = RabcSettings(oracle["chunk_size"], oracle["kappa"], oracle["epsilon"])
    made = rabc_weights(*columns, settings)
    assert made.delta_mean == oracle["stats"]["delta_mean"]
    assert made.delta_std == oracle["stats"]["delta_std"]
    assert made.normalised(settings.epsilon) == pytest.approx(
        np.array(oracle["weights_of_all_rows_as_one_batch"]), abs=2e-6
    )


def test_awr_weighs_the_actions_between_two_scores_by_eq_3() -> None:
    progress = np.array([0.6, 0.6, 0.6, 0.1, 0.1, np.nan, 0.3, 0.3, 0.4])
    scored = np.array([1, 0, 0, 1, 0, 1, 1, 0, 1], bool)
    made = advantage_weights(progress, scored, tau=2.0, delta_max=2.0)
    fall = 2 * exp(0.1 - 0.6)
    assert made.tolist() == pytest.approx([fall] * 3 + [1.0] * 3 + [2.0] * 2 + [1.0])
    rise = advantage_weights(progress, scored, tau=0.5, delta_max=2.0)[6]
    assert rise == pytest.approx(0.5 * exp(0.1))
