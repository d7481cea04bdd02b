"""``disttgl simulate``: how far training would scale, from a measurement of one trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import output_options, read_json, write_json
from disttgl_hpc.planning.costs import EXCHANGES, Machine
from disttgl_hpc.planning.forecast import forecast
from disttgl_hpc.planning.plots import plot_predictions
from disttgl_hpc.planning.scaling import doublings
from disttgl_hpc.planning.tables import comparison_table, prediction_table

_EXAMPLES = """\b
Examples:
  mpiexec -n 2 disttgl bench scaling flights.events.h5 --grids 1x1x1 --json one.json
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
    compared with what the model makes of them, on the cores that they had.
    """
    if MPI.COMM_WORLD.rank:
        return  # said once, however many processes were started
    grids = doublings(trainers_per_node, max_trainers, minibatch=minibatch, epoch=epoch)
    machine = Machine(cores=cores or trainers_per_node + 1, **figures)
    told = forecast(read_json(record, "disttgl bench scaling"), machine, grids, epochs=epochs, faster=faster)
    if plot_file:
        plot_predictions(told, plot_file)
    write_json(told, json_file)
    click.echo(f"{comparison_table(told)}\n\n{prediction_table(told)}")
