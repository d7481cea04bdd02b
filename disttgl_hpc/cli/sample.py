"""``disttgl sample``: samples the graphs of all training batches in advance."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli import print_done
from disttgl_hpc.cli.options import config_options, given_settings
from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.sampling.presample import sample as run_sample
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import stem

_SAMPLED = (
    "local_batch",
    "num_neighbors",
    "negatives_per_event",
    "negative_sets",
    "negative_strategy",
    "seed",
    "timeout_s",
)
_OTHERS = tuple(setting.name for setting in dataclasses.fields(TrainConfig) if setting.name not in _SAMPLED)
_EXAMPLES = """\b
Examples:
  disttgl sample flights.events.h5 --negative-sets 8
  mpiexec -n 4 disttgl sample flights.events.h5 f.batches.h5 --negative-sets 8 --minibatch 2
  disttgl train flights.events.h5 --run runs/flights --negative-sets 8 --batches flights.b600.n10.s8.batches.h5
"""


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path))
@click.argument("output", required=False, type=click.Path(path_type=Path), metavar="[OUT.batches.h5]")
@click.option(
    "--minibatch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="I of the grids IxJxK that will use the store.",
)
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@partial(config_options, but=_OTHERS)
def sample(
    events: Path,
    output: Path | None,
    minibatch: int,
    force: bool,
    **options: Any,
) -> None:
    """Sample all training batches of EVENTS in advance, with --negative-sets fixed negative sets.

    `disttgl train --batches` then reads them instead of sampling; the results are identical, bit for bit.
    Under mpiexec all ranks share the work, and the store does not depend on their number. After an
    interruption, repeat the command to continue. The default output is NAME.bB.nK.sS.batches.h5 beside
    EVENTS, for batches of B events (IxB if --minibatch is I), K neighbours and S negative sets.
    """
    config = train_config(given_settings(options))
    path = output or events.with_name(_default_name(events, config, minibatch))
    store = run_sample(EventStore.open(events), config, minibatch, path, MPI.COMM_WORLD, force=force)
    if store is not None:
        print_done(
            f"{path}: {store.key.num_batches:,} global batches in {minibatch} slices, {config.negative_sets} "
            f"negative sets, {len(store.records):,} bytes, "
            f"{len(store.records) / store.key.train_end:,.0f} per event"
        )


def _default_name(events: Path, config: TrainConfig, minibatch: int) -> str:
    """Default name of a batch store."""
    batch = f"{config.local_batch}" if minibatch == 1 else f"{minibatch}x{config.local_batch}"
    return f"{stem(events)}.b{batch}.n{config.num_neighbors}.s{config.negative_sets}.batches.h5"
