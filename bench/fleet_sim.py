"""How many robots a GPU serves: robots and replicas of a server, played by measured times of a tick.

Robots ask at a rate, each with a phase and frames that come a little late; a newer request replaces one that
has not begun; several episodes share a pass; an episode sticks to its replica, and is read anew where that
died. Printed are the age of scores (from the capture of the newest frame to the answer at the robot), due
ticks without a score, and how busy the GPUs are. What a replica takes comes from a profile of measured ticks
(bench/fleet_service.py), from a file of `bench/gpu.py --json` or `topreward bench --json`, or from you.

    .venv/bin/python bench/fleet_sim.py --robots 1000 --profile 8B-H200             # how many GPUs
    .venv/bin/python bench/fleet_sim.py --robots 1000 --gpus 70 --dies-every-s 3600 --plot run.png
    .venv/bin/python bench/fleet_sim.py --table --json table.json --plot table.png     # robots per GPU
    .venv/bin/python bench/fleet_sim.py --robots 100 --tick-ms 50 --pass-ms 4:110 8:190
    .venv/bin/python bench/fleet_sim.py --robots 100 --measured quick.json --shape 8B --prompts 1
    .venv/bin/python bench/fleet_sim.py --check 1 4 8 12 16 20       # beside real robots' places, on this CPU
    .venv/bin/python bench/fleet_sim.py --check 8 20 --served http://127.0.0.1:8100    # beside a real server

The same seed gives the same run. ``--check`` needs the package with PyTorch, nothing else does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fleet import Fleet, Outcome
from fleet_play import Simulation
from fleet_service import PROFILES, Service, measured
from options import add_files, parser
from output import BLUE, GREY, RED, YELLOW, legend_above, new_axes, write_json
from topreward_ros.core.errors import UserError
from topreward_ros.views.picture import write_picture

FORMAT = "topreward_fleet/1"
RATES = (0.5, 1.0, 2.0, 4.0)  #: [Hz] of the table
_SEARCH_S = 120.0  # of each run of a search, at most
_MOST_GPUS = 4096


def is_met(outcome: Outcome, p95: float, dropped: float) -> bool:
    """Whether 95 % of the scores are at most ``p95`` [s] old, and no more than ``dropped`` are missing."""
    return outcome.age(0.95) <= p95 and outcome.dropped <= dropped


def gpus_needed(fleet: Fleet, service: Service, p95: float, dropped: float) -> int:
    """The fewest replicas that meet the goal. Raises `UserError` where `_MOST_GPUS` do not."""

    def enough(number: int) -> bool:
        return is_met(Simulation(replace(fleet, replicas=number), service).run(), p95, dropped)

    fleet = replace(fleet, seconds=min(fleet.seconds, _SEARCH_S))
    start = max(1, ceil(fleet.robots * fleet.rate / service.most_scores / 2))
    least = max(1, min(start, _MOST_GPUS))
    return _first(enough, least, _MOST_GPUS, "GPUs do not meet the goal: allow an older score, or more drops")


def robots_per_gpu(fleet: Fleet, service: Service, p95: float, dropped: float) -> int:
    """The most robots that one replica serves within the goal; 0: not even one."""

    def too_many(number: int) -> bool:
        return not is_met(Simulation(replace(fleet, robots=number), service).run(), p95, dropped)

    fleet = replace(fleet, replicas=1, seconds=min(fleet.seconds, _SEARCH_S))
    most = 2 * ceil(service.most_scores / fleet.rate) + 2
    return _first(too_many, 1, most, "robots are served by one GPU: the times are too short to tell") - 1


def _first(holds: Callable[[int], bool], least: int, most: int, else_said: str) -> int:
    """The first number from ``least`` on for which it holds, if it holds for all after it."""
    if least > 1 and holds(least):
        least = 1
    below, step = least - 1, 1
    while not holds(high := min(below + step, most)):
        if high == most:
            raise UserError(f"{most} {else_said}")
        below, step = high, 2 * step
    while high - below > 1:
        middle = (below + high) // 2
        below, high = (below, middle) if holds(middle) else (middle, high)
    return high


# ---- what is shown -------------------------------------------------------------------------------------


def summary(outcome: Outcome, fleet: Fleet) -> dict[str, Any]:
    """The numbers of a run, times in seconds."""
    time = fleet.seconds * fleet.replicas
    return {
        "due": outcome.due,
        "scored": outcome.scored,
        "replaced": outcome.replaced,
        "late": outcome.late,
        "dropped": outcome.dropped,
        "age_p50_p95_p99": [outcome.age(quantile) for quantile in (0.5, 0.95, 0.99)]
        if outcome.ages
        else None,
        "busy": outcome.busy / time,
        "ahead": outcome.ahead / time,
        "passes": outcome.passes,
        "refills": outcome.refills,
        "deaths": outcome.deaths,
    }


def run_table(rows: Sequence[tuple[str, Outcome, Fleet]], title: str) -> Table:
    """A column for each run: a terminal has no room for a line of so many numbers."""
    table = Table("", *(name or "played" for name, _, _ in rows), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    found = [summary(outcome, fleet) for _, outcome, fleet in rows]
    outcomes = [outcome for _, outcome, _ in rows]
    table.add_row("due ticks", *(f"{it.due:,}" for it in outcomes))
    for quantile in (0.5, 0.95, 0.99):
        ages = (f"{1e3 * it.age(quantile):.0f} ms" for it in outcomes)
        table.add_row(f"age of scores, p{100 * quantile:.0f}", *ages)
    table.add_row("replaced by newer ones", *(f"{it.replaced:,}" for it in outcomes))
    table.add_row("late", *(f"{it.late:,}" for it in outcomes))
    table.add_row("dropped: both", *(f"{it.dropped:.2%}" for it in outcomes))
    for name, label in (("busy", "GPUs are busy"), ("ahead", "GPUs work ahead")):
        table.add_row(label, *(f"{it[name]:.0%}" if it[name] else "-" for it in found))
    table.add_row("episodes read anew", *(f"{it.refills:,}" if it.passes else "-" for it in outcomes))
    return table


def plot_run(outcome: Outcome, fleet: Fleet, title: str, picture: Path) -> None:
    """Plot the age of scores over the time of the run, and when replicas were down."""
    figure, axes = new_axes(9, 3.8, "y")
    width = max(1.0, fleet.seconds / 200)
    times, ages = np.array(outcome.times), 1e3 * np.array(outcome.ages)
    bins = np.floor(times / width).astype(int)
    order = np.argsort(bins, kind="stable")
    edges = np.flatnonzero(np.diff(bins[order])) + 1
    groups = [group for group in np.split(order, edges) if len(group)]
    middles = [(bins[group[0]] + 0.5) * width for group in groups]
    for quantile, colour in ((0.5, BLUE), (0.95, YELLOW), (0.99, RED)):
        axes.plot(
            middles,
            [np.quantile(ages[group], quantile) for group in groups],
            color=colour,
            label=f"p{100 * quantile:.0f}",
        )
    for begin, end in outcome.down:
        axes.axvspan(begin, min(end, fleet.seconds), color=GREY, alpha=0.15, linewidth=0)
    axes.set_xlim(0, fleet.seconds)
    axes.set_ylim(0, None)
    axes.set_xlabel("time [s]; grey: a replica is down")
    axes.set_ylabel("age of scores [ms]")
    axes.set_title(title, fontsize=8, loc="left")
    axes.legend(loc="upper right", frameon=False, ncols=3)
    write_picture(figure, picture)


def plot_table(rows: Sequence[dict[str, Any]], title: str, picture: Path) -> None:
    """Plot robots per GPU over the rate, by profile; dashed: what the scores per second alone would allow."""
    figure, axes = new_axes(8, 4.6, "y")
    names = [*dict.fromkeys(row["profile"] for row in rows)]
    for place, name in enumerate(names):
        mine = [row for row in rows if row["profile"] == name]
        colour = f"C{place}"
        rates = [row["rate"] for row in mine]
        axes.plot(rates, [row["robots"] for row in mine], "o-", color=colour, label=name)
        axes.plot(rates, [row["most"] for row in mine], ":", color=colour, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    ticks = [2**k for k in range(0, 11)]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylim(1, max(row["most"] for row in rows) * 1.3)
    axes.set_xlabel("scores per second and robot [Hz]")
    axes.set_ylabel("robots per replica")
    axes.set_title(title, fontsize=8, loc="left")
    legend_above(axes)
    write_picture(figure, picture)


# ---- the command line ------------------------------------------------------------------------------------


def _pass_time(text: str) -> tuple[int, float]:
    number, _, time = text.partition(":")
    try:
        return int(number), float(time)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': give EPISODES:MS, as 4:110") from error


def _parser() -> argparse.ArgumentParser:
    command = parser(__doc__)
    command.add_argument(
        "--table", action="store_true", help="robots per GPU of all profiles, at several rates"
    )
    command.add_argument(
        "--check", type=int, nargs="+", metavar="ROBOTS", help="beside the real scorer on this CPU"
    )
    command.add_argument(
        "--served", default="", metavar="URL", help="of the server that --check asks instead"
    )
    service = command.add_argument_group("what a replica takes")
    service.add_argument("--profile", choices=PROFILES, default="8B-H200", help="(%(default)s)")
    service.add_argument("--tick-ms", type=float, help="of a tick, in place of the profile")
    service.add_argument(
        "--pass-ms",
        type=_pass_time,
        nargs="+",
        default=[],
        metavar="EPISODES:MS",
        help="of a pass of several episodes",
    )
    service.add_argument("--step-ms", type=float, help="of a step of work ahead, one per tick (0)")
    service.add_argument("--refill-ms", type=float, help="to read one frame anew (that of a tick)")
    service.add_argument("--held", type=int, help="episodes that fit into a replica's memory")
    service.add_argument("--measured", type=Path, metavar="JSON", help="of bench/gpu.py or topreward bench")
    service.add_argument("--shape", default="8B", help="in the file of --measured (%(default)s)")
    service.add_argument("--prompts", type=int, default=1, help="in that file, or of --check (%(default)s)")
    service.add_argument("--threads", type=int, default=0, help="of --check; 0: all cores but one")
    goal = command.add_argument_group("the goal of a search")
    goal.add_argument("--p95-ms", type=float, default=500.0, help="age of scores (%(default)g)")
    goal.add_argument("--dropped", type=float, default=0.01, help="share of due ticks (%(default)g)")
    fleet = command.add_argument_group("the fleet; without --gpus, as many as the goal needs")
    fleet.add_argument("--robots", type=int, default=1000, help="(%(default)s)")
    fleet.add_argument("--gpus", type=int)
    fleet.add_argument("--seconds", type=float, default=600.0, help="(%(default)g)")
    fleet.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    for option, default, text in (
        ("rate", 2.0, "scores due per second and robot [Hz]"),
        ("jitter-ms", 10.0, "how late frames come"),
        ("episode-s", 60.0, "mean length of an episode"),
        ("pause-s", 5.0, "between two"),
        ("network-ms", 5.0, "one way, beside the frames"),
        ("network-jitter-ms", 2.0, "mean of what comes on top"),
        ("frame-ms", 7.0, "to send a frame: 88 kB at 100 Mbit/s"),
        ("dies-every-s", float("inf"), "mean life of a replica"),
        ("repair-s", 60.0, "until it is back"),
        ("notice-s", 1.0, "until its robots know"),
        ("stray", 0.0, "share of requests that reach another replica"),
    ):
        fleet.add_argument(f"--{option}", type=float, default=default, help=f"{text} (%(default)g)")
    fleet.add_argument(
        "--phases", choices=("random", "together", "even"), default="random", help="(%(default)s)"
    )
    fleet.add_argument(
        "--in-process",
        action="store_true",
        help="monitors of one process: no network, and the newest request is at the scorer at once",
    )
    add_files(command)
    return command


def fleet_of(options: argparse.Namespace) -> Fleet:
    far = 0.0 if options.in_process else 1e-3
    return Fleet(
        robots=options.robots,
        replicas=1 if options.gpus is None else options.gpus,
        rate=options.rate,
        seconds=options.seconds,
        seed=options.seed,
        jitter=options.jitter_ms / 1e3,
        phases=options.phases,
        episode=options.episode_s,
        pause=options.pause_s,
        network=options.network_ms * far,
        network_jitter=options.network_jitter_ms * far,
        frame=options.frame_ms * far,
        one_in_flight=not options.in_process,
        dies_every=options.dies_every_s,
        repair=options.repair_s,
        notice=options.notice_s,
        stray=options.stray,
    )


def service_of(options: argparse.Namespace) -> Service:
    """What the options say of a replica. Raises `UserError`."""
    if options.measured is not None:
        service = measured(options.measured, options.shape, options.prompts)
    elif options.tick_ms is not None:
        service = Service("given by you", {1: options.tick_ms}, refill_ms=options.tick_ms)
    else:
        service = PROFILES[options.profile]
    if options.pass_ms:
        service = replace(
            service, pass_ms={1: service.pass_ms[1], **dict(options.pass_ms)}, baseline_pass_ms={}
        )
    given = {name: getattr(options, name) for name in ("step_ms", "refill_ms", "held")}
    return replace(service, **{name: value for name, value in given.items() if value is not None})


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def _run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    service, fleet = service_of(options), fleet_of(options)
    if options.gpus is None:
        fleet = replace(fleet, replicas=gpus_needed(fleet, service, options.p95_ms / 1e3, options.dropped))
        console.print(
            f"{_gpus(fleet.replicas)}: the fewest with p95 up to {options.p95_ms:g} ms, "
            f"{options.dropped:.1%} dropped at most"
        )
    outcome = Simulation(fleet, service).run()
    title = f"{fleet.robots} robots at {fleet.rate:g} Hz, {_gpus(fleet.replicas)}, {fleet.seconds:g} s"
    console.print(run_table([("", outcome, fleet)], title))
    console.print(f"service times: {service.source}", style="dim")
    if fleet.robots > (room := fleet.replicas * service.held):
        console.print(
            f"Memory is the limit: {fleet.robots} robots, and room for {room} episodes. Those without are "
            "read anew in every tick."
        )
    if options.plot:
        plot_run(outcome, fleet, f"{title}\n{service.source}", options.plot)
    return {"fleet": asdict(fleet), "service": asdict(service), "outcome": summary(outcome, fleet)}


def _table(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    rows = []
    cases = [(name, rate) for name in PROFILES for rate in RATES]
    for name, rate in track(cases, "searching", console=Console(stderr=True), transient=True):
        fleet = replace(fleet_of(options), rate=rate)
        most = PROFILES[name].most_scores / rate
        found = robots_per_gpu(fleet, PROFILES[name], options.p95_ms / 1e3, options.dropped)
        rows.append(
            {"profile": name, "rate": rate, "robots": found, "most": most, "held": PROFILES[name].held}
        )
    title = f"robots per GPU: p95 up to {options.p95_ms:g} ms, {options.dropped:.1%} dropped at most"
    table = Table("profile", *(f"{rate:g} Hz" for rate in RATES), "episodes held", title=title)
    for name, service in PROFILES.items():
        table.add_row(
            name, *(str(row["robots"]) for row in rows if row["profile"] == name), str(service.held)
        )
    console.print(table)
    for name, service in PROFILES.items():
        console.print(f"{name}: {service.source}", style="dim")
    if options.plot:
        plot_table(rows, f"{title}\ndotted: scores per second over the rate", options.plot)
    services = {name: asdict(service) for name, service in PROFILES.items()}
    return {"fleet": asdict(fleet_of(options)), "services": services, "rows": rows}


def _check(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from fleet_check import compare  # needs PyTorch
    from playing import machine_around
    from topreward_ros.views.bench import machine_line

    fleet = fleet_of(options)
    service, compared = compare(options.check, fleet, options.prompts, options.threads, options.served)
    about = machine_around()
    rows, found = [], []
    for fleet, real, played in compared:
        rows += [(f"{fleet.robots} robots, measured", real, fleet), ("simulated", played, fleet)]
        found.append(
            {"robots": fleet.robots, "measured": summary(real, fleet), "simulated": summary(played, fleet)}
        )
    console.print(
        run_table(
            rows,
            f"embedded, {options.prompts} prompts, {options.rate:g} Hz, "
            + ("served" if options.served else "in one process"),
        )
    )
    times = ", ".join(f"{number}: {time:.1f}" for number, time in service.pass_ms.items())
    unknown = ", ".join(f"{number}: {time:.1f}" for number, time in service.baseline_pass_ms.items())
    console.print(
        f"passes by episodes, in ms: {times}; with baselines to compute: {unknown}; "
        f"step ahead {service.step_ms:.1f}, a frame read anew {service.refill_ms:.1f}; {service.held} held"
    )
    console.print(machine_line(about))
    return {"machine": about, "service": asdict(service), "rows": found}


def main() -> int:
    options = _parser().parse_args()
    console = Console()
    work = _table if options.table else _check if options.check else _run
    try:
        content = work(options, console)
        write_json(options.json, {"format": FORMAT, **content})
    except UserError as error:
        Console(stderr=True).print(f"fleet_sim.py: {error}", markup=False, highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
