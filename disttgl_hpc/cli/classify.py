"""``disttgl classify``: node classes on the embeddings of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.inference.classify import HeadSettings
from disttgl_hpc.inference.classify import classify as run_classify
from disttgl_hpc.report.result_tables import heads_table
from disttgl_hpc.training.run_directory import RunDirectory

_EXAMPLES = """\b
Examples:
  disttgl prepare jodie_wikipedia.csv.gz wikipedia.events.h5 --format jodie
  disttgl train wikipedia.events.h5 --run runs/wikipedia --epochs 10
  disttgl classify runs/wikipedia
"""
_AT_LEAST_ONE = click.IntRange(min=1)


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--seeds", type=_AT_LEAST_ONE, default=HeadSettings.seeds, help="Heads to learn, one a seed.")
@click.option(
    "--epochs", type=_AT_LEAST_ONE, default=HeadSettings.epochs, help="Passes of a head over training."
)
@click.option("--lr", type=click.FloatRange(min=0), default=HeadSettings.lr, help="Learning rate of Adam.")
@click.option("--batch", type=_AT_LEAST_ONE, default=HeadSettings.batch, help="Events of a step.")
@click.option(
    "--balance",
    type=click.FloatRange(min=0),
    default=HeadSettings.balance,
    help="How much more the rarer label weighs; 1: both the same.",
)
@click.option("--events", type=click.Path(path_type=Path), help="The event store, if it has moved.")
def classify(run: Path, events: Path | None, **how: Any) -> None:
    """Learn the state of nodes (a ban, a default) from the embeddings of the finished RUN, which stay as they are.

    The run's best weights walk the stream once and embed the source of every event just before it; a head learns
    its label at that time (node labels of `disttgl prepare`: 0, or anything else) on the training split. Validation
    chooses the epoch, by ROC-AUC. The table is of all heads; RUN/classify.json has each. To train the embeddings
    along: `disttgl train --task node`, or `--task link+node`.
    """
    if MPI.COMM_WORLD.rank:
        return  # one process does it, however many were started
    click.echo(heads_table(run_classify(RunDirectory(run), HeadSettings(**how), events)))
