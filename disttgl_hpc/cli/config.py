"""``disttgl config``: settings as a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli import print_answer
from disttgl_hpc.cli.options import config_options, given_settings
from disttgl_hpc.config import TrainConfig, toml_text, train_config
from disttgl_hpc.training.run_directory import RunDirectory, saved_config

_EXAMPLES = """\b
Examples:
  disttgl config --defaults > settings.toml       # every setting with its description and default
  disttgl config --config settings.toml --set epochs=5
  disttgl config runs/flights > flights.toml      # the settings of that run
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--defaults", is_flag=True, help="Print all defaults with their descriptions.")
@config_options
def config(run: Path | None, defaults: bool, **options: Any) -> None:
    """Print settings as a TOML file, for --config.

    Prints the settings of RUN, or the defaults, changed by --config, --set and options. All values are
    checked.
    """
    given = given_settings(options)
    if defaults and (run is not None or given):
        raise click.UsageError("--defaults cannot be combined with RUN or other settings: omit one of them")
    base = TrainConfig() if run is None else saved_config(RunDirectory(run).read_config())
    settings = train_config(base.as_dict(), given)
    if MPI.COMM_WORLD.rank == 0:
        print_answer(toml_text(settings, explained=defaults), nl=False)
