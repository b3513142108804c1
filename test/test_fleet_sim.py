"""`bench/fleet_sim.py`: limits that are known by arithmetic, and what must hold of any fleet."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from topreward_ros.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "bench" / "fleet_sim.py").is_file():
    pytest.skip("bench/ is not installed with the package", allow_module_level=True)

#: Nothing between robot and replica, and nothing that varies.
BARE = {"jitter": 0.0, "network": 0.0, "network_jitter": 0.0, "frame": 0.0}


@pytest.fixture
def sim(monkeypatch):
    """The modules of the simulation, by their last names."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    names = {
        name: importlib.import_module(name) for name in ("fleet", "fleet_play", "fleet_service", "fleet_sim")
    }
    modules = SimpleNamespace(**names)

    def play(service, **fleet):
        return modules.fleet_play.Simulation(modules.fleet.Fleet(**fleet), service).run()

    modules.play = play
    modules.service = lambda pass_ms, **more: modules.fleet_service.Service(
        "test", pass_ms, **{"held": 10_000, **more}
    )
    return modules


def assert_every_tick_has_its_end(outcome) -> None:
    assert outcome.due == outcome.scored + outcome.replaced + outcome.late > 0
    assert len(outcome.times) == outcome.scored


# ---- known by arithmetic ---------------------------------------------------------------------------------


def test_one_robot_waits_for_nobody(sim):
    """D/D/1 below its limit: every score takes its pass, the frame's way and the network's."""
    service = sim.service({1: 35.0})
    outcome = sim.play(service, robots=1, replicas=1, rate=2.0, seconds=120.0, **BARE)
    assert outcome.ages == pytest.approx([0.035] * outcome.due)
    far = {**BARE, "network": 0.005, "frame": 0.007}
    outcome = sim.play(service, robots=1, replicas=1, rate=2.0, seconds=120.0, **far)
    assert outcome.ages == pytest.approx([0.035 + 0.007 + 2 * 0.005] * outcome.due)


def test_robots_out_of_step_wait_for_nobody_and_robots_in_step_wait_in_turn(sim):
    service = sim.service({1: 20.0})
    fleet = {"robots": 10, "replicas": 1, "rate": 2.0, "seconds": 60.0, **BARE}
    even = sim.play(service, phases="even", **fleet)
    assert max(even.ages) == pytest.approx(0.02)
    together = sim.play(service, phases="together", episode=1000.0, **fleet)
    assert sorted(together.ages[-10:]) == pytest.approx([0.02 * place for place in range(1, 11)])


def test_a_pass_of_several_takes_its_own_time(sim):
    """Ten at once, eight in a pass: one of eight, then one of two, whose time lies between those measured."""
    service = sim.service({1: 30.0, 4: 60.0, 8: 100.0})
    fleet = {"robots": 10, "replicas": 1, "rate": 2.0, "seconds": 20.0, "episode": 1000.0, **BARE}
    outcome = sim.play(service, phases="together", **fleet)
    first, last = 0.03, 0.03 + 0.1  # the first to come finds the replica idle
    rest = 0.03 + 0.1 + 0.03  # one of ten is left
    assert sorted(outcome.ages[:10]) == pytest.approx([first, *[last] * 8, rest])
    assert sim.fleet_service.table_of({1: 30.0, 4: 60.0, 8: 100.0}, 8) == pytest.approx(
        [0.0, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1]
    )


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_many_robots_wait_as_at_a_queue_of_random_arrivals(sim, load):
    """M/D/1: the mean wait is load / (2 (1 - load)) of a pass, whatever the order of service. Many robots
    that seldom ask come at random; a newer request hardly ever replaces one."""
    robots, pass_s, seconds = 1000, 0.02, 250.0
    fleet = {
        "robots": robots,
        "replicas": 1,
        "rate": load / pass_s / robots,
        "seconds": seconds,
        "episode": 1e6,
    }
    waited, busy = [], []
    for seed in range(6):  # each draws phases, which repeat with the period
        outcome = sim.play(sim.service({1: 1e3 * pass_s}), seed=seed, **fleet, **{**BARE, "jitter": 5.0})
        assert outcome.dropped < 1e-3
        waited.append(float(np.mean(outcome.ages)) - pass_s)
        busy.append(outcome.busy / seconds)
    assert np.mean(busy) == pytest.approx(load, rel=0.1)
    assert np.mean(waited) == pytest.approx(load / (2 * (1 - load)) * pass_s, rel=0.1)


@pytest.mark.parametrize("one_in_flight", [True, False])
def test_more_than_a_replica_can_do_is_replaced_by_what_is_newer(sim, one_in_flight):
    """Twice the load: half of the ticks are scored, the replica never rests, and no age grows with time."""
    service = sim.service({1: 50.0})
    fleet = {"robots": 20, "replicas": 1, "rate": 2.0, "seconds": 200.0, "episode": 1000.0, **BARE}
    outcome = sim.play(service, one_in_flight=one_in_flight, **fleet)
    assert outcome.scored / outcome.due == pytest.approx(0.5, abs=0.06)
    assert outcome.busy / 200.0 > 0.98
    longest = 20 * 0.05 + 0.5  # all others first, and a period until the next is due
    assert max(outcome.ages) < (2 if one_in_flight else 1) * longest
    assert_every_tick_has_its_end(outcome)


def test_an_episode_that_is_not_held_is_read_anew(sim):
    """In turns round more robots than are held, none is ever there; every score reads its whole prefix."""
    fleet = {"robots": 6, "replicas": 1, "rate": 1.0, "seconds": 40.0, "episode": 1000.0, **BARE}
    fleet["phases"] = "even"
    held = sim.play(sim.service({1: 5.0}, refill_ms=1.0, held=6), **fleet)
    assert held.refills == 0 and max(held.ages) == pytest.approx(0.005)
    thrown = sim.play(sim.service({1: 5.0}, refill_ms=1.0, held=5), **fleet)
    assert thrown.refills == thrown.due - 6
    assert max(thrown.ages) == pytest.approx(0.005 + 38 * 0.001), "40 frames, two of which are the tick's"


def test_a_baseline_that_was_computed_ahead_costs_no_tick(sim):
    fleet = {"robots": 1, "replicas": 1, "rate": 1.0, "seconds": 20.0, "episode": 1000.0, "lead": 10, **BARE}
    times = {"pass_ms": {1: 30.0}, "baseline_pass_ms": {1: 50.0}}
    ahead = sim.play(sim.service(**times, step_ms=20.0), **fleet)
    assert ahead.ages == pytest.approx([0.05] + [0.03] * (ahead.due - 1)), "but the first"
    busy = sim.play(sim.service(**times, step_ms=0.0), **fleet)
    assert busy.ages == pytest.approx([0.05] * busy.due)


# ---- what must hold of any fleet -------------------------------------------------------------------------

WILD = {
    "robots": 60,
    "replicas": 4,
    "rate": 2.0,
    "seconds": 120.0,
    "episode": 10.0,
    "pause": 0.5,
    "dies_every": 20.0,
    "repair": 10.0,
    "stray": 0.05,
}


@pytest.mark.parametrize("one_in_flight", [True, False])
@pytest.mark.parametrize("notice", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_tick_has_its_end_whatever_dies(sim, one_in_flight, notice, seed):
    service = replace(sim.fleet_service.PROFILES["8B-H200"], held=12, spread=(0.7, 1.0, 1.0, 4.0))
    outcome = sim.play(service, **WILD, one_in_flight=one_in_flight, notice=notice, seed=seed)
    assert_every_tick_has_its_end(outcome)
    assert outcome.deaths > 5 and outcome.refills > 50 and outcome.late > 0 and outcome.replaced > 0
    assert min(outcome.ages) > 0


def test_all_replicas_down_and_back_again(sim):
    fleet = {**WILD, "replicas": 1, "stray": 0.0}
    outcome = sim.play(sim.service({1: 5.0}), **fleet)
    assert outcome.deaths > 1 and outcome.scored > 0
    assert_every_tick_has_its_end(outcome)
    down = np.array(outcome.down)
    inside = [((down[:, 0] + 0.5 < time) & (time < down[:, 1])).any() for time in outcome.times]
    assert not any(inside), "nobody answers meanwhile"


def test_a_seed_repeats_a_run(sim):
    service = sim.fleet_service.PROFILES["2B-H200"]
    once, again, other = (sim.play(service, **WILD, seed=seed) for seed in (3, 3, 4))
    assert once == again
    assert once.ages != other.ages


def test_more_gpus_never_harm_and_more_robots_never_help(sim):
    service = sim.fleet_service.PROFILES["8B-H200"]
    fleet = {"rate": 2.0, "seconds": 60.0}
    by_gpus = [sim.play(service, robots=100, replicas=number, **fleet) for number in (2, 4, 6, 10)]
    ages, dropped = [each.age(0.95) for each in by_gpus], [each.dropped for each in by_gpus]
    assert ages == sorted(ages, reverse=True) and dropped == sorted(dropped, reverse=True)
    by_robots = [sim.play(service, robots=number, replicas=2, **fleet) for number in (5, 20, 40, 80)]
    ages, dropped = [each.age(0.95) for each in by_robots], [each.dropped for each in by_robots]
    assert ages == sorted(ages) and dropped == sorted(dropped)


def test_what_dies_costs_scores(sim):
    service = sim.fleet_service.PROFILES["8B-H200"]
    fleet = {"robots": 50, "replicas": 4, "rate": 2.0, "seconds": 120.0}
    calm, wild = (sim.play(service, **fleet, dies_every=mean) for mean in (inf, 40.0))
    assert wild.deaths > 0 and wild.dropped > calm.dropped and wild.age(0.99) > calm.age(0.99)


# ---- searches, files, the command line -------------------------------------------------------------------


def test_the_fewest_gpus_and_the_most_robots_are_found(sim):
    service = sim.service({1: 20.0})
    fleet = sim.fleet.Fleet(robots=120, replicas=1, rate=1.0, seconds=20.0, **BARE)
    needed = sim.fleet_sim.gpus_needed(fleet, service, 0.2, 0.01)
    assert 3 <= needed <= 5, "120 scores/s, 50 each"
    for number in (needed - 1, needed):
        outcome = sim.fleet_play.Simulation(replace(fleet, replicas=number), service).run()
        assert sim.fleet_sim.is_met(outcome, 0.2, 0.01) == (number == needed)
    most = sim.fleet_sim.robots_per_gpu(fleet, service, 0.2, 0.01)
    assert 30 <= most <= 55
    assert sim.fleet_sim.robots_per_gpu(fleet, service, 0.01, 0.01) == 0, "not even one"
    with pytest.raises(UserError, match="do not meet the goal"):
        sim.fleet_sim.gpus_needed(replace(fleet, robots=1, seconds=4.0), service, 0.01, 0.01)


GPU_FILE = {
    "ticks": [
        {"shape": "8B", "prompts": 1, "way": "graphs", "p50_p95_p99_ms": [31.0, 34.1, 46.5]},
        {"shape": "8B", "prompts": 1, "way": "kernels", "p50_p95_p99_ms": [51.0, 52.0, 53.0]},
        {"shape": "8B", "prompts": 1, "way": "compiled: refused, see", "p50_p95_p99_ms": [1.0, 1.0, 1.0]},
    ],
    "rows": [
        {"case": {"model": "50M", "prompts": 1, "frames": frames}, "ways": {"incremental": {"last_tick": s}}}
        for frames, s in ((64, 0.07), (256, 0.12))
    ],
}


def test_times_of_another_card_come_from_the_files_of_the_benchmarks(sim, tmp_path):
    path = tmp_path / "quick.json"
    path.write_text(json.dumps(GPU_FILE))
    service = sim.fleet_service.measured(path, "8B", 1)
    assert dict(service.pass_ms) == {1: 31.0}
    assert np.quantile(service.spread, [0.5, 0.97, 1.0]) == pytest.approx([1.0, 1.1, 1.5])
    assert dict(sim.fleet_service.measured(path, "50M", 1).pass_ms) == {1: 120.0}
    with pytest.raises(UserError, match="no tick of 2B"):
        sim.fleet_service.measured(path, "2B", 1)
    with pytest.raises(UserError, match="No such file"):
        sim.fleet_service.measured(tmp_path / "none.json", "2B", 1)
    for content in ("[]", "{", '{"ticks": [{}]}', '{"ticks": 3}', '{"ticks": [null]}'):
        path.write_text(content)
        with pytest.raises(UserError, match="is no file of"):
            sim.fleet_service.measured(path, "8B", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--robots", "0"], "0 robots"),
        (["--rate", "nan"], "rate nan"),
        (["--seconds", "inf"], "seconds inf"),
        (["--robots", "100000", "--rate", "4"], "give fewer seconds"),
        (["--robots", "100000000", "--seconds", "1e-6"], "100000000 robots"),
        (["--tick-ms", "-3"], "above 0"),
        (["--pass-ms", "0:10"], "give one for 1 episode"),
        (["--pass-ms", "100000000:10"], "give one for 1 episode"),
        (["--held", "2"], "hold as many"),
        (["--stray", "1"], "a share below 1"),
        (["--network-ms", "-1"], "network -0.001"),
        (["--measured", "/nowhere.json"], "/nowhere.json"),
        (["--gpus", "1000000000"], "1000000000 replicas"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(sim, monkeypatch, capsys, words, said):
    monkeypatch.setattr(sys, "argv", ["fleet_sim.py", "--gpus", "1", *words])
    assert sim.fleet_sim.main() == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown and "Traceback" not in shown


def test_a_run_writes_its_numbers_and_a_picture(sim, monkeypatch, capsys, tmp_path):
    words = ["--robots", "40", "--gpus", "3", "--seconds", "30", "--dies-every-s", "20", "--repair-s", "5"]
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.svg")]
    monkeypatch.setattr(sys, "argv", ["fleet_sim.py", *words, *files])
    assert sim.fleet_sim.main() == 0
    assert "40 robots at 2 Hz, 3 GPUs" in capsys.readouterr().out
    content = json.loads((tmp_path / "run.json").read_text())
    outcome = content["outcome"]
    assert content["format"] == "topreward_fleet/1" and content["fleet"]["robots"] == 40
    assert outcome["due"] == outcome["scored"] + outcome["replaced"] + outcome["late"]
    assert "a replica is down" in (tmp_path / "run.svg").read_text()
