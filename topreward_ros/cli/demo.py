"""The command `topreward`: score a video, watch a monitor, see a demonstration, get models, measure.

Arguments and exit statuses only; what the commands do stands in offline/ and in nodes/watch.py and
nodes/demo.py, and how it looks in views/. Imports of a command are made when it
runs, so that `--help` is quick and `score` and `models` work where there is no ROS 2.

Exit status: 0 done, 1 an error that is named on stderr in one line, or (without one) a reader of our output
that left early, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys

try:
    import argparse
    import errno
    import os
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import contextmanager, suppress
    from difflib import get_close_matches
    from io import TextIOWrapper
    from pathlib import Path
    from typing import TYPE_CHECKING, Any

    from topreward_ros.defaults import monitor_defaults
except KeyboardInterrupt:  # a person who is quicker than these imports wants no traceback, either
    sys.exit(130)

if TYPE_CHECKING:
    from rich.console import Console

    from topreward_ros.offline.score_video import Curve, Outcome
    from topreward_ros.scoring.base import ScorerInfo

_INTERRUPTED = 130
_NO_MORE_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_ROS_ARGUMENTS = "--ros-args"
_PICTURES = (".png", ".svg", ".pdf", ".jpg")

# Parameters that say how the live node gets images and when it speaks, or that have an option of their own.
_NOT_FOR_SCORE = frozenset(
    ("task", "model", "image_topics", "image_transport", "camera_layout", "stale_timeout", "autostart")
) | {"heartbeat_rate", "diagnostics_rate"}


class CommandError(Exception):
    """What the user asked for cannot be done. The text names the thing, the value and the mend."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``topreward`` with ``argv`` (of the process when None) and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a character that the locale lacks must not undo the work
            stream.reconfigure(errors="replace")
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `topreward ... | head`: the reader has all it wanted
        _drop_output()
        return 1
    except KeyboardInterrupt:
        print("topreward: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except CommandError as error:
        print(f"topreward: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_MORE_OUTPUT:
            raise
        _drop_output()
        with suppress(OSError):
            print(f"topreward: the output cannot be written ({error.strerror})", file=sys.stderr)
        return 1


def _drop_output() -> None:
    """Let the flush at the very end succeed, though nobody takes what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    arguments, ros_arguments = _split(argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if ros_arguments and options.run is not _watch:
        parser.error(f"{_ROS_ARGUMENTS} goes with `topreward watch` only")
    options.ros_arguments = ros_arguments
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and those from ``--ros-args`` on, which are ROS 2's."""
    at = argv.index(_ROS_ARGUMENTS) if _ROS_ARGUMENTS in argv else len(argv)
    return argv[:at], argv[at:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="topreward",
        description="Task progress from video: how far has the robot come with what it was told to do?",
        epilog="`topreward COMMAND --help` tells more. The live monitor itself is a ROS 2 node: "
        "ros2 launch topreward_ros monitor.launch.py",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_score(commands)
    _add_watch(commands)
    _add_demo(commands)
    _add_models(commands)
    _add_bench(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"topreward {_version()}")
        parser.exit()


def _version() -> str:
    """Of the package.xml that belongs to the running code."""
    from xml.etree import ElementTree

    from topreward_ros.defaults import shared_file

    return ElementTree.parse(shared_file("package.xml")).findtext("version", default="unknown")


# ---- score -------------------------------------------------------------------------------------------


def _add_score(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="score video files: curve, events, picture (needs no ROS 2)",
        description="Score videos as the live monitor would, frame by frame, and show the progress curves. "
        "Every due frame is scored; after the end of the episode (SUCCESS, timeout) nothing is, as live.",
        epilog="Examples: topreward score run.mp4 --task 'open the drawer' --plot run.png; "
        "topreward score runs/*.mp4 --task 'open the drawer' --json runs.json",
    )
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video file, or folder of images (then give --rate); several are scored side by side",
    )
    parser.add_argument("--task", required=True, metavar="T", help="the instruction, in natural language")
    _add_model(parser)
    parser.add_argument("--json", metavar="FILE", help="write the curve as JSON; '-': to standard output")
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="write a picture of the curve: .png, .svg or .pdf"
    )
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="HZ", help="frames per second, instead of the file's own"
    )
    parser.add_argument(
        "--prefixes",
        type=int,
        default=0,
        metavar="K",
        help="score K evenly spaced prefixes of the whole video, as the paper does with 15, and no other; "
        "nothing ends the episode before then",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="overrides",
        help="a parameter of the monitor that is to differ from config/monitor.yaml, for example "
        "device=cuda, sample_rate=4, success_threshold=-1; may be repeated",
    )
    parser.set_defaults(run=_score)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=monitor_defaults()["model"],
        metavar="M",
        help="'embedded', a hub id, or the folder of a checkpoint (default: %(default)s)",
    )


def _score(options: argparse.Namespace) -> int:
    from topreward_ros.offline.video import VideoError
    from topreward_ros.scoring.base import ScorerError

    parameters = _with_overrides(monitor_defaults(), options.overrides)
    _check_outputs(options)
    if not options.task.strip():
        raise CommandError("--task is empty; say what the robot is to do")
    if options.prefixes < 0:
        raise CommandError(f"--prefixes {options.prefixes}: must be at least 1, or be left out for all")
    if options.prefixes:
        parameters["end_episode_on_success"] = False
        parameters["episode_timeout"] = 0.0
    try:
        outcomes = _score_videos(options, parameters)
        if len(outcomes) > 1:
            return _show_and_write_several(options, outcomes)
        (outcome,) = outcomes
        if isinstance(outcome, Exception):
            raise outcome
        _show_and_write(options, outcome)
    except (VideoError, ScorerError) as error:
        raise CommandError(str(error)) from error
    return 0


def _score_videos(options: argparse.Namespace, parameters: dict[str, Any]) -> list[Outcome]:
    """Score the videos, with a progress bar on stderr."""
    from rich.console import Console

    from topreward_ros.offline.score_video import score_videos
    from topreward_ros.offline.video import VideoError, open_video
    from topreward_ros.scoring.registry import load_scorer
    from topreward_ros.views import terminal

    settings, scorer_settings = _settings(parameters)
    scores = []
    for video in options.videos:  # before the model is loaded, which takes longer
        try:
            info = open_video(video, options.rate).info
            scores.append(round(info.frame_count / info.rate * settings.sample_rate))
        except VideoError:
            if len(options.videos) == 1:
                raise
    console = Console(stderr=True)
    with terminal.working(console, f"loading model {options.model} ..."):
        scorer = load_scorer(options.model, scorer_settings)
    _warn_of_unknown(options.task, scorer.info)
    random_weights = scorer.info.random_weights
    expected = sum(min(number, options.prefixes or number) for number in scores)
    try:
        with terminal.score_progress(console, expected, random_weights) as on_score:
            return score_videos(
                options.videos,
                options.task,
                scorer,
                settings,
                rate=options.rate,
                prefixes=options.prefixes,
                at_once=scorer.episodes_at_once(),
                on_score=on_score,
            )
    finally:
        scorer.close()


def _warn_of_unknown(instruction: str, info: ScorerInfo) -> None:
    from topreward_ros.scoring.checkpoint.vocabulary import unknown_instruction_warning
    from topreward_ros.views.terminal import printable

    if warning := unknown_instruction_warning(instruction, info, "--model "):
        print(f"topreward: {printable(warning)}", file=sys.stderr)


def _show_and_write(options: argparse.Namespace, curve: Curve) -> None:
    from topreward_ros.views import terminal

    _results_console(options).print(terminal.curve_summary(curve))
    _write_json(options.json, curve.to_json)
    if options.plot:
        from topreward_ros.views.curve_plot import plot_curve

        with _writing(options.plot):
            plot_curve(curve, options.plot, rate=options.rate)


def _show_and_write_several(options: argparse.Namespace, outcomes: list[Outcome]) -> int:
    """1 when one of them has no curve."""
    from topreward_ros.offline.score_video import Curve, outcomes_to_json
    from topreward_ros.views import terminal

    curves = [outcome for outcome in outcomes if isinstance(outcome, Curve)]
    _results_console(options).print(terminal.curves_table(curves))
    _write_json(options.json, lambda: outcomes_to_json(options.videos, outcomes))
    if options.plot and curves:
        from topreward_ros.views.curve_plot import plot_curves

        with _writing(options.plot):
            plot_curves(curves, options.plot)
    errors = [
        (video, outcome)
        for video, outcome in zip(options.videos, outcomes, strict=True)
        if isinstance(outcome, Exception)
    ]
    for video, error in errors:
        name = "" if video in str(error) else f"{video}: "
        print(f"topreward: {name}{error}", file=sys.stderr)
    return 1 if errors else 0


def _results_console(options: argparse.Namespace) -> Console:
    """What is for people goes to stderr when the JSON goes to stdout."""
    from rich.console import Console

    return Console(stderr=options.json == "-", highlight=False)


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Name the file when writing it fails all the same: a disk may be full."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}); name another file") from error


def _write_json(name: str | None, make: Callable[[], str]) -> None:
    """Write what ``make`` gives to the file that ``--json`` names, or to standard output."""
    if name == "-":
        sys.stdout.write(make())
    elif name:
        with _writing(name):
            Path(name).write_text(make(), encoding="utf-8")


def _check_outputs(options: argparse.Namespace) -> None:
    """Say before the work that ``--json`` or ``--plot`` could not be written."""
    _check_output(options.json)
    _check_output(options.plot)
    if options.plot and options.plot.suffix.lower() not in _PICTURES:
        raise CommandError(f"--plot {options.plot}: its name must end in one of {', '.join(_PICTURES)}")


def _check_output(name: str | Path | None) -> None:
    """Say before the work that its result could not be written."""
    if name in (None, "-"):
        return
    path = Path(str(name)).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(f"{name} cannot be written: name a file in a folder that exists")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandError(f"{name} cannot be written: you lack the permission; name another file")


def _with_overrides(parameters: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Replace parameters by ``NAME=VALUE`` texts. Raises `CommandError` for one that cannot be."""
    usable = sorted(parameters.keys() - _NOT_FOR_SCORE)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise CommandError(f"--set {override}: write it as NAME=VALUE, for example sample_rate=4")
        if name not in usable:
            close = get_close_matches(name, usable, n=1)
            mend = f"did you mean {close[0]}?" if close else f"there are {', '.join(usable)}"
            raise CommandError(f"--set {override}: score takes no parameter {name!r}; {mend}")
        parameters[name] = _parse(name, text, parameters[name])
    return parameters


def _parse(name: str, text: str, default: Any) -> Any:
    """``text`` as a value of the type that ``default`` has."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise CommandError(f"--set {name}={text}: must be true or false")
        return text == "true"
    try:
        return type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise CommandError(f"--set {name}={text}: must be {kind}, for example {default}") from None


def _settings(parameters: dict[str, Any]) -> tuple[Any, Any]:
    """Settings of the state machine and of the scorer, their ranges checked as the node checks them."""
    from topreward_ros.core.episode import MonitorSettings
    from topreward_ros.nodes.parameters import MONITOR_PARAMETERS
    from topreward_ros.scoring.base import ScorerSettings

    for parameter in MONITOR_PARAMETERS:
        if problem := parameter.problem_with(parameters[parameter.name]):
            raise CommandError(f"--set {problem}")
    return MonitorSettings.from_parameters(parameters), ScorerSettings.from_parameters(parameters)


# ---- watch -------------------------------------------------------------------------------------------


def _add_watch(commands: Any) -> None:
    parser = commands.add_parser(
        "watch",
        help="watch a running monitor in the terminal",
        description="Show task_progress of a running monitor: a bar, the curve of the episode, latency and "
        "events. Without a terminal it prints a line per score. Ctrl-C ends it.",
        epilog="Names are relative: `topreward watch --ros-args -r __ns:=/arm` watches the monitor in /arm.",
    )
    parser.add_argument("--topic", default="task_progress", help="of TaskProgress (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="end after the first score")
    parser.add_argument(
        "--duration", type=_seconds, metavar="S", help="end after S seconds; status 1 if nothing came"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="save the last view as a picture")
    parser.set_defaults(run=_watch)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds above 0")
    return value


def _watch(options: argparse.Namespace) -> int:
    _check_output(options.svg)
    try:
        watch = _ros_half("watch")
    except KeyboardInterrupt:  # Ctrl-C is the way to end it, also while it still starts
        return 0
    ros_arguments = [sys.argv[0], *options.ros_arguments]
    try:
        return int(watch.run(options.topic, options.once, options.duration, options.svg, ros_arguments))
    except watch.WatchError as error:
        raise CommandError(str(error)) from error


def _ros_half(name: str) -> Any:
    """The module of a command that needs ROS 2."""
    from importlib import import_module

    try:
        return import_module(f"topreward_ros.nodes.{name}")
    except ImportError as error:
        raise CommandError(
            f"`topreward {name}` needs ROS 2 with the messages of topreward_ros ({error}): "
            "run `make setup`, or `colcon build` and source install/setup.bash"
        ) from error


# ---- demo --------------------------------------------------------------------------------------------


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="play robot videos on a ROS 2 topic and watch the monitor follow them",
        description="Start a video player and the monitor as two processes, which meet on a real ROS 2 topic "
        "on this machine only, and watch: a robot that does its task, one that fails, and one that does "
        "nothing. Ends by itself and tells whether it came out as it should.",
    )
    parser.add_argument("--video", metavar="V", help="a video file of yours instead; needs --task")
    parser.add_argument(
        "--task", metavar="T", help="the instruction, in natural language; alone: for the first shipped video"
    )
    _add_model(parser)
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="save the last view of the (first) video as a picture"
    )
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    if options.video and not options.task:
        raise CommandError("--video without --task: say what the robot in it is to do")
    _check_output(options.svg)
    demo = _ros_half("demo")
    try:
        return int(demo.run(options.video, options.task, options.model, options.svg))
    except (demo.DemoError, demo.watch.WatchError) as error:
        raise CommandError(str(error)) from error


# ---- models ------------------------------------------------------------------------------------------


def _add_models(commands: Any) -> None:
    parser = commands.add_parser(
        "models",
        help="list, describe, download and check models (needs no ROS 2)",
        description="The models that score: what is on this machine, and how to get more.",
        epilog="Example: topreward models download Qwen/Qwen3-VL-8B-Instruct",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    about_list = "the embedded model, those in the local hub cache, and others that can be got"
    actions.add_parser("list", help=about_list, description=about_list).set_defaults(run=_models_list)
    for name, run, about in (
        ("info", _models_info, "what is in a model: size, hash, frame size, instructions it understands"),
        (
            "download",
            _models_download,
            "get a model of the Hugging Face hub; goes on where it was interrupted",
        ),
        ("check", _models_check, "load a model and score the shipped video with it; status 1 if that fails"),
    ):
        action = actions.add_parser(name, help=about, description=about)
        action.add_argument("model", metavar="NAME", help="'embedded', a hub id, or a folder")
        action.set_defaults(run=run)


def _models_list(_: argparse.Namespace) -> int:
    from topreward_ros.offline.models import list_models
    from topreward_ros.views.models import model_table

    with _model_errors():
        _print(model_table(list_models()))
    return 0


def _models_info(options: argparse.Namespace) -> int:
    from topreward_ros.offline.models import describe_model
    from topreward_ros.views.models import facts_view

    with _model_errors():
        _print(facts_view(describe_model(options.model)))
    return 0


def _models_download(options: argparse.Namespace) -> int:
    from rich.console import Console

    from topreward_ros.offline.model_download import download_model, why_nothing_to_download
    from topreward_ros.views.models import DownloadBar

    if reason := why_nothing_to_download(options.model):
        print(reason)
        return 0
    with _model_errors(), DownloadBar(Console(stderr=True, highlight=False), options.model) as bar:
        folder = download_model(options.model, bar)
    print(f"{options.model} is in {folder}; use it with model:={options.model}, or --model {options.model}")
    return 0


def _models_check(options: argparse.Namespace) -> int:
    from rich.console import Console

    from topreward_ros.defaults import DEMO_TASK
    from topreward_ros.offline.models import check_model
    from topreward_ros.views import terminal
    from topreward_ros.views.models import check_view

    with _model_errors(), terminal.working(Console(stderr=True), f"checking model {options.model} ..."):
        result = check_model(options.model)
    _warn_of_unknown(DEMO_TASK, result.info)
    _print(check_view(result))
    return 0


def _print(content: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(content)


@contextmanager
def _model_errors() -> Iterator[None]:
    from topreward_ros.offline.model_download import DownloadError
    from topreward_ros.offline.video import VideoError
    from topreward_ros.scoring.base import ScorerError

    try:
        yield
    except (DownloadError, ScorerError, VideoError) as error:
        raise CommandError(str(error)) from error


# ---- bench -------------------------------------------------------------------------------------------


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure the scorer beside two slower ways to the same numbers (needs no ROS 2)",
        description="Score the 15 prefixes of an episode in three ways on this machine's CPU, on the shipped "
        "model and on one of 50 million random weights, and compare times and numbers. Some minutes.",
    )
    parser.add_argument("--full", action="store_true", help="all lengths and numbers of prompts; an hour")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads (default: all cores but one)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers as JSON; '-': to standard output")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a picture: .png, .svg or .pdf")
    parser.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    import json
    import tempfile

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from topreward_ros.offline import engine_bench
    from topreward_ros.scoring.base import ScorerError
    from topreward_ros.scoring.checkpoint.random_weights import make_fifty_million
    from topreward_ros.views.bench import bench_table, plot_bench

    _check_outputs(options)
    cases = engine_bench.FULL if options.full else engine_bench.QUICK
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    rows = []
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with tempfile.TemporaryDirectory() as folder, bar:
        task = bar.add_task("making a model of 50 million random weights", total=len(cases))
        models: dict[str, str | Path] = {
            "embedded": "embedded",
            "50M": make_fifty_million(Path(folder) / "50M"),
        }
        bar.update(task, description="measuring")
        try:
            for row in engine_bench.run(cases, models, options.threads):
                rows.append(row)
                bar.advance(task)
        except ScorerError as error:
            raise CommandError(str(error)) from error
    content = engine_bench.to_json(rows)
    Console(stderr=options.json == "-", highlight=False).print(bench_table(rows, content["machine"]))
    _write_json(options.json, lambda: json.dumps(content, indent=2) + "\n")
    if options.plot:
        with _writing(options.plot):
            plot_bench(rows, content["machine"], options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
