"""Records of graph parts: what is taken apart is put together the same, whatever its types."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.sampling.graph_records import ALIGNMENT, RecordFormat, join_graph, split_graph
from disttgl_hpc.sampling.mfg import Mfg, NodeIndex
from disttgl_hpc.sampling.neighbors import Neighborhood


def graph(seed, num_roots, num_leading, num_neighbors, num_nodes=30, first_event=0):
    """Graph of random roots and neighbours, without a stream."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, num_neighbors + 1, num_roots)
    valid = np.arange(num_neighbors) < counts[:, None]
    neighbors = np.where(valid, rng.integers(0, num_nodes, valid.shape), 0)
    event_ids = np.where(valid, rng.integers(first_event, first_event + 1_000, valid.shape), 0)
    elapsed = np.where(valid, rng.random(valid.shape), 0).astype(np.float32)
    hood = Neighborhood(rng.integers(0, num_nodes, num_roots), neighbors, event_ids, elapsed, counts)
    return NodeIndex(num_nodes).mfg(hood, num_leading)


def assert_same(one, other):
    for name in Mfg.__dataclass_fields__:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs)


@given(
    st.integers(0, 2**32),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 5),
    st.sampled_from([0, 2**31]),
    st.sampled_from([30, 2**31]),
)
@settings(max_examples=50, deadline=None)
def test_a_graph_survives_its_records(seed, num_leading, num_others, num_neighbors, first_event, num_nodes):
    num_roots = num_leading + num_others
    mfg = graph(seed, num_roots, num_leading, num_neighbors, first_event=first_event)
    layout = RecordFormat.of(
        num_nodes=num_nodes,
        num_events=first_event + 1_000,
        num_roots=num_roots,
        num_neighbors=num_neighbors,
    )
    contents = [layout.pack(record) for record in split_graph(mfg, num_leading)]
    assert all(len(content) % ALIGNMENT == 0 for content in contents)
    numbers = num_leading, num_others
    records = [layout.unpack(*pair) for pair in zip(contents, numbers, strict=True)]
    for record in records:
        for name, dtype in layout.dtypes:
            array = getattr(record, name)
            assert array.dtype == dtype
            assert array.flags.aligned
    assert_same(join_graph(tuple(records), num_neighbors), mfg)


def test_the_positives_record_does_not_depend_on_the_negatives():
    one, other = graph(3, 12, 8, 4), graph(3, 12, 8, 4)
    other.roots[8:] = 0
    other.neighbors[8:] = 0
    layout = RecordFormat.of(num_nodes=30, num_events=1_000, num_roots=12, num_neighbors=4)
    assert np.array_equal(*(layout.pack(split_graph(mfg, 8)[0]) for mfg in (one, other)))


def test_types_are_as_small_as_can_be():
    def dtypes(**changes):
        sizes = {"num_nodes": 10**6, "num_events": 10**6, "num_roots": 1_800, "num_neighbors": 10}
        return {name: str(dtype) for name, dtype in RecordFormat.of(**{**sizes, **changes}).dtypes}

    small = {
        "nodes": "int32",
        "event_ids": "int32",
        "elapsed": "float32",
        "rows": "uint16",
        "counts": "uint8",
    }
    assert dtypes() == small
    assert dtypes(num_roots=6_000) == small | {"rows": "uint32"}
    assert dtypes(num_roots=6_000, num_nodes=1 << 16) == small
    assert dtypes(num_neighbors=255) == small | {"rows": "uint32"}
    assert dtypes(num_neighbors=256)["counts"] == "uint16"
    assert dtypes(num_events=2**31)["event_ids"] == "int64"


def test_bytes_of_another_number_of_roots_are_refused():
    layout = RecordFormat.of(num_nodes=30, num_events=1_000, num_roots=12, num_neighbors=4)
    content = layout.pack(split_graph(graph(3, 12, 8, 4), 8)[0])
    with pytest.raises(ValueError, match="a record of 80 roots has"):
        layout.unpack(content, 80)
