"""`topreward export`: what training reads, made from a dataset that `topreward annotate` has scored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topreward_ros.cli.output import CommandError, show
from topreward_ros.core.printable import printable
from topreward_ros.core.rewards import Imputation, RabcSettings, RewardSettings, RewardType
from topreward_ros.defaults import monitor_defaults

_GAMMA = 0.99  # of the authors' code


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of `topreward`."""
    parser = commands.add_parser(
        "export",
        help="weights and values for training, from an annotated dataset (needs no ROS 2)",
        description="What training reads, made from the progress of a dataset's rows.",
        epilog="Example: topreward export weights DATASET --values --gamma 0.99 --impute zero",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    about = "RA-BC's and TOP-AWR's weight of each row, and on request Monte-Carlo values"
    weights = actions.add_parser(
        "weights",
        help=about,
        description=f"{about}, as a parquet file that is joined by `index`.",
    )
    _add_options(weights)
    weights.set_defaults(run=_weights)


def _add_options(parser: argparse.ArgumentParser) -> None:
    rabc, defaults = RabcSettings(), monitor_defaults()
    parser.add_argument(
        "source",
        type=Path,
        metavar="DATASET",
        help="a dataset with topreward_progress.parquet in it, or such a file, LeRobot's own included",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: topreward_weights.parquet beside the progress"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument(
        "--head",
        choices=("sparse", "dense"),
        default="sparse",
        help="which progress: the column progress_sparse, or progress_dense of SARM (default: sparse)",
    )
    parser.add_argument(
        "--chunk-size",
        type=int,
        default=rabc.chunk_size,
        metavar="ROWS",
        help="RA-BC: rows over which progress is compared, those of an action chunk (default: %(default)s)",
    )
    parser.add_argument(
        "--kappa",
        type=float,
        default=rabc.kappa,
        help="RA-BC: a rise above this counts in full (default: %(default)s)",
    )
    parser.add_argument(
        "--tau",
        type=float,
        default=defaults["advantage_tau"],
        help="TOP-AWR: tau of eq. 3 (default: %(default)s)",
    )
    parser.add_argument(
        "--delta-max",
        type=float,
        default=defaults["advantage_max"],
        help="TOP-AWR: delta_max of eq. 3 (default: %(default)s)",
    )
    parser.add_argument("--values", action="store_true", help="add the columns reward and value")
    parser.add_argument(
        "--gamma", type=float, metavar="G", help=f"with --values, the discount per row (default: {_GAMMA})"
    )
    parser.add_argument(
        "--impute",
        choices=[how.value for how in Imputation],
        help="with --values, the reward of rows between two scores: 0 (zero, the default), on a line "
        "(interpolate), or the last one (duplicate)",
    )
    parser.add_argument(
        "--reward",
        choices=[kind.name.lower() for kind in RewardType],
        help=f"with --values, the reward of a score (default: {defaults['reward_type']}; log_prob is what "
        "the code of the paper's authors sums)",
    )


def _weights(options: argparse.Namespace) -> int:
    from topreward_ros.core.output_files import is_same_file, write_file
    from topreward_ros.offline import dataset_weights as work
    from topreward_ros.offline.annotate_dataset import WEIGHTS_FILE
    from topreward_ros.views.weights import weights_table

    _check(options)
    rabc = RabcSettings(chunk_size=options.chunk_size, kappa=options.kappa)
    kind = RewardType[(options.reward or monitor_defaults()["reward_type"]).upper()]
    reward = RewardSettings(kind, options.tau, options.delta_max)
    values = None
    if options.values:
        gamma = _GAMMA if options.gamma is None else options.gamma
        values = work.ValueSettings(reward, gamma, Imputation(options.impute or Imputation.ZERO.value))
    source = work.find_progress(options.source)
    output = options.output or source.parent / WEIGHTS_FILE
    if output.suffix != ".parquet" or output.is_dir():
        raise CommandError(f"--output {output}: name a file that ends in .parquet")
    if is_same_file(output, source):
        raise CommandError(f"--output {output} would replace the progress, which is read: name another file")
    if output.exists() and not options.overwrite:
        raise CommandError(f"{output} exists already: --overwrite replaces it, --output names another file")
    progress = work.read_progress(source, options.head)
    columns, weights = work.weight_columns(progress, rabc, reward, values)
    write_file(output, work.weights_file(columns, rabc, reward, values))
    show(weights_table(columns, weights, printable(str(output))))
    return 0


def _check(options: argparse.Namespace) -> None:
    for name in ("gamma", "impute", "reward"):
        if getattr(options, name) is not None and not options.values:
            raise CommandError(f"--{name} goes with --values")
    if options.chunk_size < 1:
        raise CommandError(f"--chunk-size {options.chunk_size}: must be at least 1")
    if not 0 <= options.kappa < float("inf"):
        raise CommandError(f"--kappa {options.kappa:g}: must be a number from 0 on")
    if options.gamma is not None and not 0 <= options.gamma <= 1:
        raise CommandError(f"--gamma {options.gamma:g}: must be from 0 to 1")
    for name, value in (("tau", options.tau), ("delta-max", options.delta_max)):
        if not 0 < value < float("inf"):
            raise CommandError(f"--{name} {value:g}: must be a number above 0")
