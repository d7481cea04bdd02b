import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.ingest.spill import stable_time_order

extremes = st.sampled_from([np.iinfo(np.int64).min, -1, 0, 1, 2, np.iinfo(np.int64).max])


def positions(time, chunk):
    pieces = list(stable_time_order(time, chunk))
    everything = np.arange(len(time))
    return np.concatenate([everything[piece] for piece in pieces]), pieces


@given(times=st.lists(st.integers(0, 20) | extremes, min_size=1, max_size=80), chunk=st.integers(1, 90))
@settings(max_examples=50, deadline=None)
def test_equals_stable_argsort_of_integers(times, chunk):
    time = np.array(times, np.int64)
    np.testing.assert_array_equal(positions(time, chunk)[0], np.argsort(time, kind="stable"))


@given(times=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=80))
@settings(max_examples=50, deadline=None)
def test_equals_stable_argsort_of_floats(times):
    time = np.array(times)
    np.testing.assert_array_equal(positions(time, 7)[0], np.argsort(time, kind="stable"))


def test_sorted_times_yield_slices():
    assert positions(np.arange(10), 4)[1] == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_pieces_stay_near_the_chunk_even_with_ties():
    rng = np.random.default_rng(1)
    time = np.concatenate([rng.integers(0, 10**6, 5000), np.full(5000, 77)])
    order, pieces = positions(time, 200)
    np.testing.assert_array_equal(order, np.argsort(time, kind="stable"))
    assert max(len(piece) for piece in pieces) <= 400
