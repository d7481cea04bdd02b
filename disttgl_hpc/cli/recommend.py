"""``disttgl recommend``: the most likely destinations of nodes by a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from disttgl_hpc.cli import one_process
from disttgl_hpc.cli.options import at_option, events_options, print_table, table_option
from disttgl_hpc.inference.answers import NODES_HELP, read_ids, recommended_columns
from disttgl_hpc.inference.queries import recommend as run_recommend
from disttgl_hpc.inference.trained_run import IDS_REMEDY, open_trained, refuse_unknown
from disttgl_hpc.training.run_directory import RunDirectory

_EXAMPLES = """\b
Examples:
  disttgl recommend runs/flights --nodes N14228,N24211 --top 3
  disttgl recommend runs/shop --nodes users.txt --top 20 --exclude-seen -o tonight.csv
"""


@click.command(epilog=_EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--nodes", help=f"{NODES_HELP}  [default: all sources, or all nodes]")
@click.option("--top", type=click.IntRange(min=1), default=10, help="Destinations per node.")
@click.option("--exclude-seen", is_flag=True, help="Exclude destinations that the node has met.")
@at_option
@table_option
@events_options
@one_process
def recommend(
    run: Path,
    nodes: str | None,
    top: int,
    at: float | None,
    output: Path | None,
    *,
    exclude_seen: bool,
    events: Path | None,
    static: Path | None,
) -> None:
    """Rank the destinations that nodes are most likely to meet next, by the best weights of RUN.

    Candidates are all destinations (in a stream with one node set: all other nodes) with an event before
    --at. The columns are src, rank, dst, logit, probability, as in disttgl score.
    """
    trained = open_trained(RunDirectory(run), events, static)
    ids = trained.ids
    values = read_ids(nodes) if nodes is not None else ids.all[: ids.num_src or None]
    src = ids.sources(values)
    refuse_unknown(values, src, "--nodes", IDS_REMEDY)
    found = run_recommend(trained, src, top, trained.moment(at), exclude_seen=exclude_seen)
    print_table(recommended_columns(trained, found), output)
