"""``disttgl plan``: what a batch size hides, and which grid to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import output_options, write_json
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.planning.captured import captured_events, powers_of_two
from disttgl_hpc.planning.plots import plot_captured
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
@output_options
def plan(
    events: Path, captured: bool, batch_sizes: str | None, plot_file: Path | None, json_file: Path | None
) -> None:
    """Tell what a batch of each size would hide of EVENTS from the node memory."""
    if MPI.COMM_WORLD.rank:
        return  # said once, however many processes were started
    record = _captured(EventStore.open(events), batch_sizes)
    if plot_file:
        plot_captured(record, plot_file)
    write_json(record, json_file)
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
