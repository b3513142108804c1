"""How long a replica of a server takes to score: measured, and where each number stands.

A pass is one call of `PrefixScorer.score_all` for the newest prefixes of one or several episodes. The
profiles here are the only place where measured times of the simulation of a fleet stand; `measured` makes one
of the files that benchmarks write, for another card.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from topreward_ros.core.errors import UserError

_LONGEST_MS = 3600e3  # of a pass: more is a mistake in the unit
_MOST_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Service:
    """What a replica needs for its work. Times are those behind a full context, where a tick is slowest."""

    source: str  #: where the numbers stand
    pass_ms: Mapping[int, float]  #: by episodes in the pass; what lies between two of them is interpolated
    baseline_pass_ms: Mapping[int, float] = field(default_factory=dict)
    #: the same where the static baselines of these ticks were not computed ahead; empty: no other time
    step_ms: float = 0.0  #: of a step of work ahead, the baseline of one tick; 0: there is no such work
    refill_ms: float = 0.0  #: for each frame that the replica lacks, beside the patch of the tick
    held: int = 8  #: episodes of which a replica keeps what was computed; the others are read anew
    spread: tuple[float, ...] = (1.0,)  #: factors of a pass's time, drawn in turn: how it varies

    def __post_init__(self) -> None:
        times = [*self.pass_ms.values(), *self.baseline_pass_ms.values()]
        if 1 not in self.pass_ms or not all(1 <= number <= _MOST_AT_ONCE for number in self.pass_ms):
            raise UserError(
                f"times of passes for {sorted(self.pass_ms)} episodes: give one for 1 episode, and others "
                f"for up to {_MOST_AT_ONCE}"
            )
        if not all(isfinite(time) and 0 < time <= _LONGEST_MS for time in times):
            raise UserError(f"times of passes {times}: give milliseconds above 0, up to {_LONGEST_MS:g}")
        if self.baseline_pass_ms and set(self.baseline_pass_ms) != set(self.pass_ms):
            raise UserError("times of passes with and without baseline are of different numbers of episodes")
        if not all(isfinite(time) and 0 <= time <= _LONGEST_MS for time in (self.step_ms, self.refill_ms)):
            raise UserError(
                f"step {self.step_ms} ms, refill {self.refill_ms} ms: give 0 or more milliseconds"
            )
        if self.held < self.at_once:
            raise UserError(
                f"{self.held} episodes are held, and {self.at_once} are scored in one pass: hold as many"
            )
        if not self.spread or not all(isfinite(factor) and factor > 0 for factor in self.spread):
            raise UserError(f"spread {self.spread}: give factors above 0")

    @property
    def at_once(self) -> int:
        """Episodes that share a pass at most."""
        return max(self.pass_ms)

    @property
    def most_scores(self) -> float:
        """Scores per second of a replica that never rests, at the number of episodes in a pass that gives
        most."""
        times = self.baseline_pass_ms or self.pass_ms
        return max(1e3 * number / time for number, time in times.items())


def table_of(times_ms: Mapping[int, float], most: int) -> list[float]:
    """Times [s] of passes of 0, 1, ... ``most`` episodes, on straight lines between those measured."""
    numbers = sorted(times_ms)
    table = [0.0]
    for number in range(1, most + 1):
        after = bisect_left(numbers, number)
        high = numbers[after]
        low = numbers[max(0, after - 1)]
        share = (number - low) / (high - low) if high > low else 0.0
        table.append((times_ms[low] + share * (times_ms[high] - times_ms[low])) / 1e3)
    return table


_GPU = (
    "bench/RESULTS.md, GPU: one NVIDIA H200, bfloat16, 640x480, behind 64 frames, random weights, 2026-11-21"
)
#: Scores per second of 1, 2, 4 and 8 episodes of 8B at once on the H200, kernel by kernel, with baselines.
_TOGETHER = {1: 15.0, 2: 25.0, 4: 39.0, 8: 40.0}
_STEP_8B, _STEP_2B = 29.0, 29.0 * 24 / 35  # [ms]; measured for 8B, by the ratio of the ticks for 2B
#: A plain pass of 8B over 64 frames took 620 ms; the static video is read anew, too.
_REFILL_8B, _REFILL_2B = 2 * 620 / 64, 2 * 620 / 64 * 24 / 35


def _h200(
    tick_ms: float, prompts_ms: float, step_ms: float, refill_ms: float, held: int, made: str
) -> Service:
    """A replica on the H200: ``tick_ms`` of one episode; several as 8B with one prompt took them, and
    ``prompts_ms`` more for each episode."""
    together = {number: 1e3 * number / rate + number * prompts_ms for number, rate in _TOGETHER.items()}
    return Service(f"{_GPU}{made}", {**together, 1: tick_ms}, together, step_ms, refill_ms, held)


#: The measured ones, by model, machine and number of prompts. Held is what fits beside the weights into 139
#: GiB by scoring/qwen3_vl/memory_need.py: 4.8 GB an episode of 64 frames for 8B, 3.7 GB for 2B.
PROFILES = {
    "8B-H200": _h200(35.0, 0.0, _STEP_8B, _REFILL_8B, 26, ""),
    "8B-H200-10": _h200(
        46.0,
        46.0 - 35.0,
        _STEP_8B,
        _REFILL_8B,
        26,
        "; several at once not measured: one prompt's and 11 ms each",
    ),
    "2B-H200": _h200(
        24.0, 0.0, _STEP_2B, _REFILL_2B, 38, "; several at once not measured: no slower than 8B's"
    ),
    "2B-H200-10": _h200(
        28.0, 28.0 - 24.0, _STEP_2B, _REFILL_2B, 38, "; several at once not measured: 8B's and 4 ms each"
    ),
    "embedded-Xeon": Service(
        "bench/RESULTS.md, Ticks, Several episodes at once: Intel Xeon, 1 core (several: 2), first "
        "edition of the model (96x128), 2026-11-21; a frame read anew: a third of a tick, by --check",
        pass_ms={1: 6.3, 2: 2e3 / 205, 4: 4e3 / 260, 8: 8e3 / 250},
        baseline_pass_ms={1: 8.2, 2: 2e3 / 205, 4: 4e3 / 260, 8: 8e3 / 250},
        step_ms=5.9,
        refill_ms=6.3 / 3,
        held=1000,
    ),
}


def measured(path: Path, shape: str, prompts: int) -> Service:
    """A profile of the file of `bench/gpu.py --json` or of `topreward bench --json`.

    ``shape``: the model as the file names it; of several ways to run it, the one that is fastest and was not
    refused. Passes of several episodes are in neither file, so episodes are scored one after the other. A
    file of `topreward bench` has one time for a tick; one of `bench/gpu.py` says how ticks vary, too. A frame
    that is read anew is taken for a tick. Raises `UserError`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ticks = [*_gpu_ticks(content, shape, prompts), *_cpu_ticks(content, shape, prompts)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no file of bench/gpu.py --json or topreward bench --json: {error}"
        ) from error
    if not ticks:
        raise UserError(f"{path} has no tick of {shape} with {prompts} prompts: see what it has in its rows")
    p50, p95, p99 = min(ticks)
    spread = (1.0,) * 95 + (p95 / p50,) * 4 + (p99 / p50,)
    return Service(f"{path.name}: {shape}, {prompts} prompts", {1: p50}, refill_ms=p50, spread=spread)


def _gpu_ticks(content: dict[str, Any], shape: str, prompts: int) -> list[tuple[float, float, float]]:
    """p50, p95, p99 [ms] of the ticks in a file of bench/gpu.py, by way."""
    rows = [row for row in content.get("ticks", []) if (row["shape"], row["prompts"]) == (shape, prompts)]
    found = []
    for row in rows:
        if "refused" not in row["way"]:
            p50, p95, p99 = map(float, row["p50_p95_p99_ms"])
            found.append((p50, p95, p99))
    return found


def _cpu_ticks(content: dict[str, Any], shape: str, prompts: int) -> list[tuple[float, float, float]]:
    """The last tick [ms] behind the most frames in a file of `topreward bench`."""
    rows = [
        row
        for row in content.get("rows", [])
        if (row["case"]["model"], row["case"]["prompts"]) == (shape, prompts)
    ]
    if not rows:
        return []
    longest = max(rows, key=lambda row: row["case"]["frames"])
    tick_ms = 1e3 * float(longest["ways"]["incremental"]["last_tick"])
    return [(tick_ms, tick_ms, tick_ms)]
