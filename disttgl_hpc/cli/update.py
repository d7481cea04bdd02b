"""``disttgl update``: updates a run's node memory with new events, without training."""

from __future__ import annotations

from pathlib import Path

import click

from disttgl_hpc.cli import one_process, print_done
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
@one_process
def update(run: Path, events: Path | None, static: Path | None) -> None:
    """Update the node memory of RUN with the events since its end, and store it in RUN/memory.h5.

    --events, by default the store of the run or of its last update, must begin with the run's events. The
    answers of embed, score and recommend are identical with and without an update, bit for bit; `update` only
    makes them faster, since they start from the stored memory. Weights do not change.
    """
    directory = RunDirectory(run)
    origin = run_update(directory, events, static)
    print_done(
        f"{directory.memory_file}: node memory after {origin.position:,} events of {origin.events_path}, "
        "in whole batches; queries process the remaining events"
    )
