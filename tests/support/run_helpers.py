"""Small event stores, and records of runs, for tests of whole runs."""

import numpy as np

from disttgl_hpc.events.stream import Split
from disttgl_hpc.log import progress
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import Contents, EventPart, write_event_store

SMALL = {
    "epochs": 2,
    "local_batch": 25,
    "dim_memory": 8,
    "dim_time": 6,
    "dim_embedding": 8,
    "num_neighbors": 4,
    "evaluation_batch": 20,
    "evaluation_negatives": 9,
    "time_unit": 1.0,
}
"""Settings of a run of a second.

The time unit is fixed: the one chosen for a stream of four minutes makes phases of millions of radians, where one
rounding of a weight is visible, and comparisons of two implementations fail or pass by the processor's rounding.
"""


def small_options(**changes):
    """SMALL as command-line options."""
    settings = {**SMALL, **changes}
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]


def make_store(
    folder,
    *,
    num_events=220,
    num_nodes=17,
    dim_edge=0,
    seed=0,
    split=None,
    last_event_to=None,
    num_classes=0,
):
    """Store of a random stream of one node set: self-loops, equal times, nodes that appear late.

    num_classes: of its events, half of which have that of their source; sources have a state, too. 0: no labels.
    """
    rng = np.random.default_rng(seed)
    latest = np.linspace(num_nodes // 2, num_nodes, num_events)[:, None]
    ends = (rng.random((num_events, 2)) ** 2 * latest).astype(np.int64)
    if last_event_to is not None:
        ends[num_events * 7 // 10 :, 1] = last_event_to
    features = rng.normal(size=(num_events, dim_edge)).astype(np.float32)
    times = 1_200_000_000 + np.cumsum(rng.integers(0, 3, num_events))
    split = split or Split(num_events * 7 // 10, num_events * 17 // 20)
    labels = {}
    if num_classes:
        classes = (
            np.where(rng.random(num_events) < 0.5, ends[:, 0], rng.integers(0, 99, num_events)) % num_classes
        )
        labels = {"edge_labels": classes, "node_labels": ends[:, 0] % 2 * rng.integers(0, 2, num_events)}
    return write_events(folder, ends, split, times, num_nodes, features if dim_edge else None, **labels)


def write_events(folder, ends, split, times=None, num_nodes=None, edge_features=None, time_unit="", **labels):
    """Store of the events between ``ends`` (E, 2), one a second unless it has ``times``."""
    num_events, num_nodes = len(ends), num_nodes or int(ends.max()) + 1
    part = EventPart(
        src=ends[:, 0],
        dst=ends[:, 1],
        time=np.arange(num_events) if times is None else times,
        edge_features=edge_features,
        **labels,
    )
    contents = Contents(
        name="random",
        num_events=num_events,
        num_nodes=num_nodes,
        num_src=0,
        split=split,
        node_ids=np.arange(num_nodes),
        time_unit=time_unit,
    )
    path = folder / "random.events.h5"
    with progress(num_events, "writing", shown=False) as bar:
        write_event_store(path, contents, [part], chunk_events=1000, progress=bar)
    return EventStore.open(path)


def assert_same_weights(one, other):
    """Equal within 1e-5, but for the keys.

    A root's softmax does not see a shift of all its logits, so the true gradient of that part of the keys is zero;
    Adam turns the rounding errors in its place into steps of a tenth of the learning rate.
    """
    for (name, mine), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        tolerance = 1e-3 if name.startswith("attention.key") else 1e-5
        assert (mine - theirs).abs().max().item() <= tolerance, name
