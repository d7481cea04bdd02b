"""``disttgl simulate``: predicts the scaling of training from a measurement of one trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from disttgl_hpc.benchmarks.calibration import run_costs
from disttgl_hpc.cli import one_process, print_answer
from disttgl_hpc.cli.options import output_options, read_json, write_json
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.planning.costs import EXCHANGES, Machine
from disttgl_hpc.planning.scaling import doublings, forecast, grids_on_nodes
from disttgl_hpc.report.drawing import save_charts
from disttgl_hpc.report.figures import prediction_charts
from disttgl_hpc.report.measurement_tables import comparison_table, prediction_table

_EXAMPLES = """\b
Examples:
  mpiexec -n 2 disttgl bench scaling flights.events.h5 --grids 1x1x1 --json one.json
  disttgl simulate runs/one-trainer --grids 1x1x3,1x1x6@2,1x2x9@3
  disttgl simulate plan.json --trainers-per-node 4 --max-trainers 64
  disttgl simulate one.json --trainers-per-node 8 --bandwidth 12.5e9 --plot scaling.svg
  disttgl simulate one.json --trainers-per-node 8 --minibatch 2 --collective ring --storage-bandwidth 2e9
  disttgl simulate one.json --trainers-per-node 8 --faster 20    # trainers as fast as a GPU, the daemon on a CPU
"""
_POSITIVE, _NOT_NEGATIVE = click.FloatRange(min=0, min_open=True), click.FloatRange(min=0)
_FIGURES: dict[str, tuple[Any, str]] = {
    "bandwidth": (_POSITIVE, "Network bandwidth per node, bytes/s in each direction."),
    "latency_s": (_NOT_NEGATIVE, "Network latency, seconds."),
    "collective": (click.Choice(sorted(EXCHANGES)), "Algorithm by which nodes sum gradients."),
    "poll_s": (
        _NOT_NEGATIVE,
        "Seconds added to each round of messages, since waiting ranks sleep between polls.",
    ),
    "meeting_s": (_NOT_NEGATIVE, "Seconds of a barrier of a node's trainers per doubling of their number."),
    "local_bandwidth": (_POSITIVE, "Rate at which a trainer sums the gradients of its node, bytes/s."),
    "storage_bandwidth": (
        _NOT_NEGATIVE,
        "File system bandwidth shared by all nodes, bytes/s; 0: all data is in memory.",
    ),
    "crowding": (_NOT_NEGATIVE, "Relative increase of CPU time where threads share cores."),
}
_AT_LEAST_ONE = click.IntRange(min=1)


def _machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds an option for each field of Machine that has a default."""
    defaults = {field.name: field.default for field in dataclasses.fields(Machine)}
    for name, (kind, text) in reversed(_FIGURES.items()):
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        command = click.option(flag, name, type=kind, default=defaults[name], help=text)(command)
    return command


@click.command(epilog=_EXAMPLES)
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--grids", help="IxJxK@NODES,…: predict these grids instead of doublings of the trainers.")
@click.option(
    "--trainers-per-node",
    type=_AT_LEAST_ONE,
    default=8,
    help="Trainers per node, if there are several nodes.",
)
@click.option(
    "--max-trainers", type=_AT_LEAST_ONE, default=4096, help="Predict 1, 2, 4, … trainers up to this number."
)
@click.option("--minibatch", type=_AT_LEAST_ONE, default=1, help="i of all predicted grids.")
@click.option("--epoch", type=_AT_LEAST_ONE, default=1, help="j of all predicted grids; k follows.")
@click.option("--epochs", type=_AT_LEAST_ONE, default=100, help="Epochs of the predicted run.")
@click.option("--cores", type=_AT_LEAST_ONE, help="Cores per node.  [default: trainers per node + 1]")
@click.option(
    "--faster", type=_POSITIVE, default=1.0, help="Assume trainers that compute this many times faster."
)
@_machine_options
@output_options
@one_process
def simulate(
    *,
    record: Path,
    grids: str | None,
    trainers_per_node: int,
    max_trainers: int,
    minibatch: int,
    epoch: int,
    epochs: int,
    cores: int | None,
    faster: float,
    plot_file: Path | None,
    json_file: Path | None,
    **figures: Any,
) -> None:
    """Predict speed, idle time and bottleneck of 1 to thousands of trainers from one measured trainer.

    RECORD is a file written by `disttgl bench scaling --json`: its grid 1x1x1 calibrates the model, and all
    its grids are compared with their predictions. RECORD may also be a file written by `disttgl plan --json`,
    whose chosen local batch calibrates the model, or the directory of a run of one trainer (1x1x1).
    """
    if grids:
        _refuse_beside_grids()
        wanted = grids_on_nodes(grids)
        trainers_per_node = max(-(-shape.num_trainers // nodes) for shape, nodes in wanted)
    else:
        wanted = doublings(trainers_per_node, max_trainers, minibatch=minibatch, epoch=epoch)
    machine = Machine(cores=cores or trainers_per_node + 1, **figures)
    predicted = forecast(_measured(record), machine, wanted, epochs=epochs, faster=faster)
    if plot_file:
        save_charts(prediction_charts(predicted), plot_file)
    write_json(predicted, json_file)
    print_answer(f"{comparison_table(predicted)}\n\n{prediction_table(predicted)}")


def _refuse_beside_grids() -> None:
    """Raise ConfigError for options that have no effect with --grids."""
    context = click.get_current_context()
    for name in ("trainers_per_node", "max_trainers", "minibatch", "epoch"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"--grids and {flag} exclude each other: omit one")


def _measured(path: Path) -> dict[str, Any]:
    """The measurement of one trainer in a file or run directory. Raises ConfigError or StoreError."""
    if path.is_dir():
        return run_costs(path)
    record = read_json(path, "disttgl bench scaling")
    if "calibration" not in record:
        return record
    try:
        chosen = record["local_batch"]
        return dict(next(one for one in record["calibration"] if one["settings"]["local_batch"] == chosen))
    except (LookupError, TypeError, ValueError, StopIteration) as error:
        raise ConfigError(
            f"{path}: the plan has no measurement of its local batch: make it with "
            "disttgl plan EVENTS.h5 --json FILE, without --no-calibration"
        ) from error
