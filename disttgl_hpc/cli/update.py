"""``disttgl update``: carries a run's node memory along new events, without training."""

from __future__ import annotations

from pathlib import Path

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import events_options
from disttgl_hpc.inference.trained_run import update as run_update
from disttgl_hpc.training.run_directory import RunDirectory

_EXAMPLES = """\b
Example:
  disttgl append flights.events.h5 yesterday.csv
  disttgl update runs/flights
  disttgl recommend runs/flights --nodes N14228 --top 3
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@events_options
def update(run: Path, events: Path | None, static: Path | None) -> None:
    """Carry the node memory of RUN along the events that are new since, and keep it in RUN/memory.h5.

    EVENTS, by default the store that the run or its last update has read, must begin with the run's events. What
    embed, score and recommend say then is what they would say without an update, bit for bit: they only start from
    the kept memory instead of walking the new events each time. Weights stay as they are.
    """
    if MPI.COMM_WORLD.rank:
        return  # one process writes one file, however many were started
    directory = RunDirectory(run)
    origin = run_update(directory, events, static)
    click.echo(
        f"{directory.memory_file}: node memory after {origin.position:,} events of {origin.events_path}, "
        "whole batches; what is left of the last one is walked when the run is asked"
    )
