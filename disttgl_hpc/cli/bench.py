"""``disttgl bench``: measures the speed of training on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.benchmarks.scaling_bench import ScalingPlan, measure_scaling
from disttgl_hpc.benchmarks.train_bench import TrainingPlan, measure_loader, measure_training
from disttgl_hpc.cli import print_answer
from disttgl_hpc.cli.options import config_options, given_settings, write_json
from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.grid.mpi_probe import mpi_library
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.report.measurement_tables import loader_table, scaling_table, training_table
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import with_static_memory

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
    """Decorator: adds the options of all measurements (steps, warm-up, rounds, --json) and the settings."""
    options = (
        click.option("--steps", type=_AT_LEAST_ONE, default=steps, help="Measured steps per run."),
        click.option(
            "--warmup",
            type=click.IntRange(min=0),
            default=warmup,
            help="Steps before the measurement.",
        ),
        click.option(
            "--rounds", type=_AT_LEAST_ONE, default=rounds, help="Runs of each variant, in alternation."
        ),
        click.option(
            "--json",
            "json_file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="JSON file for all results.",
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
    help="First batch of the stream to train on, with empty node memory.",
)


@click.group()
def bench() -> None:
    """Measure the speed of training on this machine."""


@bench.command(epilog=_SCALING_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--grids", required=True, help="IxJxK,IxJxK,…: grids to compare; speed-up is relative to the first."
)
@partial(_measuring, steps=200, warmup=20, rounds=3)
def scaling(events: Path, grids: str, json_file: Path | None, **options: Any) -> None:
    """Train on EVENTS with several grids in alternation; print speed, CPU time, waiting and traffic of each.

    Start as many ranks as the largest grid needs: its trainers and one daemon per node. Smaller grids use
    ranks evenly from the nodes while the others sleep. Nothing is evaluated or stored.
    """
    config, measured = _settings_and_steps(json_file, options)
    shapes = tuple(GridShape.parse(text) for text in grids.split(","))
    plan = ScalingPlan(grids=shapes, **measured)
    record = measure_scaling(_opened(events, config).stream, config, plan, MPI.COMM_WORLD)
    if record is not None:
        _print(record, json_file, scaling_table)


@bench.command(epilog=_LOADER_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option("--batches", type=click.Path(path_type=Path), help="Batch store to compare with sampling.")
@_first_step
@partial(_measuring, steps=100, warmup=10, rounds=5)
def loader(events: Path, batches: Path | None, json_file: Path | None, **options: Any) -> None:
    """Train on EVENTS with sampled and stored batches, with and without --prefetch, in alternation.

    Prints how long a trainer waits for its batches, in microseconds per event and as a share of the step.
    """
    config, measured = _settings_and_steps(json_file, options)
    plan = TrainingPlan(**measured)
    record = measure_loader(_opened(events, config), config, plan, MPI.COMM_WORLD, batches)
    _print(record, json_file, loader_table)


@bench.command(epilog=_TRAIN_EXAMPLE)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Choice(["pyg"]),
    help="Compare with another program in alternation: PyTorch Geometric's TGN.",
)
@_first_step
@partial(_measuring, steps=30, warmup=20, rounds=5)
def train(events: Path, against: str | None, json_file: Path | None, **options: Any) -> None:
    """Train on EVENTS in one process; print CPU time per event by phase, its lower bound and peak memory.

    The lower bound is the counted arithmetic at the rate of large matrix products plus the counted bytes at
    the rate of copies, both measured on this machine in each round.
    """
    config, measured = _settings_and_steps(json_file, options)
    plan, stream = TrainingPlan(**measured), _opened(events, config).stream
    record = measure_training(stream, config, plan, MPI.COMM_WORLD, against_pyg=against == "pyg")
    _print(record, json_file, training_table)


def _settings_and_steps(
    json_file: Path | None, options: dict[str, Any]
) -> tuple[TrainConfig, dict[str, Any]]:
    """Options of a measurement as training settings and the numbers of steps, warm-up steps and rounds."""
    if json_file and not json_file.parent.is_dir():
        raise click.BadParameter(
            f"{json_file}: the folder does not exist: create it first", param_hint="--json"
        )
    names: tuple[str, ...] = ("steps", "warmup", "rounds", "first_step")
    measured = {name: options.pop(name) for name in names if name in options}
    return train_config(given_settings(options)), measured


def _opened(events: Path, config: TrainConfig) -> EventStore:
    """The event store with the static memory of the settings."""
    return with_static_memory(EventStore.open(events, check=True), config)


def _print(
    record: dict[str, Any],
    json_file: Path | None,
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Write a record with the name of the MPI library to its file, and print its table."""
    record["machine"]["versions"]["mpi"] = mpi_library()
    write_json(record, json_file)
    print_answer(table(record))
