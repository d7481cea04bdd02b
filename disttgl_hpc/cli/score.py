"""``disttgl score``: scores pairs of nodes by a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from disttgl_hpc.cli import one_process
from disttgl_hpc.cli.options import events_options, print_table, table_option
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
    help="Columns of PAIRS; the time column may be missing.  [default: src=src,dst=dst,time=time]",
)
@click.option("--skip-unknown", is_flag=True, help="Leave the scores of unknown ids empty.")
@events_options
@one_process
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
    """Score the pairs of nodes in the CSV or Parquet file PAIRS, each as the next event at its time.

    Writes the pairs in their order with logit and probability: that the pair is an event rather than a random
    negative, as in training. Memory and neighbours depend on the events strictly before each time; without
    times, on all events. Each distinct time costs some milliseconds; further pairs at the same time cost
    little.
    """
    asked = read_pairs(pairs, parse_columns(columns) if columns else Columns())
    trained = open_trained(RunDirectory(run), events, static)
    print_table(scored_pairs(trained, asked, f"{pairs}", skip_unknown=skip_unknown), output)
