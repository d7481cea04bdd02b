"""Features of pairs against a walk over all events."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.sampling.neighbors import event_bounds
from disttgl_hpc.sampling.pair_features import (
    COMMON_WINDOW,
    DIM_PAIR,
    MEETINGS_WINDOW,
    PAIR_FEATURES,
    pair_features,
)


def past_of(stream, node, bound):
    """(event, other node) of the events of ``node`` below ``bound``, oldest first."""
    ends = zip(stream.src[:bound].tolist(), stream.dst[:bound].tolist(), strict=True)
    return [
        (event, dst if src == node else src) for event, (src, dst) in enumerate(ends) if node in (src, dst)
    ]


def features_of(stream, source, candidate, bound):
    """The features, one by one."""
    ours, theirs = past_of(stream, source, bound), past_of(stream, candidate, bound)
    searched, other = (ours, candidate) if len(ours) <= len(theirs) else (theirs, source)
    met = [event for event, node in searched[-MEETINGS_WINDOW:] if node == other]
    counts = [0] * 4
    if met:
        since = [sum(event >= met[-1] for event, _ in past) for past in (ours, theirs)]
        counts = [bound - met[-1], *since, len(met)]
    our_friends, their_friends = ({node for _, node in past[-COMMON_WINDOW:]} for past in (ours, theirs))
    counts += [sum(node in our_friends for _, node in theirs[-COMMON_WINDOW:])]
    counts += [sum(node in their_friends for _, node in ours[-COMMON_WINDOW:])]
    for past in (theirs, ours):
        counts += [len(past)]
        counts += [bound - past[-age][0] if len(past) >= age else bound for age in (1, 4, 16, 64)]
    return [float(bool(met)), *np.log1p(counts) / 8]


@settings(max_examples=50, deadline=None)
@given(streams(), st.data())
def test_features_are_those_of_a_walk_over_all_events(stream, data):
    num_rows = data.draw(st.integers(0, 4))
    node = st.integers(0, stream.num_nodes - 1)
    rows = st.lists(node, min_size=num_rows, max_size=num_rows)
    sources, candidates = np.array(data.draw(rows), np.int64), np.array([data.draw(rows), data.draw(rows)]).T
    bounds = np.array(
        data.draw(st.lists(st.integers(0, stream.num_events), min_size=num_rows, max_size=num_rows))
    )
    found = pair_features(stream.tcsr, sources, candidates, bounds)
    assert found.shape == (num_rows, 2, DIM_PAIR)
    for row in range(num_rows):
        for column, candidate in enumerate(candidates[row]):
            expected = features_of(stream, sources[row], candidate, bounds[row])
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-5)


def test_long_pasts_are_searched_as_far_as_the_windows_reach():
    """A busy stream of few nodes: all windows and ages; either node's past may be the shorter one."""
    ends = (4 * np.random.default_rng(0).random((2, 3_000)) ** 3).astype(int)
    ends[1, -1_500:][ends[0, -1_500:] == 3] = (
        0  # 3 meets 1 and 2 no more as a source, seldom as a destination
    )
    stream, nodes = make_stream(*ends, np.arange(3_000), 4), np.arange(4)
    found = pair_features(stream.tcsr, nodes, np.tile(nodes, (4, 1)), np.full(4, 3_000))
    expected = [[features_of(stream, one, other, 3_000) for other in nodes] for one in nodes]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pitfall_11_the_current_event_and_those_of_its_time_do_not_count():
    """Three meetings of 0 and 1, the last two at one time: for both of these only the first has happened."""
    stream = make_stream([0, 0, 1], [1, 1, 0], [10, 20, 20], 2)
    bounds = event_bounds(stream.time, 0, 3)
    found = pair_features(stream.tcsr, stream.src, stream.dst[:, None], bounds)
    met, count = (found[:, 0, PAIR_FEATURES.index(name)] for name in ("have met", "meetings"))
    assert met.tolist() == [0, 1, 1]
    np.testing.assert_allclose(count, np.log1p([0, 1, 1]) / 8, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(streams(), st.data())
def test_later_events_change_nothing(stream, data):
    """The features before a bound are those of the stream that ends there."""
    bound = data.draw(st.integers(1, stream.num_events))
    short = make_stream(stream.src[:bound], stream.dst[:bound], stream.time[:bound], stream.num_nodes)
    nodes = np.arange(stream.num_nodes)
    asked = nodes, np.tile(nodes, (len(nodes), 1)), np.full(len(nodes), bound)
    assert (pair_features(stream.tcsr, *asked) == pair_features(short.tcsr, *asked)).all()
