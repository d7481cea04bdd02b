"""``disttgl bench``: measurements of this program on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.benchmarks.scaling_bench import ScalingPlan, measure_scaling
from disttgl_hpc.benchmarks.train_bench import TrainingPlan, measure_loader, measure_training
from disttgl_hpc.cli.options import config_options, given_settings, write_json
from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.grid.mpi_probe import mpi_library
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.report.measurement_tables import loader_table, scaling_table, training_table
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.run_events import with_static_memory

_WITHOUT_EFFECT = (
    "epochs",
    "grid",
    "task",
    "class_history",
    "class_features",
    "class_balance",
    "evaluation_batch",
    "evaluation_negatives",
    "evaluation_strategy",
    "evaluation_seed",
    "evaluation_events",
    "trace_steps",
    "trace_after",
)
_AT_LEAST_ONE = click.IntRange(min=1)
_SCALING_EXAMPLE = (
    "Example:  mpiexec -n 3 disttgl bench scaling flights.events.h5 --grids 1x1x1,1x1x2 --json scaling.json"
)
_LOADER_EXAMPLE = (
    "Example:  disttgl bench loader flights.events.h5 --negative-sets 8 "
    "--batches flights.b600.n10.s8.batches.h5"
)
_TRAIN_EXAMPLE = """\b
Example:
  disttgl generate --like wikipedia reference.events.h5
  disttgl bench train reference.events.h5 --against pyg --json train.json
"""


def _measuring(command: Callable[..., Any], *, steps: int, warmup: int, rounds: int) -> Callable[..., Any]:
    """Give a command what all measurements take: how much to measure, a file for the figures, settings."""
    options = (
        click.option("--steps", type=_AT_LEAST_ONE, default=steps, help="Steps to measure in each run."),
        click.option(
            "--warmup",
            type=click.IntRange(min=0),
            default=warmup,
            help="Steps before them that do not count.",
        ),
        click.option(
            "--rounds", type=_AT_LEAST_ONE, default=rounds, help="Runs of each kind, taken in turns."
        ),
        click.option(
            "--json",
            "json_file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File for all figures.",
        ),
    )
    command = config_options(command, but=_WITHOUT_EFFECT)
    for option in reversed(options):
        command = option(command)
    return command


_first_step = click.option(
    "--first-step",
    type=click.IntRange(min=0),
    default=0,
    help="Where in the stream to begin, in batches; the node memory is empty there.",
)


@click.group()
def bench() -> None:
    """Measure how fast training is on this machine."""


@bench.command(epilog=_SCALING_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--grids", required=True, help="IxJxK,IxJxK,…: what to compare; speed-up is over the first of them."
)
@partial(_measuring, steps=200, warmup=20, rounds=3)
def scaling(events: Path, grids: str, json_file: Path | None, **options: Any) -> None:
    """Train on EVENTS with several grids in turns; print speed, CPU time, waiting and traffic of each.

    Start as many ranks as the largest grid needs: its trainers and a daemon for each node. Smaller grids take
    their ranks evenly from the nodes, and the others sleep. Nothing is evaluated and no run is kept.
    """
    config, measured = _taken_apart(json_file, options)
    shapes = tuple(GridShape.parse(text) for text in grids.split(","))
    plan = ScalingPlan(grids=shapes, **measured)
    record = measure_scaling(_opened(events, config).stream, config, plan, MPI.COMM_WORLD)
    if record is not None:
        _tell(record, json_file, scaling_table)


@bench.command(epilog=_LOADER_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option("--batches", type=click.Path(path_type=Path), help="A batch store to compare with sampling.")
@_first_step
@partial(_measuring, steps=100, warmup=10, rounds=5)
def loader(events: Path, batches: Path | None, json_file: Path | None, **options: Any) -> None:
    """Train on EVENTS with sampled and with stored batches, with and without --prefetch, in turns.

    Prints what a trainer waits for before it can compute, in microseconds an event and as a share of its step.
    """
    config, measured = _taken_apart(json_file, options)
    plan = TrainingPlan(**measured)
    record = measure_loader(_opened(events, config), config, plan, MPI.COMM_WORLD, batches)
    _tell(record, json_file, loader_table)


@bench.command(epilog=_TRAIN_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Choice(["pyg"]),
    help="Another program to take turns with: PyTorch Geometric's TGN.",
)
@_first_step
@partial(_measuring, steps=30, warmup=20, rounds=5)
def train(events: Path, against: str | None, json_file: Path | None, **options: Any) -> None:
    """Train on EVENTS in one process; print CPU time an event by phase, its floor and peak memory.

    The floor is the counted arithmetic at the rate of this machine's large products, and the counted bytes at
    that of its copies, both measured in each round.
    """
    config, measured = _taken_apart(json_file, options)
    plan, stream = TrainingPlan(**measured), _opened(events, config).stream
    record = measure_training(stream, config, plan, MPI.COMM_WORLD, against_pyg=against == "pyg")
    _tell(record, json_file, training_table)


def _taken_apart(json_file: Path | None, options: dict[str, Any]) -> tuple[TrainConfig, dict[str, Any]]:
    """Options of a measurement as settings of training and numbers of steps, warm-up steps and rounds."""
    if json_file and not json_file.parent.is_dir():
        raise click.BadParameter(f"{json_file}: no such folder: make it first", param_hint="--json")
    names: tuple[str, ...] = ("steps", "warmup", "rounds", "first_step")
    measured = {name: options.pop(name) for name in names if name in options}
    return train_config(given_settings(options)), measured


def _opened(events: Path, config: TrainConfig) -> EventStore:
    """The events to train on, with the static memory that the settings name."""
    return with_static_memory(EventStore.open(events, check=True), config)


def _tell(
    record: dict[str, Any],
    json_file: Path | None,
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Write a record to its file, with the MPI library that ran it, and print its table."""
    record["machine"]["versions"]["mpi"] = mpi_library()
    write_json(record, json_file)
    click.echo(table(record))
