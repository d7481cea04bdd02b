"""Options of the commands that ask a trained run, and how they answer."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from disttgl_hpc.inference.answer_tables import write_table
from disttgl_hpc.inference.answers import TABLE_KINDS, check_kind, write_table_file


def _time(_context: click.Context, _option: click.Parameter, text: str | None) -> int | float | None:
    """A time as it was written, integers kept exact. Raises BadParameter."""
    try:
        return text if text is None else int(text)
    except ValueError:
        pass
    try:
        time = float(str(text))
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        raise click.BadParameter(f"must be a time in the unit of the events, found '{text}'")
    return time


def _table(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """A file's name, checked before the command begins. Raises ConfigError."""
    if file is not None:
        check_kind(file, TABLE_KINDS)
    return file


at_option = click.option(
    "--at",
    metavar="TIME",
    callback=_time,
    help="As of this time, in the unit of the events: what happened before it.  [default: after the last event]",
)
table_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_table,
    help="File to write, .csv or .parquet.  [default: csv on standard output]",
)


def events_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --events and --static: where the inputs of a run are."""
    events = click.option(
        "--events",
        type=click.Path(path_type=Path),
        help="Event store that begins with the run's events.  [default: that of the run or of its last update]",
    )
    static = click.option(
        "--static", type=click.Path(path_type=Path), help="The file of static memory, if it has moved."
    )
    return events(static(command))


def tell_table(columns: dict[str, Any], file: Path | None) -> None:
    """Write a table to ``file``, or as csv to standard output."""
    if file is not None:
        write_table_file(file, columns)
        click.echo(f"{file}: {len(next(iter(columns.values()))):,} rows")
        return
    text = io.BytesIO()
    write_table(text, columns, "csv")
    click.echo(text.getvalue(), nl=False)
