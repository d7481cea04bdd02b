"""``disttgl classify``: node classifiers on the embeddings of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from disttgl_hpc.cli import one_process, print_answer
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
@click.option(
    "--seeds", type=_AT_LEAST_ONE, default=HeadSettings.seeds, help="Number of heads to train, one per seed."
)
@click.option(
    "--epochs", type=_AT_LEAST_ONE, default=HeadSettings.epochs, help="Passes over the training events."
)
@click.option("--lr", type=click.FloatRange(min=0), default=HeadSettings.lr, help="Learning rate of Adam.")
@click.option("--batch", type=_AT_LEAST_ONE, default=HeadSettings.batch, help="Events per step.")
@click.option(
    "--balance",
    type=click.FloatRange(min=0),
    default=HeadSettings.balance,
    help="Exponent of the class weights; 1: both labels have the same total weight, 0: no weighting.",
)
@click.option("--events", type=click.Path(path_type=Path), help="The event store, if it has moved.")
@one_process
def classify(run: Path, events: Path | None, **settings: Any) -> None:
    """Predict the state of nodes (a ban, a default) from the frozen embeddings of the finished RUN.

    The source of every event is embedded just before the event with the run's best weights; a head is trained
    on the node labels of the training split (0 or not 0). Validation ROC-AUC selects the epoch. The table
    shows all heads; RUN/classify.json has each of them. To train the embeddings as well: `disttgl train
    --task node` or `--task link+node`.
    """
    print_answer(heads_table(run_classify(RunDirectory(run), HeadSettings(**settings), events)))
