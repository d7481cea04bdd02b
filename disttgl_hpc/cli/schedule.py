"""``disttgl schedule``: who does what in which step, as a table and as pictures."""

from __future__ import annotations

from pathlib import Path

import click
from mpi4py import MPI

from disttgl_hpc.errors import StoreError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.report.schedule_pictures import (
    check_size,
    grid_picture,
    picture_steps,
    schedule_picture,
    schedule_table,
)

_EXAMPLES = """\b
Examples:
  disttgl schedule 1x2x2 --batches 6 --steps 5
  disttgl schedule 1x2x2 --batches 6 -o schedule.svg --grid-picture grid.svg
"""
_AT_LEAST_ONE = click.IntRange(min=1)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=_EXAMPLES)
@click.argument("grid")
@click.option("--batches", type=_AT_LEAST_ONE, default=6, help="Global batches of a sweep, L.")
@click.option("--steps", type=_AT_LEAST_ONE, help="To show.  [default: a sweep and the next one's beginning]")
@click.option("--nodes", type=_AT_LEAST_ONE, default=1, help="Over which --grid-picture spreads replicas.")
@click.option("-o", "--output", type=_FILE, help="SVG file for the schedule.")
@click.option("--grid-picture", "grid_picture_file", type=_FILE, help="SVG file for the grid.")
def schedule(
    *,
    grid: str,
    batches: int,
    steps: int | None,
    nodes: int,
    output: Path | None,
    grid_picture_file: Path | None,
) -> None:
    """Tell what each trainer of GRID (IxJxK) does in each step, as a table and as pictures.

    Which batch, which of its passes, and whether it reads (R) and writes (W) the memory of its replica. It is
    worked out by the functions that training itself asks.
    """
    if MPI.COMM_WORLD.rank:
        return  # said once, however many processes were started
    shape = GridShape.parse(grid)
    steps = steps or picture_steps(shape, batches)
    check_size(shape, batches, steps)
    files = {output: schedule_picture(shape, batches, steps)} if output else {}
    if grid_picture_file:
        files[grid_picture_file] = grid_picture(shape, nodes=nodes)
    for file, picture in files.items():
        try:
            file.write_text(picture, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{file}: cannot be written ({error.strerror}): choose another place") from error
    click.echo(schedule_table(shape, batches, steps))
