"""``disttgl generate``: synthetic event streams of any size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.synthetic import KINDS, WIKIPEDIA, Recipe
from disttgl_hpc.ingest.generate import GenerateSettings
from disttgl_hpc.ingest.generate import generate as run_generate

_LIKE = {"wikipedia": WIKIPEDIA}
_EVENTS_PER_NODE = 20
_LONG_RANGE_LAG = 20
_LAGS_PER_NODE = 10
_EXAMPLES = """\b
Examples:
  disttgl generate wikipedia-like.events.h5 --like wikipedia
  disttgl generate shop.events.h5 --events 2e6 --sources 1e5 --destinations 5e3 --edge-features 16
  disttgl generate far.events.h5 --events 1e6 --kind long-range --lag 30
  disttgl generate raw.csv.gz --events 1e6 --classes 4
"""


def count(text: str | int) -> int:
    """A whole number, also as 1e6 or 1,000,000. Raises BadParameter."""
    try:
        number = float(str(text).replace(",", ""))
    except ValueError:
        number = -1.0
    if number < 0 or not number.is_integer():
        raise click.BadParameter(f"must be a whole number such as 1000000 or 1e6, found '{text}'")
    return int(number)


@click.command(epilog=_EXAMPLES)
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT.events.h5")
@click.option("--like", type=click.Choice(list(_LIKE)), help="Counts and habits of a known stream.")
@click.option("--events", "num_events", type=count, help="Number of events.  [default: 1e6]")
@click.option("--nodes", type=count, help="Nodes of one set.  [default: 20 events a node]")
@click.option("--sources", type=count, help="With --destinations: two sets of nodes (bipartite).")
@click.option("--destinations", type=count, help="With --sources: two sets of nodes.")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="What repeats: one of the source's recent destinations, or the one far back.  [default: recent]",
)
@click.option(
    "--lag",
    type=click.IntRange(min=1),
    help="recent: a repeat is of one of the source's last LAG destinations. long-range: of the destination LAG of "
    "the source's events ago. Memory: 4 LAG bytes a source.  [default: 5, long-range 20]",
)
@click.option("--repeat", type=float, help=f"Share of repeats.  [default: {Recipe.repeat}]")
@click.option(
    "--bursts",
    type=float,
    help=f"Share of events by a source that acted just now.  [default: {Recipe.bursts}]",
)
@click.option(
    "--activity", type=float, help=f"Exponent of the sources' power law.  [default: {Recipe.activity}]"
)
@click.option(
    "--popularity", type=float, help=f"Exponent of the destinations'.  [default: {Recipe.popularity}]"
)
@click.option(
    "--mean-gap", type=float, help=f"Mean time between two events, seconds.  [default: {Recipe.mean_gap}]"
)
@click.option("--edge-features", "dim_edge", type=count, help="Features of an event.  [default: 0]")
@click.option(
    "--feature-dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="How they are stored.  [default: float32]",
)
@click.option(
    "--classes",
    "num_classes",
    type=count,
    help="Classes of events: how long the source was idle.  [default: 0]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Another seed, another stream.  [default: 0]")
@click.option(
    "--name", default="", show_default=False, help="Name of the stream.  [default: the output's own]"
)
@click.option("--force", is_flag=True, help="Replace the output if it is an event store.")
def generate(
    *,
    output: Path,
    like: str | None,
    nodes: int | None,
    sources: int | None,
    destinations: int | None,
    name: str,
    force: bool,
    **options: Any,
) -> None:
    """Make a synthetic event stream of any size, the same for the same options.

    An OUT that ends in .csv or .csv.gz gets the raw events (src, dst, time[, label][, f0, f1, …]), for
    disttgl prepare to read. Nodes turn up over the whole stream, the first ones being the most active; sources
    repeat themselves; time is in whole seconds.
    """
    if MPI.COMM_WORLD.rank:
        return  # one process writes one file, however many were started
    given = {option: value for option, value in options.items() if value is not None}
    given |= _node_counts(nodes, sources, destinations)
    recipe = dataclasses.replace(_LIKE[like], **given) if like else Recipe(**_with_defaults(given))
    settings = GenerateSettings(recipe=recipe, output=output, name=name, force=force)
    run_generate(settings)
    click.echo(f"{output}: {recipe.num_events:,} events, {recipe.num_nodes:,} nodes")


def _node_counts(nodes: int | None, sources: int | None, destinations: int | None) -> dict[str, int]:
    """Either one set of nodes or two."""
    if (sources is None) != (destinations is None) or (nodes is not None and sources is not None):
        raise ConfigError(
            "nodes are of one set or of two: give --nodes, or both --sources and --destinations"
        )
    if nodes is not None:
        return {"num_src": nodes, "num_dst": 0}
    if sources is not None and destinations is not None:
        return {"num_src": sources, "num_dst": destinations}
    return {}


def _with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Options that have no fixed default: a number of nodes that suits the number of events and the lag."""
    given.setdefault("num_events", 10**6)
    events_per_node = _EVENTS_PER_NODE
    if given.get("kind") == "long-range":
        given.setdefault("lag", _LONG_RANGE_LAG)
        events_per_node = _LAGS_PER_NODE * given["lag"]
    given.setdefault("num_src", max(2, given["num_events"] // events_per_node))
    return given
