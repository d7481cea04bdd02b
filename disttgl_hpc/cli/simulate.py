"""``disttgl simulate``: how far training would scale, from a measurement of one trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from mpi4py import MPI

from disttgl_hpc.benchmarks.calibration import run_costs
from disttgl_hpc.cli.options import output_options, read_json, write_json
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.planning.costs import EXCHANGES, Machine
from disttgl_hpc.planning.planning_tables import comparison_table, prediction_table
from disttgl_hpc.planning.plots import plot_predictions
from disttgl_hpc.planning.scaling import doublings, forecast, grids_on_nodes

_EXAMPLES = """\b
Examples:
  mpiexec -n 2 disttgl bench scaling flights.events.h5 --grids 1x1x1 --json one.json
  disttgl simulate runs/one-trainer --grids 1x1x3,1x1x6@2,1x2x9@3
  disttgl simulate plan.json --trainers-per-node 4 --max-trainers 64
  disttgl simulate one.json --trainers-per-node 8 --bandwidth 12.5e9 --plot scaling.svg
  disttgl simulate one.json --trainers-per-node 8 --minibatch 2 --collective ring --storage-bandwidth 2e9
  disttgl simulate one.json --trainers-per-node 8 --faster 20    # a GPU's speed beside a processor's daemon
"""
_POSITIVE, _NOT_NEGATIVE = click.FloatRange(min=0, min_open=True), click.FloatRange(min=0)
_FIGURES: dict[str, tuple[Any, str]] = {
    "bandwidth": (_POSITIVE, "Of each node's network, bytes/s each way."),
    "latency_s": (_NOT_NEGATIVE, "Of the network, seconds."),
    "collective": (click.Choice(sorted(EXCHANGES)), "How nodes sum gradients."),
    "poll_s": (
        _NOT_NEGATIVE,
        "Seconds added to each round of messages: ranks that wait sleep between looks.",
    ),
    "meeting_s": (_NOT_NEGATIVE, "Seconds for a node's trainers to meet, for each doubling of their number."),
    "local_bandwidth": (_POSITIVE, "At which a trainer adds up gradients of its node, bytes/s."),
    "storage_bandwidth": (_NOT_NEGATIVE, "Of the file system for all nodes, bytes/s; 0: all is in memory."),
    "crowding": (_NOT_NEGATIVE, "How much more CPU time a step takes where threads share cores."),
}
_AT_LEAST_ONE = click.IntRange(min=1)


def _machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each figure of a Machine that has a default."""
    defaults = {field.name: field.default for field in dataclasses.fields(Machine)}
    for name, (kind, text) in reversed(_FIGURES.items()):
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        command = click.option(flag, name, type=kind, default=defaults[name], help=text)(command)
    return command


@click.command(epilog=_EXAMPLES)
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--grids", help="IxJxK@NODES,…: predict these, on any number of nodes, and no doublings.")
@click.option(
    "--trainers-per-node", type=_AT_LEAST_ONE, default=8, help="Of every node, if there are several."
)
@click.option("--max-trainers", type=_AT_LEAST_ONE, default=4096, help="Predict 1, 2, 4, … up to so many.")
@click.option("--minibatch", type=_AT_LEAST_ONE, default=1, help="i of all predicted grids.")
@click.option("--epoch", type=_AT_LEAST_ONE, default=1, help="j of all predicted grids; k follows.")
@click.option("--epochs", type=_AT_LEAST_ONE, default=100, help="Of the run whose length is told.")
@click.option("--cores", type=_AT_LEAST_ONE, help="Of a node.  [default: one for each trainer, and one more]")
@click.option(
    "--faster", type=_POSITIVE, default=1.0, help="Imagine trainers that compute so many times faster."
)
@_machine_options
@output_options
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
    """Predict speed, idle time and bottleneck of 1 to thousands of trainers from the one in RECORD.

    RECORD is what `disttgl bench scaling --json` wrote. Of its grids only 1x1x1 calibrates the model; all are
    compared with what the model makes of them, on the cores that they had. Or it is what `disttgl plan --json`
    wrote, whose chosen local batch calibrates, or the directory of a run of one trainer (1x1x1), with its phases.
    """
    if MPI.COMM_WORLD.rank:
        return  # said once, however many processes were started
    if grids:
        _refuse_beside_grids()
        wanted = grids_on_nodes(grids)
        trainers_per_node = max(-(-shape.num_trainers // nodes) for shape, nodes in wanted)
    else:
        wanted = doublings(trainers_per_node, max_trainers, minibatch=minibatch, epoch=epoch)
    machine = Machine(cores=cores or trainers_per_node + 1, **figures)
    told = forecast(_measured(record), machine, wanted, epochs=epochs, faster=faster)
    if plot_file:
        plot_predictions(told, plot_file)
    write_json(told, json_file)
    click.echo(f"{comparison_table(told)}\n\n{prediction_table(told)}")


def _refuse_beside_grids() -> None:
    """Raise ConfigError for an option that only doublings heed."""
    context = click.get_current_context()
    for name in ("trainers_per_node", "max_trainers", "minibatch", "epoch"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"--grids names whole grids and their nodes, and {flag} is given too: leave one out"
            )


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
            f"{path}: a plan calibrates with the measurement of its local batch, which it lacks: make it with "
            "disttgl plan EVENTS.h5 --json FILE, without --no-calibration"
        ) from error
