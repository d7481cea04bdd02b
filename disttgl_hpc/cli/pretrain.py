"""``disttgl pretrain``: learns static node memory from the training events."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

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
    """A way to learn beforehand; the one that is none is told where it belongs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """One of the choices."""
        if value == CO_TRAINED:
            self.fail(
                "is learned along with the model: disttgl train EVENTS.h5 --static co-trained", param, ctx
            )
        return super().convert(value, param, ctx)


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT.static.h5")
@click.option("--kind", type=_Kind(METHODS), required=True, help="How to learn.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Share of the training events to learn from; the others choose the epoch.",
)
@click.option("--force", is_flag=True, help="Replace a static memory that is there already.")
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
    """Learn a row of static memory for each node of EVENTS, for `disttgl train --static OUT.static.h5`.

    Only events of the training split are read. Nodes without events among those learned from get zeros.

    embedding: a table in place of the node memory, learned with the model of `disttgl train` and its options; under
    mpiexec a grid trains as it does there. static-gnn: embeddings of the graph of who met whom, by LightGCN; every
    rank trains. It takes --epochs, --lr, --local-batch, --static-decay, --dim-memory, --seed, --threads,
    --timeout-s and those of evaluation but its batch; others are refused.

    Both predict links and draw their negatives, whatever task and given negatives a --config names. From such a
    file a kind takes what it uses; what is a default of training there leaves the defaults of static-gnn alone.

    An interrupted embedding goes on when the same command is given again.
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
            click.echo("Stopped after a checkpoint. Go on with the same command.", err=True)
        raise click.exceptions.Exit(EXIT_STATUS)
    if MPI.COMM_WORLD.rank == 0:
        known = int(learned.rows.any(axis=1).sum())
        click.echo(
            f"{output}: {known:,} of {len(learned.rows):,} nodes are known, validation MRR "
            f"{learned.report['best_mrr']:.4f} (on held-out training events)"
        )
