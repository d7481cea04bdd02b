"""``disttgl doctor``: checks whether a job would run here, and run well."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.benchmarks.doctor import Check, Verdict, diagnose, examine, launched_by
from disttgl_hpc.cli import print_answer
from disttgl_hpc.cli.options import config_options, given_settings
from disttgl_hpc.config import train_config

_EXAMPLES = """\b
Examples, each started like the job:
  disttgl doctor
  mpiexec -n 3 disttgl doctor flights.events.h5 --run runs/flights --grid 1x1x2
  srun --mpi=pmi2 --nodes=2 --ntasks-per-node=5 disttgl doctor flights.events.h5 --threads 4
"""
_WIDTH = 110


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path), required=False)
@click.option(
    "--run", "run_path", type=click.Path(path_type=Path), default="runs", help="Planned run directory."
)
@partial(config_options)
def doctor(events: Path | None, run_path: Path, **options: Any) -> None:
    """Check this machine or allocation before a long job on EVENTS, without training.

    Start it like the job, with the job's options. Checked are MPI and its launcher, shared memory, grid,
    cores and threads, events, run directory, clocks, software and GPUs. The exit status is 1 if the job would
    fail.
    """
    config = train_config(given_settings(options))
    checks = diagnose(examine(events, run_path, config, MPI.COMM_WORLD))
    # If MPI did not connect the processes, each of them is rank 0.
    launch = launched_by(dict(os.environ))
    if MPI.COMM_WORLD.rank == 0 and (launch is None or launch[2] == 0):
        print_answer("\n".join(table(checks)))
    if any(check.verdict is Verdict.FAILS for check in checks):
        raise click.exceptions.Exit(1)


def table(checks: Sequence[Check]) -> list[str]:
    """A row per check with its remedy, and a summary."""
    whats, verdicts = (
        max(map(len, column)) for column in ([c.what for c in checks], [v.value for v in Verdict])
    )
    lines = []
    for check in checks:
        head = f"{check.what:<{whats}}  {check.verdict.value:<{verdicts}}  "
        text = check.found + (f"  →  {check.remedy}" if check.remedy else "")
        lines += textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
    fails, slow = (
        sum(check.verdict is verdict for check in checks) for verdict in (Verdict.FAILS, Verdict.SLOW)
    )
    if fails:
        verdict = f"The job would fail: {fails} of {len(checks)} checks."
    else:
        verdict = "The job can start" + (f"; see the warning{'' if slow == 1 else 's'}." if slow else ".")
    return [*lines, "", verdict]
