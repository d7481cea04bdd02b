"""Recent-neighbour sampling against a walk over all events."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.schedule import Batching
from disttgl_hpc.sampling.mail import pending_mail
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors


@st.composite
def streams(draw):
    num_nodes = draw(st.integers(1, 6))
    num_events = draw(st.integers(1, 30))
    ids = st.lists(st.integers(0, num_nodes - 1), min_size=num_events, max_size=num_events)
    gaps = draw(st.lists(st.integers(0, 2), min_size=num_events, max_size=num_events))
    time = np.cumsum(gaps) + draw(st.sampled_from([0, 1_200_000_000]))
    if draw(st.booleans()):
        time = time.astype(np.float64) + 0.25
    return np.array(draw(ids)), np.array(draw(ids)), time, num_nodes


def walk(src, dst, time, node, now, num_neighbors):
    """(neighbor, event, elapsed) of the node's events strictly before ``now``, most recent first."""
    past = []
    for event in reversed(range(len(src))):
        if time[event] < now and node in (src[event], dst[event]):
            other = dst[event] if src[event] == node else src[event]
            past.append((other, event, np.float32(now - time[event])))
    return past[:num_neighbors]


def sample(src, dst, time, num_nodes, num_neighbors):
    """Neighbours of all sources at their events' times."""
    tcsr = build_tcsr(src, dst, time, num_nodes)
    return recent_neighbors(tcsr, src, time, event_bounds(time, 0, len(src)), num_neighbors)


@settings(max_examples=50, deadline=None)
@given(streams(), st.integers(1, 4))
def test_the_most_recent_past_events_fill_the_slots(stream, num_neighbors):
    src, dst, time, num_nodes = stream
    hood = sample(src, dst, time, num_nodes, num_neighbors)
    for root in range(len(src)):
        expected = walk(src, dst, time, src[root], time[root], num_neighbors)
        got = [
            (hood.neighbors[root, slot], hood.event_ids[root, slot], hood.elapsed[root, slot])
            for slot in range(hood.counts[root])
        ]
        assert got == expected


@settings(max_examples=25, deadline=None)
@given(streams())
def test_padding_can_be_gathered(stream):
    src, dst, time, num_nodes = stream
    hood = sample(src, dst, time, num_nodes, 5)
    padding = np.arange(5) >= hood.counts[:, None]
    assert not hood.neighbors[padding].any()
    assert not hood.event_ids[padding].any()
    assert not hood.elapsed[padding].any()


@settings(max_examples=25, deadline=None)
@given(streams(), st.integers(0, 10))
def test_pitfall_13_wide_indices_give_the_same_as_narrow_ones(stream, first):
    """Indices are int32 on disk until they no longer fit: both types are sampled, and searched for mail."""
    src, dst, time, num_nodes = stream
    narrow = build_tcsr(src, dst, time, num_nodes)
    wide = replace(
        narrow, neighbors=narrow.neighbors.astype(np.int64), event_ids=narrow.event_ids.astype(np.int64)
    )
    bounds, batching = event_bounds(time, 0, len(src)), Batching(Split(len(src), len(src)), 4, 4)
    results = [
        [
            *vars(recent_neighbors(tcsr, src, time, bounds, 3)).values(),
            *vars(pending_mail(tcsr, np.arange(num_nodes), first, 0, batching)).values(),
        ]
        for tcsr in (narrow, wide)
    ]
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_pitfall_11_current_event_is_no_neighbor():
    src, dst, time = np.zeros(12, int), np.ones(12, int), np.arange(12)
    tcsr = build_tcsr(src, dst, time, 3)
    bounds = event_bounds(time, 11, 12)
    source, destination, negative = (
        recent_neighbors(tcsr, np.array([node]), time[11:], bounds, 10) for node in (0, 1, 2)
    )
    assert 11 not in source.event_ids
    assert list(source.event_ids[0]) == list(range(10, 0, -1))
    assert source.counts == destination.counts == 10
    assert negative.counts == 0


def test_pitfall_11_count_does_not_leak_the_label():
    """A positive root and a negative root with equally long pasts see equally many neighbours."""
    src, dst, time = np.array([0, 0, 0]), np.array([1, 2, 1]), np.array([1, 2, 3])
    tcsr = build_tcsr(src, dst, time, 3)
    hood = recent_neighbors(tcsr, np.array([1, 2]), np.array([3, 3]), np.array([2, 2]), 10)
    assert list(hood.counts) == [1, 1]


def test_pitfall_11_the_oldest_event_can_be_sampled():
    hood = sample(np.array([0, 0]), np.array([1, 2]), np.array([5, 6]), 3, 10)
    assert list(hood.counts) == [0, 1]
    assert hood.event_ids[1, 0] == 0


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_pitfall_12_times_one_second_apart_at_unix_time(dtype):
    time = np.array([1_200_000_000, 1_200_000_001, 1_200_000_002], dtype)
    hood = sample(np.zeros(3, int), np.ones(3, int), time, 2, 10)
    assert list(hood.counts) == [0, 1, 2]
    assert list(hood.elapsed[2, :2]) == [1.0, 2.0]
    assert hood.elapsed.dtype == np.float32


def test_events_at_the_same_time_do_not_see_each_other():
    hood = sample(np.array([0, 0, 0]), np.array([1, 2, 1]), np.array([7, 8, 8]), 3, 10)
    assert list(hood.counts) == [0, 1, 1]


def test_a_self_loop_is_one_neighbor():
    hood = sample(np.array([0, 0]), np.array([0, 1]), np.array([1, 2]), 2, 10)
    assert list(hood.counts) == [0, 1]
    assert hood.neighbors[1, 0] == 0
