"""A small event store of random events, for tests of its file."""

import numpy as np

from disttgl_hpc.events.stream import Split
from disttgl_hpc.log import progress
from disttgl_hpc.store.event_writer import Contents, EventPart, write_event_store

NUM_EVENTS, NUM_NODES = 40, 9


def columns():
    """Columns of the small stream."""
    rng = np.random.default_rng(3)
    return {
        "src": rng.integers(0, 5, NUM_EVENTS),
        "dst": rng.integers(5, NUM_NODES, NUM_EVENTS),
        "time": np.sort(rng.integers(0, 30, NUM_EVENTS)) + 2**40,
        "edge_features": rng.random((NUM_EVENTS, 3)).astype(np.float16),
        "edge_labels": rng.integers(0, 2, NUM_EVENTS),
        "node_labels": rng.integers(0, 2, NUM_EVENTS),
    }


def write_small_store(
    path, *, part_events=7, name="small", node_ids=None, edge_scale=None, negatives=False, **changes
):
    """Write the small stream, with ``changes`` of its columns, in parts of ``part_events``; return ``path``."""
    data = columns() | changes
    contents = Contents(
        name=name,
        num_events=NUM_EVENTS,
        num_nodes=NUM_NODES,
        num_src=5,
        split=Split(28, 34),
        node_ids=np.arange(NUM_NODES) * 10 if node_ids is None else node_ids,
        node_features=np.eye(NUM_NODES, 2, dtype=np.float32),
        validation_negatives=np.tile([5, 8, -1], (6, 1)) if negatives else None,
        test_negatives=np.full((6, 1), 7) if negatives else None,
        edge_scale=edge_scale,
        class_names=("a", "ü"),
        source_files=("in.csv",),
        source_sha256=("0" * 64,),
        time_unit="s",
    )
    parts = (
        EventPart(**{field: rows[start : start + part_events] for field, rows in data.items()})
        for start in range(0, NUM_EVENTS, part_events)
    )
    with progress(NUM_EVENTS, "writing", shown=False) as bar:
        write_event_store(path, contents, parts, chunk_events=4, progress=bar)
    return path
