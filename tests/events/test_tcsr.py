import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import streams

from disttgl_hpc.events.tcsr import TCsr, build_tcsr, index_dtype


def entries_of(stream, node):
    """(other node, event id, time) of each event of a node, event by event."""
    return [
        (dst if src == node else src, event, time)
        for event, (src, dst, time) in enumerate(zip(stream.src, stream.dst, stream.time, strict=True))
        if node in (src, dst)
    ]


@given(streams() | streams(float_times=True))
@settings(max_examples=50, deadline=None)
def test_entries_are_the_events_of_each_node_in_order(stream):
    tcsr = stream.tcsr
    assert tcsr.indptr[0] == 0
    assert tcsr.indptr[-1] == len(tcsr.neighbors) == len(tcsr.event_ids) == len(tcsr.times)
    for node in range(stream.num_nodes):
        own = slice(tcsr.indptr[node], tcsr.indptr[node + 1])
        found = list(zip(tcsr.neighbors[own], tcsr.event_ids[own], tcsr.times[own], strict=True))
        assert found == entries_of(stream, node)


@given(streams(), st.data())
@settings(max_examples=50, deadline=None)
def test_positions_before_counts_the_earlier_events_of_the_node(stream, data):
    queries = data.draw(
        st.lists(
            st.tuples(st.integers(0, stream.num_nodes - 1), st.integers(-1, stream.num_events + 1)),
            max_size=20,
        )
    )
    nodes = np.array([node for node, _ in queries], np.int64)
    bounds = np.array([bound for _, bound in queries], np.int64)
    expected = [
        stream.tcsr.indptr[node] + sum(event < bound for _, event, _ in entries_of(stream, node))
        for node, bound in queries
    ]
    positions = stream.tcsr.positions_before(nodes, bounds)
    assert positions.dtype == np.int64
    assert positions.tolist() == expected


def test_a_self_loop_is_one_entry():
    tcsr = build_tcsr(np.array([1, 0, 1]), np.array([1, 1, 1]), np.array([3, 4, 5]), 2)
    assert tcsr.indptr.tolist() == [0, 1, 4]
    assert tcsr.neighbors.tolist() == [1, 1, 0, 1]
    assert tcsr.event_ids.tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_pitfall_12_times_keep_their_type_and_value(dtype):
    time = np.array([1_200_000_000, 1_200_000_001, 1_200_000_002], dtype)
    tcsr = build_tcsr(np.array([0, 0, 1]), np.array([1, 2, 2]), time, 3)
    assert tcsr.times.dtype == dtype
    assert tcsr.times.tolist() == [1_200_000_000, 1_200_000_001, *time[[0, 2]], *time[[1, 2]]]


def test_pitfall_13_ids_beyond_int32_do_not_wrap():
    assert index_dtype(2**31 - 1) is np.int32
    assert index_dtype(2**31) is np.int64
    ids = np.array([2**31 - 2, 2**31 - 1, 2**31, 2**31 + 7], np.int64)
    tcsr = TCsr(np.array([0, 4]), np.zeros(4, np.int32), ids, np.arange(4))
    bounds = np.array([2**31 - 2, 2**31 - 1, 2**31, 2**31 + 1, 2**31 + 8])
    assert tcsr.positions_before(np.zeros(5, np.int32), bounds).tolist() == [0, 1, 2, 3, 4]


def test_pitfall_13_bounds_beyond_int32_search_int32_ids():
    tcsr = TCsr(np.array([0, 2]), np.zeros(2, np.int32), np.array([5, 2**31 - 1], np.int32), np.arange(2))
    assert tcsr.positions_before(np.array([0, 0]), np.array([2**31 - 1, 2**33])).tolist() == [1, 2]
