import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.events import statistics
from disttgl_hpc.events.statistics import count_distinct_pairs, count_ties, describe, quantiles, sampled_gaps
from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import build_tcsr

events = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40)


def stream_of(rows):
    src, dst, time = (np.array(column) for column in zip(*rows, strict=True))
    time = np.sort(time)
    labels = src % 3
    return EventStream(
        "x", 7, 0, src, dst, time, Split(1, 1), build_tcsr(src, dst, time, 7), edge_labels=labels
    )


@given(rows=events)
@settings(max_examples=50, deadline=None)
def test_description_equals_a_walk_over_the_events(rows):
    stream = stream_of(rows)
    pairs, repeats, last, gaps = set(), 0, {}, []
    for u, v, t in zip(stream.src.tolist(), stream.dst.tolist(), stream.time.tolist(), strict=True):
        repeats += (u, v) in pairs
        pairs.add((u, v))
        for node in {u, v}:
            if node in last:
                gaps.append(t - last[node])
            last[node] = t
    times = stream.time.tolist()
    found = describe(stream)
    assert (found.first_time, found.last_time) == (times[0], times[-1])
    assert found.repeated_events == repeats
    assert found.self_loops == sum(u == v for u, v, _ in rows)
    assert found.tied_events == sum(times.count(time) > 1 for time in times)
    assert found.distinct_times == len(set(times))
    assert found.gaps == quantiles(np.array(gaps))
    labels = stream.edge_labels.tolist()
    assert found.edge_class_counts == {label: labels.count(label) for label in sorted(set(labels))}


@given(rows=events, chunk=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_chunks_do_not_change_the_counts(rows, chunk):
    stream = stream_of(rows)
    whole = describe(stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_CHUNK", chunk)
        assert count_ties(stream.time) == (whole.tied_events, whole.distinct_times)
        assert statistics.count_values(stream.edge_labels) == whole.edge_class_counts
        pairs = count_distinct_pairs(stream.src, stream.dst, 7, chunk)
        assert stream.num_events - pairs == whole.repeated_events


def test_gaps_of_long_streams_are_a_sample():
    src, time = np.zeros(1000, np.int64), np.arange(1000) * 5
    tcsr = build_tcsr(src, src + 1, time, 2)
    assert len(sampled_gaps(tcsr, 100)) <= 100
    assert set(sampled_gaps(tcsr, 100).tolist()) == {5}


def test_quantiles_are_values_that_occur():
    values = np.array([1, 2, 4, 8, 2**60 + 1])
    assert quantiles(values) == {
        "min": 1,
        "25 %": 2,
        "median": 4,
        "75 %": 8,
        "99 %": 2**60 + 1,
        "max": 2**60 + 1,
    }
    assert quantiles(values[:0]) == {}
