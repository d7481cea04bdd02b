"""``disttgl generate``: synthetic event streams of any size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from disttgl_hpc.cli import one_process, print_done
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
    """An integer, also written as 1e6 or 1,000,000. Raises BadParameter."""
    try:
        number = float(str(text).replace(",", ""))
    except ValueError:
        number = -1.0
    if number < 0 or not number.is_integer():
        raise click.BadParameter(f"must be an integer such as 1000000 or 1e6, found '{text}'")
    return int(number)


@click.command(epilog=_EXAMPLES)
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT.events.h5")
@click.option(
    "--like", type=click.Choice(list(_LIKE)), help="Use the counts and distributions of a known stream."
)
@click.option("--events", "num_events", type=count, help="Number of events.  [default: 1e6]")
@click.option("--nodes", type=count, help="Number of nodes in one node set.  [default: 20 events per node]")
@click.option("--sources", type=count, help="Number of sources of a bipartite stream; needs --destinations.")
@click.option(
    "--destinations", type=count, help="Number of destinations of a bipartite stream; needs --sources."
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="What a source repeats: a recent destination, or one from long ago.  [default: recent]",
)
@click.option(
    "--lag",
    type=click.IntRange(min=1),
    help="recent: repeats one of the source's last LAG destinations. long-range: repeats the "
    "destination of LAG "
    "events of the source ago. Needs 4 LAG bytes per source.  [default: 5, long-range 20]",
)
@click.option("--repeat", type=float, help=f"Share of repeats.  [default: {Recipe.repeat}]")
@click.option(
    "--bursts",
    type=float,
    help=f"Share of events whose source is that of a very recent event.  [default: {Recipe.bursts}]",
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
@click.option("--edge-features", "dim_edge", type=count, help="Features per event.  [default: 0]")
@click.option(
    "--feature-dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    help="Stored type of the features.  [default: float32]",
)
@click.option(
    "--classes",
    "num_classes",
    type=count,
    help="Number of event classes, which depend on how long the source was idle.  [default: 0]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Random seed.  [default: 0]")
@click.option(
    "--name", default="", show_default=False, help="Name of the stream.  [default: name of the output]"
)
@click.option("--force", is_flag=True, help="Replace the output if it is an event store.")
@one_process
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
    """Generate a synthetic event stream of any size; the same options give the same stream.

    If OUT ends in .csv or .csv.gz, raw events (src, dst, time[, label][, f0, f1, …]) are written for disttgl
    prepare. Nodes appear over the whole stream, and the earliest are the most active; sources repeat
    destinations; times are whole seconds.
    """
    given = {option: value for option, value in options.items() if value is not None}
    given |= _node_counts(nodes, sources, destinations)
    recipe = dataclasses.replace(_LIKE[like], **given) if like else Recipe(**_with_defaults(given))
    settings = GenerateSettings(recipe=recipe, output=output, name=name, force=force)
    run_generate(settings)
    print_done(f"{output}: {recipe.num_events:,} events, {recipe.num_nodes:,} nodes")


def _node_counts(nodes: int | None, sources: int | None, destinations: int | None) -> dict[str, int]:
    """Node counts of the recipe: one node set or two."""
    if (sources is None) != (destinations is None) or (nodes is not None and sources is not None):
        raise ConfigError(
            "use either --nodes (one node set) or both --sources and --destinations (bipartite)"
        )
    if nodes is not None:
        return {"num_src": nodes, "num_dst": 0}
    if sources is not None and destinations is not None:
        return {"num_src": sources, "num_dst": destinations}
    return {}


def _with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Add defaults that depend on other options: the number of nodes depends on events and lag."""
    given.setdefault("num_events", 10**6)
    events_per_node = _EVENTS_PER_NODE
    if given.get("kind") == "long-range":
        given.setdefault("lag", _LONG_RANGE_LAG)
        events_per_node = _LAGS_PER_NODE * given["lag"]
    given.setdefault("num_src", max(2, given["num_events"] // events_per_node))
    return given
