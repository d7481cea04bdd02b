"""What ``disttgl prepare`` tells of input that can be prepared, but not be learned from as it is meant to."""

from __future__ import annotations

import numpy as np

from disttgl_hpc.ingest.log_features import known_names
from disttgl_hpc.ingest.node_features import NodeTable
from disttgl_hpc.ingest.settings import PrepareSettings
from disttgl_hpc.ingest.spill import Spill
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
_LARGEST_USEFUL, _SAMPLED_ROWS = 100, 4096


def warn_of_two_kinds(spill: Spill, num_nodes: int, chunk_events: int) -> None:
    """Tell when nodes look like two kinds though one id space was asked for: it decides the negatives."""
    roles = np.zeros((2, num_nodes), np.bool_)
    for start in range(0, len(spill.src), chunk_events):
        for role, column in enumerate((spill.src, spill.dst)):
            roles[role, column[start : start + chunk_events]] = True
    if not roles.all(axis=0).any():
        log.warning(
            "no node is both source and destination: if these are two kinds, such as users and items, prepare "
            "again with --bipartite; it decides which negatives are drawn"
        )


def warn_of_large_features(spill: Spill, settings: PrepareSettings) -> None:
    """Tell of feature columns in which a network would drown: gates are full from some ten on."""
    columns = np.flatnonzero(spill.largest_features > _LARGEST_USEFUL)
    if not len(columns):
        return
    given = settings.columns.features if settings.columns is not None else ()
    names = known_names(given, len(spill.largest_features))
    told = [names[column] if names else str(column) for column in columns]
    log.warning(
        "edge features should be of the order of 1, column %s reaches %.3g%s: prepare again with "
        "--log-features %s, or scale them yourself",
        told[0],
        spill.largest_features[columns[0]],
        f" ({len(told)} such columns)" if len(told) > 1 else "",
        "+".join(told) if len(told) < len(spill.largest_features) else "all",
    )


def warn_of_large_node_features(table: NodeTable) -> None:
    """The same of nodes, by some thousand of their rows."""
    sample = np.abs(table.rows[:: -(-len(table.rows) // _SAMPLED_ROWS)].astype(np.float64)).max(axis=0)
    column = int(np.argmax(sample))
    if sample[column] > _LARGEST_USEFUL:
        log.warning(
            "%s: node features should be of the order of 1, column %d reaches %.3g: scale them (logarithms, or "
            "mean 0 and deviation 1)",
            table.place,
            column,
            sample[column],
        )
