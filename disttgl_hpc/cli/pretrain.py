"""``disttgl pretrain``: pre-trains static node memory on the training events."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.cli import print_done
from disttgl_hpc.cli.options import config_options, given_settings
from disttgl_hpc.config import CO_TRAINED, read_toml
from disttgl_hpc.grid.job import EXIT_STATUS, ignore_stop_signals
from disttgl_hpc.static_memory.pretrain import DEFAULTS, FIXED, METHODS, pretrain_config
from disttgl_hpc.static_memory.pretrain import pretrain as run_pretraining
from disttgl_hpc.store.event_store import EventStore

_EXAMPLES = """\b
Examples:
  disttgl pretrain flights.events.h5 flights.static.h5 --kind static-gnn
  mpiexec -n 3 disttgl pretrain flights.events.h5 flights.static.h5 --kind embedding --epochs 5
  disttgl train flights.events.h5 --run runs/flights --static flights.static.h5
"""
_OWN_DEFAULTS = {
    name: f"{method}: {value:g}" for method, own in DEFAULTS.items() for name, value in own.items()
}


class _Kind(click.Choice):  # type: ignore[type-arg]
    """A pre-training method; co-trained is refused with the command that supports it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The method; fails for co-trained and unknown names."""
        if value == CO_TRAINED:
            self.fail(
                "is trained together with the model: disttgl train EVENTS.h5 --static co-trained", param, ctx
            )
        return super().convert(value, param, ctx)


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT.static.h5")
@click.option("--kind", type=_Kind(METHODS), required=True, help="Pre-training method.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Share of the training events to learn from; the others select the epoch.",
)
@click.option("--force", is_flag=True, help="Replace an existing static memory.")
@partial(config_options, but=FIXED["embedding"], notes=_OWN_DEFAULTS)
def pretrain(
    events: Path,
    output: Path,
    kind: str,
    share: float,
    *,
    force: bool,
    **options: Any,
) -> None:
    """Pre-train a row of static memory for each node of EVENTS, for `disttgl train --static OUT.static.h5`.

    Only events of the training split are used. Nodes without events among them get zeros.

    embedding: a table in place of the node memory, trained with the model of `disttgl train` and its options,
    on a grid under mpiexec. static-gnn: embeddings of the graph of all pairs that met, by LightGCN, trained
    by all ranks. It accepts --epochs, --lr, --local-batch, --static-decay, --dim-memory, --seed, --threads,
    --timeout-s and the evaluation options except the batch.

    Both methods predict links with drawn negatives, whatever task and negatives a --config file names.
    Settings of that file which a method does not use are ignored, and settings at training's default do not
    override static-gnn's own.

    If embedding is interrupted, repeat the command to continue.
    """
    file = options["config_file"]
    given = given_settings({**options, "config_file": None})
    config = pretrain_config(kind, given, read_toml(file) if file else {})
    learned = run_pretraining(
        EventStore.open(events), output, kind, config, MPI.COMM_WORLD, share=share, force=force
    )
    if learned is None:
        ignore_stop_signals()
        if MPI.COMM_WORLD.rank == 0:
            print_done("Stopped after a checkpoint. Repeat the command to continue.", err=True)
        raise click.exceptions.Exit(EXIT_STATUS)
    if MPI.COMM_WORLD.rank == 0:
        known = int(learned.rows.any(axis=1).sum())
        print_done(
            f"{output}: {known:,} of {len(learned.rows):,} nodes have a row, validation MRR "
            f"{learned.report['best_mrr']:.4f} (on held-out training events)"
        )
