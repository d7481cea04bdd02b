"""``disttgl evaluate``: repeats the final evaluation of a run from its files."""

from __future__ import annotations

import json
from pathlib import Path

import click
from mpi4py import MPI

from disttgl_hpc.cli import print_answer
from disttgl_hpc.report.result_tables import results_table
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.sweep_ends import evaluate_run

_EXAMPLES = """\b
Examples:
  disttgl evaluate runs/flights
  mpiexec -n 2 disttgl evaluate runs/flights --events /scratch/flights.events.h5 --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--events", type=click.Path(path_type=Path), help="Event store, if it has moved.")
@click.option("--static", type=click.Path(path_type=Path), help="Static memory file, if it has moved.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def evaluate(run: Path, events: Path | None, static: Path | None, as_json: bool) -> None:
    """Repeat the final evaluation of RUN on validation and test, with its best weights and their memory.

    The results equal those that training printed. Under mpiexec all ranks share the scoring.
    """
    results = evaluate_run(RunDirectory(run), events, MPI.COMM_WORLD, static)
    if MPI.COMM_WORLD.rank == 0:
        print_answer(json.dumps(results) if as_json else results_table(results))
