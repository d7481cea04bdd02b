"""``disttgl append``: appends later events to an event store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from disttgl_hpc.cli import one_process, print_done
from disttgl_hpc.ingest.append import AppendSettings
from disttgl_hpc.ingest.append import append as run_append
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.formats import FORMATS
from disttgl_hpc.ingest.split import parse_split, parse_split_times

_EXAMPLES = """\b
Examples:
  disttgl append ratings.events.h5 monday.csv
  disttgl append ratings.events.h5 monday.csv tuesday.csv -o longer.events.h5 --split 0.8/0.1/0.1
"""


@click.command(epilog=_EXAMPLES)
@click.argument("store", type=click.Path(path_type=Path), metavar="EVENTS.h5")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="NEW...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Output store.  [default: replace EVENTS.h5]"
)
@click.option("--format", type=click.Choice(FORMATS), help="Format of NEW.  [default: by suffix]")
@click.option(
    "--columns", metavar="PART=NAME,...", help="As for prepare.  [default: as EVENTS.h5 was prepared]"
)
@click.option(
    "--label-by-file/--no-label-by-file",
    default=None,
    help="As for prepare.  [default: as EVENTS.h5 was prepared]",
)
@click.option(
    "--split",
    help="Shares of training, validation and test.  [default: training and validation end as before]",
)
@click.option("--split-times", metavar="T1,T2", help="Start times of validation and test.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@one_process
def append(store: Path, inputs: tuple[Path, ...], **options: Any) -> None:
    """Append the later events in the files NEW to EVENTS.h5.

    The result equals the store that prepare makes from all input at once, bit for bit, except for the split:
    new events are test events unless --split or --split-times is given. Appending takes as much time and
    temporary disk space as preparing everything. EVENTS.h5 is replaced once the longer store is complete; a
    run trained on it can then be updated and trained further, but its evaluation cannot be repeated. Use -o
    to keep both stores.
    """
    parsers = {"columns": parse_columns, "split": parse_split, "split_times": parse_split_times}
    given = {name: value for name, value in options.items() if value is not None}
    given |= {name: parse(given[name]) for name, parse in parsers.items() if name in given}
    longer = run_append(AppendSettings(store=store, inputs=inputs, **given))
    stream, num_before = longer.stream, longer.grown_from[-1].num_events
    print_done(
        f"{longer.path}: {stream.num_events:,} events, {stream.num_events - num_before:,} of them new, "
        f"{stream.num_nodes:,} nodes, training up to event {stream.split.train_end:,}, validation up to "
        f"{stream.split.validation_end:,}"
    )
