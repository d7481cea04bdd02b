"""Options that several commands share: training settings, output files, and queries to a trained run."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import click

from disttgl_hpc.cli import print_answer, print_done
from disttgl_hpc.config import TrainConfig, read_toml, setting_of
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.inference.answers import TABLE_KINDS, check_kind, write_table, write_table_file
from disttgl_hpc.log import printable
from disttgl_hpc.report.drawing import check_plot
from disttgl_hpc.store.files import write_errors, write_text


def config_options(
    command: Callable[..., Any], *, but: Container[str] = (), notes: Mapping[str, str] | None = None
) -> Callable[..., Any]:
    """Decorator: adds --config, --set and one option per setting not in ``but``; see :func:`given_settings`.

    notes: text to append to the defaults of settings, by name.
    """
    for setting in reversed(dataclasses.fields(TrainConfig)):
        if setting.name in but:
            continue
        flag = setting.name.replace("_", "-")
        among = setting.metadata["among"]
        note = f"; {notes[setting.name]}" if notes and setting.name in notes else ""
        is_switch = isinstance(setting.default, bool)
        option = click.option(
            f"--{flag}/--no-{flag}" if is_switch else f"--{flag}",
            setting.name,
            type=click.Choice(among) if among else type(setting.default),
            default=None,
            help=f"{setting.metadata['help']}  [default: {_shown(setting.default)}{note}]",
        )
        command = option(command)
    file = click.option(
        "--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings."
    )
    several = click.option(
        "--set",
        "set_texts",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting by its name in the TOML file; repeatable.",
    )
    return file(several(command))


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Settings given to a command: options override --set, which overrides the TOML file.

    options: by name, None if not given, with config_file and set_texts. Raises ConfigError.
    """
    file, texts = options["config_file"], options["set_texts"]
    given = read_toml(file) if file else {}
    for text in texts:
        given |= setting_of(text)
    others = ("config_file", "set_texts")
    return given | {
        name: value for name, value in options.items() if value is not None and name not in others
    }


def as_options(settings: dict[str, Any]) -> list[str]:
    """Settings as the words of a command line."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", f"{value}"]
    return words


def _shown(value: Any) -> str:
    """A default as shown in the help text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}" or "none"


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds --plot and --json, both checked before the command starts."""
    plot = click.option(
        "--plot",
        "plot_file",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_checked(check_plot),
        help="Figure file: .svg, .png or .pdf.",
    )
    as_json = click.option(
        "--json",
        "json_file",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_checked(_check_folder),
        help="JSON file for all results.",
    )
    return plot(as_json(command))


_Callback = Callable[[click.Context, click.Parameter, Path | None], Path | None]


def _checked(check: Callable[[Path], None]) -> _Callback:
    """Option callback that checks a file, if one is given."""

    def callback(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
        if file is not None:
            check(file)
        return file

    return callback


def _check_folder(file: Path) -> None:
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: the folder does not exist: create it first")


def write_json(record: dict[str, Any], file: Path | None) -> None:
    """Write a record to ``file`` unless it is None. Raises StoreError."""
    if file is not None:
        with write_errors(file, "free space there, or choose another place"):
            write_text(file, json.dumps(record, indent=2) + "\n")


def read_json(file: Path, command: str) -> dict[str, Any]:
    """The record that ``command`` wrote to its --json file. Raises ConfigError."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: must be written by {command} --json, cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{file}: must be written by {command} --json, found no JSON object")
    return record


def _time(_context: click.Context, _option: click.Parameter, text: str | None) -> int | float | None:
    """A time as a number; integers stay exact. Raises BadParameter."""
    try:
        return text if text is None else int(text)
    except ValueError:
        pass
    try:
        time = float(str(text))
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        raise click.BadParameter(f"must be a time in the stream's time unit, found '{text}'")
    return time


def _table(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """A file name, checked before the command starts. Raises ConfigError."""
    if file is not None:
        check_kind(file, TABLE_KINDS)
    return file


at_option = click.option(
    "--at",
    metavar="TIME",
    callback=_time,
    help="Use the events strictly before this time, in the stream's time unit.  [default: all events]",
)
table_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_table,
    help="Output file, .csv or .parquet.  [default: CSV on standard output]",
)


def events_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds --events and --static, the inputs of a run."""
    events = click.option(
        "--events",
        type=click.Path(path_type=Path),
        help="Event store that begins with the run's events.  [default: the store of the run or of "
        "its last update]",
    )
    static = click.option(
        "--static", type=click.Path(path_type=Path), help="Static memory file, if it has moved."
    )
    return events(static(command))


def print_table(columns: dict[str, Any], file: Path | None) -> None:
    """Write a table to ``file``, or as CSV to standard output."""
    if file is not None:
        write_table_file(file, columns)
        print_done(f"{file}: {len(next(iter(columns.values()))):,} rows")
        return
    table = io.BytesIO()
    write_table(table, columns, "csv")
    text = table.getvalue().decode("utf-8")
    print_answer(printable(text) if sys.stdout.isatty() else text, nl=False)
