"""``disttgl score``: how likely pairs of nodes are to meet, by a trained run."""

from __future__ import annotations

from pathlib import Path

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import events_options, table_option, tell_table
from disttgl_hpc.inference.answers import read_pairs, scored_pairs
from disttgl_hpc.inference.trained_run import open_trained
from disttgl_hpc.ingest.columns import Columns, parse_columns
from disttgl_hpc.training.run_directory import RunDirectory

_EXAMPLES = """\b
Examples:
  disttgl score runs/flights pairs.csv -o scores.csv
  disttgl score runs/shop pairs.parquet --columns src=user,dst=item,time=when -o scores.parquet
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@table_option
@click.option(
    "--columns",
    metavar="src=..,dst=..,time=..",
    help="Columns of PAIRS; that of times may be missing there.  [default: src=src,dst=dst,time=time]",
)
@click.option("--skip-unknown", is_flag=True, help="Leave scores of ids that no event has empty.")
@events_options
def score(
    run: Path,
    pairs: Path,
    output: Path | None,
    columns: str | None,
    *,
    skip_unknown: bool,
    events: Path | None,
    static: Path | None,
) -> None:
    """Score the pairs of nodes in the csv or parquet file PAIRS, each as the next event at its time.

    Writes them in their order with logit and probability: the chance that the pair is an event rather than a random
    negative, as it was trained. Memory and neighbours are of the events strictly before each time; without times,
    of all events. Each different time costs some milliseconds, many pairs at one time little more than one.
    """
    if MPI.COMM_WORLD.rank:
        return  # one process asks, however many were started
    asked = read_pairs(pairs, parse_columns(columns) if columns else Columns())
    trained = open_trained(RunDirectory(run), events, static)
    tell_table(scored_pairs(trained, asked, f"{pairs}", skip_unknown=skip_unknown), output)
