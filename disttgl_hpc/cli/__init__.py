"""The command line. Under mpiexec every rank runs the same command; rank 0 speaks for all of them."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback

import click
from mpi4py import MPI

from disttgl_hpc import __version__, log
from disttgl_hpc.errors import ConfigError, DisttglError, GridError

_COMMANDS = ("prepare", "inspect", "train", "evaluate")
_USAGE, _FAILED, _INTERRUPTED = 2, 1, 130


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for: inspecting a file should not wait for torch."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"disttgl_hpc.cli.{name}"), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Log every rank and every step.")
def disttgl(verbose: bool) -> None:
    """Train temporal graph neural networks on event streams, from a laptop to a cluster."""
    log.configure(MPI.COMM_WORLD.rank, verbose=verbose)


def main() -> None:
    """Run a command; on an error say it once, readably, and end every rank of the job.

    Errors that all ranks find alike (usage, settings, a grid that does not fit) are told by rank 0 and each rank
    leaves by itself. Any other error may be one rank's alone, so that rank tells it and ends the whole job.
    """
    world = MPI.COMM_WORLD
    try:
        disttgl.main(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        sys.exit(_INTERRUPTED)
    except (click.ClickException, ConfigError, GridError) as error:
        if world.rank == 0:
            _tell_usage(error)
        sys.exit(_USAGE)
    except BaseException as error:
        _tell_failure(error)
        if world.size > 1:
            world.Abort(_FAILED)
        sys.exit(_INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED)


def _tell_usage(error: Exception) -> None:
    """Print an error that every rank has."""
    if isinstance(error, click.ClickException):
        error.show()
    else:
        click.echo(f"Error: {error}", err=True)


def _tell_failure(error: BaseException) -> None:
    """Print one rank's error: a line if it explains itself, else with its traceback."""
    world = MPI.COMM_WORLD
    where = f"rank {world.rank} of {world.size} ({MPI.Get_processor_name()}): " if world.size > 1 else ""
    if isinstance(error, KeyboardInterrupt):
        click.echo(f"{where}interrupted", err=True)
    elif isinstance(error, DisttglError):
        click.echo(f"Error: {where}{error}", err=True)
    else:
        click.echo(f"Error: {where}unexpected {type(error).__name__}", err=True)
        traceback.print_exception(error)
    sys.stderr.flush()
    logging.shutdown()
