"""Options that several commands have: settings of training, files for figures.

Options of the commands that ask a trained run, and how they answer.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import click

from disttgl_hpc.config import TrainConfig, read_toml, setting_of
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.inference.answers import TABLE_KINDS, check_kind, write_table, write_table_file
from disttgl_hpc.planning.plots import check_plot


def config_options(
    command: Callable[..., Any], *, but: Container[str] = (), notes: Mapping[str, str] | None = None
) -> Callable[..., Any]:
    """Give a command --config, --set and one option for each setting not in ``but``: see :func:`given_settings`.

    notes: what stands behind a setting's default, such as when it is another one.
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
        help="A setting by its name in the TOML file; may be given several times.",
    )
    return file(several(command))


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """The settings that a command was given: options win over --set, which wins over the TOML file.

    options: by name, None where an option was not given, and config_file and set_texts. Raises ConfigError.
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
    """A default as the help text shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}" or "none"


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --plot and --json, both checked before it begins."""
    plot = click.option(
        "--plot",
        "plot_file",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_checked(check_plot),
        help="File for a figure: .svg, .png or .pdf.",
    )
    as_json = click.option(
        "--json",
        "json_file",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_checked(_check_folder),
        help="File for all figures.",
    )
    return plot(as_json(command))


_Callback = Callable[[click.Context, click.Parameter, Path | None], Path | None]


def _checked(check: Callable[[Path], None]) -> _Callback:
    """Callback of an option that has a file checked, if one is given."""

    def callback(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
        if file is not None:
            check(file)
        return file

    return callback


def _check_folder(file: Path) -> None:
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: no such folder: make it first")


def write_json(record: dict[str, Any], file: Path | None) -> None:
    """Write a record to ``file``, if there is one."""
    if file is not None:
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path, command: str) -> dict[str, Any]:
    """What ``command`` wrote to its --json FILE. Raises ConfigError."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as what {command} --json writes: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{file}: not what {command} --json writes: no JSON object")
    return record


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
