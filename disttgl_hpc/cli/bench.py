"""``disttgl bench``: measurements of this program on this machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import config_options
from disttgl_hpc.config import read_toml, train_config
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.report import scaling_table
from disttgl_hpc.runs.bench import ScalingPlan, measure_scaling
from disttgl_hpc.store.events import EventStore

_WITHOUT_EFFECT = (
    "epochs",
    "grid",
    "evaluation_batch",
    "evaluation_negatives",
    "evaluation_strategy",
    "evaluation_seed",
    "evaluation_events",
)
_AT_LEAST_ONE = click.IntRange(min=1)
_EXAMPLE = (
    "Example:  mpiexec -n 3 disttgl bench scaling flights.events.h5 --grids 1x1x1,1x1x2 --json scaling.json"
)


@click.group()
def bench() -> None:
    """Measure how fast training is on this machine."""


@bench.command(epilog=_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--grids", required=True, help="IxJxK,IxJxK,…: what to compare; speed-up is over the first of them."
)
@click.option(
    "--steps", type=_AT_LEAST_ONE, default=200, show_default=True, help="Steps to measure in each run."
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Steps before them that do not count.",
)
@click.option(
    "--rounds", type=_AT_LEAST_ONE, default=3, show_default=True, help="Runs of each grid, taken in turns."
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="File for all figures."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings.")
@partial(config_options, but=_WITHOUT_EFFECT)
def scaling(
    *,
    events: Path,
    grids: str,
    steps: int,
    warmup: int,
    rounds: int,
    json_file: Path | None,
    config_file: Path | None,
    **options: Any,
) -> None:
    """Train on EVENTS with several grids in turns; print speed, CPU time, waiting and traffic of each.

    Start as many ranks as the largest grid needs: its trainers and a daemon for each node. Smaller grids take
    their ranks evenly from the nodes, and the others sleep. Nothing is evaluated and no run is kept.
    """
    if json_file and not json_file.parent.is_dir():
        raise click.BadParameter(f"{json_file}: no such folder: make it first", param_hint="--json")
    given = {name: value for name, value in options.items() if value is not None}
    config = train_config(read_toml(config_file) if config_file else {}, given)
    shapes = tuple(GridShape.parse(text) for text in grids.split(","))
    plan = ScalingPlan(grids=shapes, steps=steps, warmup=warmup, rounds=rounds)
    record = measure_scaling(EventStore.open(events).stream, config, plan, MPI.COMM_WORLD)
    if record is None:
        return
    record["machine"]["versions"]["mpi"] = _mpi_library()
    record["settings"] = config.as_dict()
    if json_file:
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo(scaling_table(record))


def _mpi_library() -> str:
    """Name and version of the MPI library, of the much that it tells about itself."""
    first_line = MPI.Get_library_version().splitlines()[0].partition(",")[0]
    return " ".join(first_line.replace("Version:", "").split())
