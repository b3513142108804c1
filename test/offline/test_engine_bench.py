"""What `topreward bench` measures and shows. How fast anything is, no test says."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="scoring needs PyTorch")

from topreward_ros.offline import engine_bench
from topreward_ros.offline.engine_bench import CACHE, OURS, PLAIN, Case, Row
from topreward_ros.scoring.checkpoint.random_weights import make_random_checkpoint
from topreward_ros.views.bench import bench_table, plot_bench

CASES = (
    Case("50M", 9, 2),
    Case("50M", 6, 1, (CACHE,)),
    Case("50M", 5, 1, (PLAIN,)),
    Case("50M", 5, 3, ()),
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[Row]:
    """Of a tiny model in the place of the one of 50 million."""
    folder = make_random_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    return list(engine_bench.run(CASES, {"50M": folder}, threads=1))


def test_every_case_is_measured_every_way_and_compared(rows):
    assert [row.case for row in rows] == list(CASES)
    assert list(rows[0].ways) == [OURS, PLAIN, CACHE]
    assert all(way.last_tick > 0 for row in rows for way in row.ways.values())
    assert all(way.episode > 0 for row in rows for way in row.ways.values())
    assert 0 < rows[0].difference <= 1e-4
    assert isnan(rows[1].difference)
    assert rows[0].speed_up(PLAIN, "episode") == rows[0].ways[PLAIN].episode / rows[0].ways[OURS].episode
    assert isnan(rows[1].speed_up(PLAIN, "episode"))


def test_a_way_that_says_something_else_is_noticed(rows, monkeypatch, tmp_path_factory):
    class Further(engine_bench.PlainForward):
        def score_one(self, request):
            score = super().score_one(request)
            return replace(score, log_prob=score.log_prob - 0.25)

    monkeypatch.setattr(engine_bench, "PlainForward", Further)
    folder = make_random_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    (row,) = engine_bench.run([Case("50M", 4, 1)], {"50M": folder}, threads=1)
    assert row.difference == pytest.approx(0.25, abs=1e-3)


def test_the_results_are_plain_data_and_name_the_machine(rows):
    content = json.loads(json.dumps(engine_bench.to_json(rows), allow_nan=False))
    assert content["format"] == "topreward_bench/1"
    assert content["machine"]["torch"] and content["machine"]["cores"] >= 1
    assert content["rows"][1]["difference"] is None
    assert content["rows"][0]["case"]["frames"] == 9
    assert content["rows"][0]["ways"][OURS]["episode"] == rows[0].ways[OURS].episode


def test_table_and_picture_show_every_case(rows, tmp_path: Path):
    said = io.StringIO()
    Console(file=said, width=140).print(bench_table(rows, engine_bench.machine()))
    lines = said.getvalue().splitlines()
    assert f"{rows[0].speed_up(PLAIN, 'episode'):.1f}x" in lines[1]
    assert lines[2].split()[0:3] == ["50M", "6", "1"]
    estimate = 3 * rows[2].ways[PLAIN].last_tick / rows[3].ways[OURS].last_tick
    assert f"~{estimate:.1f}x" in lines[4] and "~" not in lines[1] + lines[2] + lines[3]
    assert "torch" in lines[-1]
    picture = tmp_path / "bench.svg"
    plot_bench(rows[:2], engine_bench.machine(), picture)
    assert "9 frames, 2 prompts" in picture.read_text()
