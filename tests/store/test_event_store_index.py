"""The T-CSR built in pieces equals the one built in memory, and no piece grows with the stream."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.store.event_writer import EventColumns, _room, _scatter, count_entries, tcsr_pieces

pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=50)


def joined(src, dst, time, num_nodes, chunk):
    events = EventColumns(src, dst, time, num_nodes, chunk)
    indptr = count_entries(events)
    pieces = list(tcsr_pieces(events, indptr))
    fields = ("neighbors", "event_ids", "times")
    return (
        indptr,
        {field: np.concatenate([getattr(piece, field) for piece in pieces]) for field in fields},
        pieces,
    )


@given(pairs=pairs, chunk=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_equals_the_index_built_in_memory(pairs, chunk):
    src, dst = np.array(pairs, np.int32).T
    time = np.arange(len(src)) // 3 + 0.5
    indptr, fields, _ = joined(src, dst, time, 9, chunk)
    expected = build_tcsr(src, dst, time, 9)
    np.testing.assert_array_equal(indptr, expected.indptr)
    for name, values in fields.items():
        np.testing.assert_array_equal(values, getattr(expected, name))
        assert values.dtype == getattr(expected, name).dtype


def test_pieces_are_bounded_even_for_a_hub():
    src, dst = np.zeros(1000, np.int32), np.arange(1000, dtype=np.int32) % 50 + 1
    _, fields, pieces = joined(src, dst, np.arange(1000), 51, 5)
    assert max(len(piece.times) for piece in pieces) <= 16 * 5
    assert sum(len(piece.times) <= 5 for piece in pieces) >= 200  # the hub's, found slice by slice
    np.testing.assert_array_equal(fields["event_ids"], build_tcsr(src, dst, np.arange(1000), 51).event_ids)


class LongColumn:
    """Claims more events than int32 counts; every slice of it is the same few."""

    def __init__(self, values):
        self.values = np.array(values)
        self.dtype = self.values.dtype

    def __len__(self):
        return 2**31 + 2

    def __getitem__(self, where):
        return self.values


def test_pitfall_13_event_ids_beyond_int32():
    events = EventColumns(LongColumn([0, 1]), LongColumn([1, 2]), LongColumn([5, 6]), 3, 2)
    piece = _room(events, 4)
    assert _scatter(events, slice(2**31, 2**31 + 2), piece, 0, np.array([0, 1, 3])) == 4
    assert piece.event_ids.tolist() == [2**31, 2**31, 2**31 + 1, 2**31 + 1]
    assert piece.neighbors.tolist() == [1, 0, 2, 1]
    assert piece.times.tolist() == [5, 5, 6, 6]
