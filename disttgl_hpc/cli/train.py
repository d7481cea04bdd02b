"""``disttgl train``: its options are the fields of TrainConfig."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli import print_done
from disttgl_hpc.cli.options import config_options, given_settings
from disttgl_hpc.config import train_config
from disttgl_hpc.grid.job import EXIT_STATUS, ignore_stop_signals
from disttgl_hpc.report.result_tables import results_table
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory, open_events
from disttgl_hpc.training.train import train as run_training

_EXAMPLES = """\b
Examples:
  disttgl train flights.events.h5 --run runs/flights --epochs 2
  mpiexec -n 3 disttgl train flights.events.h5 --run runs/two-trainers
  disttgl train --resume runs/flights               # after a crash, a time limit, Ctrl-C
  disttgl train --resume runs/flights --epochs 4    # train a finished run further
  disttgl train longer.events.h5 --resume runs/flights --epochs 6    # on a longer stream
"""


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path), required=False)
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="New run directory.")
@click.option("--resume", "resumed_path", type=click.Path(path_type=Path), help="Run directory to continue.")
@click.option(
    "--batches",
    type=click.Path(path_type=Path),
    help="Batch store made by `disttgl sample`, to read instead of sampling.",
)
@config_options
def train(
    events: Path | None,
    run_path: Path | None,
    resumed_path: Path | None,
    batches: Path | None,
    **options: Any,
) -> None:
    """Train on the event store EVENTS and evaluate the best weights.

    Without mpiexec one process trains; under mpiexec the last rank of each node serves the node memory and
    the others train. Options override the TOML file, which overrides the defaults.

    On SIGTERM, SIGUSR1 or Ctrl-C training stops after a checkpoint with exit status 75. --resume continues a
    run from its last checkpoint as if it had never stopped. EVENTS is then needed only if the store has
    moved, and only --epochs (larger), --grid (from the end of the last sweep) and options that do not change
    the result may differ.

    With --resume, EVENTS may also be a longer store that begins with the run's events (disttgl append): the
    run continues on it from the end of its last sweep, with its weights and optimiser, up to --epochs.
    """
    given = given_settings(options)
    if resumed_path is not None and run_path is None:
        run = RunDirectory(resumed_path)
        config, inputs = resumed_config(run, given), run.read_config()
        # The named store may be longer than the run's own; see training.resume.
        store = EventStore.open(events) if events else open_events(Path(inputs["events"]), inputs["checksum"])
        if store.checksum == inputs["checksum"]:
            batches = batches or (Path(inputs["batches"]) if inputs.get("batches") else None)
    elif run_path is not None and resumed_path is None and events is not None:
        run, config, store = RunDirectory(run_path), train_config(given), EventStore.open(events)
    else:
        raise click.UsageError("give EVENTS and --run for a new run, or --resume to continue one")
    is_resumed = resumed_path is not None
    is_complete = run_training(store, config, run, MPI.COMM_WORLD, batches, resume=is_resumed)
    if is_complete and MPI.COMM_WORLD.rank == 0:
        print_done(results_table(run.records()[-1]))
    if not is_complete:
        leave_to_be_resumed(run)


def leave_to_be_resumed(run: RunDirectory) -> None:
    """Print how to continue, and exit with the status that asks a scheduler to requeue the job."""
    ignore_stop_signals()
    if MPI.COMM_WORLD.rank == 0:
        print_done(f"Stopped after a checkpoint. Continue with: disttgl train --resume {run.path}", err=True)
    raise click.exceptions.Exit(EXIT_STATUS)
