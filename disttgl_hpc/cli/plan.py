"""``disttgl plan``: what a batch size hides, and which grid to take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.planning.captured import captured_events, powers_of_two
from disttgl_hpc.planning.plots import check_plot, plot_captured
from disttgl_hpc.planning.tables import captured_table
from disttgl_hpc.store.events import EventStore

_EXAMPLES = """\b
Examples:
  disttgl plan flights.events.h5 --captured --plot captured.svg
  disttgl plan flights.events.h5 --captured --batch-sizes 300,600,1200
"""


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path))
@click.option("--captured", is_flag=True, help="Print what batches of each size capture, and stop.")
@click.option("--batch-sizes", help="B,B,…: sizes for --captured.  [default: powers of two]")
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Figure of --captured: .svg, .png, .pdf."
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="File for all figures."
)
def plan(
    events: Path, captured: bool, batch_sizes: str | None, plot_file: Path | None, json_file: Path | None
) -> None:
    """Tell what a batch of each size would hide of EVENTS from the node memory."""
    if MPI.COMM_WORLD.rank:
        return  # said once, however many processes were started
    if json_file and not json_file.parent.is_dir():
        raise click.BadParameter(f"{json_file}: no such folder: make it first", param_hint="--json")
    if plot_file:
        check_plot(plot_file)
    record = _captured(EventStore.open(events), batch_sizes)
    if plot_file:
        plot_captured(record, plot_file)
    if json_file:
        json_file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo(captured_table(record))


def _captured(store: EventStore, batch_sizes: str | None) -> dict[str, Any]:
    """Captured events of the training split."""
    stream, num_events = store.stream, store.stream.split.train_end
    sizes = _sizes(batch_sizes) if batch_sizes else powers_of_two(num_events)
    found = captured_events(stream.tcsr, num_events, sizes)
    return {"stream": stream.name, "events": num_events, "captured": [one.as_dict() for one in found]}


def _sizes(text: str) -> list[int]:
    """Batch sizes as written. Raises ConfigError."""
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ConfigError(f"batch sizes are written B,B,…: got {text!r}; try 300,600,1200") from None
