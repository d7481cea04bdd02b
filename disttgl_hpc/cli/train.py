"""``disttgl train``: its options are the fields of TrainConfig."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import config_options
from disttgl_hpc.config import read_toml, train_config
from disttgl_hpc.report import results_table
from disttgl_hpc.runs.directory import RunDirectory
from disttgl_hpc.runs.train import train as run_training
from disttgl_hpc.store.events import EventStore

_EXAMPLES = """\b
Examples:
  disttgl train flights.events.h5 --run runs/flights --epochs 2
  mpiexec -n 3 disttgl train flights.events.h5 --run runs/two-trainers
"""


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--run", "run_path", required=True, type=click.Path(path_type=Path), help="Run directory to make."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option(
    "--batches",
    type=click.Path(path_type=Path),
    help="Batch store of `disttgl sample` to read instead of sampling.",
)
@config_options
def train(
    events: Path, run_path: Path, config_file: Path | None, batches: Path | None, **options: Any
) -> None:
    """Train on the event store EVENTS and evaluate the best weights.

    Alone it trains in one process; under mpiexec the last rank of each node serves the node memory and the others
    train. Options win over the TOML file, which wins over the defaults.
    """
    given = {name: value for name, value in options.items() if value is not None}
    config = train_config(read_toml(config_file) if config_file else {}, given)
    run = RunDirectory(run_path)
    run_training(EventStore.open(events), config, run, MPI.COMM_WORLD, batches)
    if MPI.COMM_WORLD.rank == 0:
        click.echo(results_table(run.records()[-1]))
