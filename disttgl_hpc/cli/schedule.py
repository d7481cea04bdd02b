"""``disttgl schedule``: the schedule of a grid as a table and as pictures."""

from __future__ import annotations

from pathlib import Path

import click

from disttgl_hpc.cli import one_process, print_answer
from disttgl_hpc.errors import StoreError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.report.schedule_pictures import (
    check_size,
    grid_picture,
    picture_steps,
    schedule_picture,
    schedule_table,
)
from disttgl_hpc.store.files import write_text

_EXAMPLES = """\b
Examples:
  disttgl schedule 1x2x2 --batches 6 --steps 5
  disttgl schedule 1x2x2 --batches 6 -o schedule.svg --grid-picture grid.svg
"""
_AT_LEAST_ONE = click.IntRange(min=1)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=_EXAMPLES)
@click.argument("grid")
@click.option("--batches", type=_AT_LEAST_ONE, default=6, help="Global batches per sweep, L.")
@click.option(
    "--steps", type=_AT_LEAST_ONE, help="Steps to show.  [default: a sweep and the beginning of the next]"
)
@click.option(
    "--nodes", type=_AT_LEAST_ONE, default=1, help="Nodes over which --grid-picture distributes the replicas."
)
@click.option("-o", "--output", type=_FILE, help="SVG file of the schedule.")
@click.option("--grid-picture", "grid_picture_file", type=_FILE, help="SVG file of the grid.")
@one_process
def schedule(
    *,
    grid: str,
    batches: int,
    steps: int | None,
    nodes: int,
    output: Path | None,
    grid_picture_file: Path | None,
) -> None:
    """Show what each trainer of GRID (IxJxK) does in each step, as a table and as pictures.

    Each entry names the batch, the pass over it, and whether the trainer reads (R) and writes (W) the memory
    of its replica. It is computed by the same functions that training uses.
    """
    shape = GridShape.parse(grid)
    steps = steps or picture_steps(shape, batches)
    check_size(shape, batches, steps)
    files = {output: schedule_picture(shape, batches, steps)} if output else {}
    if grid_picture_file:
        files[grid_picture_file] = grid_picture(shape, nodes=nodes)
    for file, picture in files.items():
        try:
            write_text(file, picture)
        except OSError as error:
            raise StoreError(f"{file}: cannot be written ({error.strerror}): choose another place") from error
    print_answer(schedule_table(shape, batches, steps))
