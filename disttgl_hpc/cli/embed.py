"""``disttgl embed``: node embeddings of a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from disttgl_hpc.cli import one_process, print_done
from disttgl_hpc.cli.options import at_option, events_options
from disttgl_hpc.inference.answers import (
    EMBEDDING_KINDS,
    NODES_HELP,
    check_kind,
    node_columns,
    origin_of,
    read_ids,
    write_embeddings_file,
)
from disttgl_hpc.inference.queries import embed as run_embed
from disttgl_hpc.inference.trained_run import open_trained
from disttgl_hpc.training.run_directory import RunDirectory

_EXAMPLES = """\b
Examples:
  disttgl embed runs/flights planes.parquet --of sources
  disttgl embed runs/flights monday.h5 --at 1375056000
  disttgl embed runs/flights two.npy --nodes N14228,JFK
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path), metavar="OUT.h5|.parquet|.npy")
@at_option
@click.option("--nodes", help=f"{NODES_HELP}  [default: all nodes]")
@click.option(
    "--of", type=click.Choice(["sources", "destinations"]), help="Only these nodes of a bipartite stream."
)
@events_options
@one_process
def embed(
    run: Path,
    output: Path,
    at: float | None,
    nodes: str | None,
    of: str | None,
    *,
    events: Path | None,
    static: Path | None,
) -> None:
    """Write node embeddings by the best weights of RUN, as of a given time, with your own ids.

    Memory and neighbours depend on the events strictly before --at and on nothing later; without --at, on all
    events. A .h5 file has the datasets id, embedding and, for bipartite streams, kind; a .parquet file has
    columns of the same names; a .npy file has the matrix, with the ids of its rows in OUT.ids.csv. Existing
    files are replaced.
    """
    check_kind(output, EMBEDDING_KINDS)
    trained = open_trained(RunDirectory(run), events, static)
    moment = trained.moment(at)
    wanted = trained.ids.nodes(None if nodes is None else read_ids(nodes), of)
    embeddings = run_embed(trained, wanted, moment)
    write_embeddings_file(output, node_columns(trained, wanted), embeddings, origin_of(trained, run, moment))
    print_done(
        f"{output}: {len(embeddings):,} nodes × {embeddings.shape[1]}, after {moment.position:,} events, "
        f"time {moment.time}"
    )
