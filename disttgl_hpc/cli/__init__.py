"""The command line. Under mpiexec every rank runs the same command; rank 0 speaks for all of them."""

from __future__ import annotations

import difflib
import faulthandler
import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import click
from mpi4py import MPI

from disttgl_hpc import __version__, log
from disttgl_hpc.errors import (
    EXIT_BY_SIGNAL,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    ConfigError,
    DeadlineError,
    DisttglError,
    GridError,
    InputError,
    PeerError,
    StoreError,
)
from disttgl_hpc.grid.collectives import DEFAULT_TIMEOUT_S, Communicator, allgather, barrier, dup
from disttgl_hpc.grid.job import drop_names_of_segments

_COMMANDS = {
    "prepare": "Make an event store from raw events.",
    "generate": "Generate a synthetic event stream of any size.",
    "inspect": "Describe the contents of a store.",
    "sample": "Sample all training batches in advance.",
    "plan": "Choose local batch and grid for a stream and a cluster.",
    "pretrain": "Learn static node memory from the training events.",
    "config": "Print settings as a TOML file.",
    "train": "Train on events and evaluate the best weights.",
    "classify": "Train node classifiers on a run's embeddings.",
    "evaluate": "Repeat the final evaluation of a run.",
    "embed": "Write node embeddings as of any time.",
    "score": "Score pairs of nodes.",
    "recommend": "Rank destinations for nodes.",
    "append": "Append later events to an event store.",
    "update": "Update a run's node memory with new events.",
    "report": "Write an HTML report about runs.",
    "schedule": "Show the schedule of a grid.",
    "doctor": "Check a machine or allocation before a long job.",
    "bench": "Measure the speed of training on this machine.",
    "simulate": "Predict the scaling of training to thousands of trainers.",
}
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_PEERS_TURN_UP_S = 3.0


class _LazyGroup(click.Group):
    """Imports the module of a command on use, so that listing commands does not import torch."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"disttgl_hpc.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named first in ``args``. Raises UsageError, naming the closest command, if unknown."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Commands: {', '.join(_COMMANDS)}."
            raise click.UsageError(f"{error.message} {hint}", ctx) from None

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Log every rank and every step.")
def disttgl(verbose: bool) -> None:
    """Train temporal graph neural networks on event streams, from a laptop to a cluster."""
    log.configure(MPI.COMM_WORLD.rank, verbose=verbose)


def one_process(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a command that rank 0 executes alone; the other ranks return.

    SIGTERM and SIGHUP end it by an exception, so that its partial files are removed.
    """

    @functools.wraps(command)
    def on_first_rank(*args: Any, **options: Any) -> None:
        if MPI.COMM_WORLD.rank == 0:
            with _ended_by_exception():
                command(*args, **options)

    return on_first_rank


@contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Raise SystemExit at a signal that would end the process; signals that are ignored stay so (nohup)."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(EXIT_BY_SIGNAL + number)

    ending = [number for number in _ENDING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ending:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """Run a command; on an error print it once, readably, and end every rank of the job."""
    try:
        _run()
    finally:
        _lose_outputs()


def _run() -> None:
    """Run a command and exit."""
    faulthandler.enable()  # a file truncated while it is mapped causes a bus error: print where, if it can
    drop_names_of_segments(MPI.COMM_WORLD)  # first, since importing a command takes seconds
    # Of its own: on COMM_WORLD other ranks may be in an operation of the command, which a barrier must not match.
    peers = dup(MPI.COMM_WORLD, DEFAULT_TIMEOUT_S, "the other ranks to start")
    try:
        status = disttgl.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as asked:
        if MPI.COMM_WORLD.rank == 0:
            click.echo(asked.format_message())
        sys.exit(EXIT_USAGE)
    except SystemExit:  # raised by shell completion
        raise
    except click.Abort as aborted:  # click's form of KeyboardInterrupt, and of EOFError
        _tell_failure(aborted.__cause__ or KeyboardInterrupt())
        _end_job(EXIT_FAILED if isinstance(aborted.__cause__, EOFError) else EXIT_INTERRUPTED)
    except (click.ClickException, ConfigError, GridError, InputError, StoreError, PeerError) as error:
        _leave_together(error, peers)
    except BaseException as error:
        _tell_failure(error)
        _end_job(EXIT_FAILED)
    else:
        sys.exit(status)  # set by click.exceptions.Exit


def print_answer(text: str, *, nl: bool = True) -> None:
    """Print what a command was asked for. Raises StoreError if standard output cannot be written."""
    try:
        click.echo(text, nl=nl)
    except BrokenPipeError:  # click exits without a word
        raise
    except OSError as error:
        raise StoreError(f"standard output cannot be written: {error.strerror}") from error


def print_done(text: str, *, err: bool = False) -> None:
    """Print what a command has done, which does not fail if nobody can read it; a log line then says so."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        where = "error" if err else "output"
        log.get_logger(__name__).warning("standard %s cannot be written: %s", where, error.strerror)


def _lose_outputs() -> None:
    """Send to /dev/null what standard output and error do not take.

    Python keeps it and would write it again when it exits, and change the exit status.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if closed
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leave_together(error: Exception, world: Communicator) -> None:
    """Exit on an error of usage or input, which usually all ranks have raised; it is printed once.

    If only some ranks have raised it, one of them prints it and all exit with its status; a PeerError only
    repeats it. If other ranks do not arrive soon, they are still working: the job is aborted.
    """
    status = EXIT_USAGE if isinstance(error, click.ClickException | ConfigError | GridError) else EXIT_FAILED
    try:
        barrier(world, _PEERS_TURN_UP_S, "the other ranks")
    except DeadlineError:
        _tell_failure(error)
        _end_job(status)
    own = None if isinstance(error, PeerError) else (_text(error), status)
    verdicts = allgather(world, own, _PEERS_TURN_UP_S, "the other ranks' errors")
    if own is not None and world.rank == verdicts.index(own):
        _tell_failure(error, alone=len(set(verdicts)) == 1)
    _, status = next(verdict for verdict in verdicts if verdict is not None)
    sys.exit(status)


def _end_job(status: int) -> NoReturn:
    """Exit and abort the other ranks."""
    if MPI.COMM_WORLD.size > 1:
        MPI.COMM_WORLD.Abort(status)
    sys.exit(status)


def _tell_failure(error: BaseException, *, alone: bool = False) -> None:
    """Print an error, with a traceback if unexpected; ``alone``: without the rank, since all ranks raised it."""
    world = MPI.COMM_WORLD
    several = world.size > 1 and not alone
    where = f"rank {world.rank} of {world.size} ({MPI.Get_processor_name()}): " if several else ""
    with suppress(OSError):  # nobody listens
        click.echo(f"Error: {where}{log.printable(_text(error))}", err=True)
        if not isinstance(error, click.ClickException | DisttglError | KeyboardInterrupt | MemoryError):
            click.echo(log.printable("".join(traceback.format_exception(error))), err=True, nl=False)
        sys.stderr.flush()


def _text(error: BaseException) -> str:
    """The message of an error."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()}\n{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, DisttglError):
        return f"{error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return (
            f"not enough memory ({error}): smaller --local-batch, --num-neighbors or widths, or more memory"
        )
    return f"unexpected {type(error).__name__}: {error}"
