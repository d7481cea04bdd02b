"""``disttgl config``: settings as a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli.options import config_options, given_settings
from disttgl_hpc.config import TrainConfig, toml_text, train_config
from disttgl_hpc.training.run_directory import RunDirectory, saved_config

_EXAMPLES = """\b
Examples:
  disttgl config --defaults > settings.toml       # every setting, what it means and its default
  disttgl config --config settings.toml --set epochs=5
  disttgl config runs/flights > flights.toml      # train again as that run was
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--defaults", is_flag=True, help="Print all defaults, each with what it means.")
@config_options
def config(run: Path | None, defaults: bool, **options: Any) -> None:
    """Print settings as a TOML file, for --config.

    Of RUN, or the defaults, with what --config, --set and options change in them. All of them are checked.
    """
    given = given_settings(options)
    if defaults and (run is not None or given):
        raise click.UsageError("--defaults prints just these: leave RUN and other settings out")
    base = TrainConfig() if run is None else saved_config(RunDirectory(run).read_config())
    settings = train_config(base.as_dict(), given)
    if MPI.COMM_WORLD.rank == 0:
        click.echo(toml_text(settings, explained=defaults), nl=False)
