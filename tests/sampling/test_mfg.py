"""Message flow graphs and the last event of each node, against dictionaries."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.sampling.mfg import NodeIndex
from disttgl_hpc.sampling.neighbors import Neighborhood

ids = st.lists(st.integers(0, 9), min_size=1, max_size=40)


def numbered(groups):
    """Row of every distinct value of several lists in order of first appearance."""
    rows = {}
    for value in itertools.chain(*groups):
        rows.setdefault(value, len(rows))
    return rows


@settings(max_examples=50, deadline=None)
@given(st.lists(ids, min_size=1, max_size=3))
def test_numbers_follow_the_first_appearance_whatever_was_asked_before(lists):
    index = NodeIndex(10)
    for values in lists:
        expected = numbered([values])
        nodes, rows = index.number(np.array(values))
        assert nodes.tolist() == list(expected)
        assert rows.tolist() == [expected[value] for value in values]


@st.composite
def neighborhoods(draw):
    num_roots, num_slots = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    node = st.integers(0, 9)
    roots = np.array(draw(st.lists(node, min_size=num_roots, max_size=num_roots)))
    size = num_roots * num_slots
    neighbors = np.array(draw(st.lists(node, min_size=size, max_size=size))).reshape(num_roots, num_slots)
    counts = np.array(draw(st.lists(st.integers(0, num_slots), min_size=num_roots, max_size=num_roots)))
    return Neighborhood(roots, neighbors, neighbors * 0, neighbors.astype(np.float32), counts)


@settings(max_examples=50, deadline=None)
@given(neighborhoods(), st.data())
def test_mfg_numbers_leading_roots_their_neighbors_then_the_rest(hood, data):
    num_leading = data.draw(st.integers(0, len(hood.roots)))
    valid = np.arange(hood.neighbors.shape[1]) < hood.counts[:, None]
    leading = np.arange(len(hood.roots)) < num_leading
    expected = numbered(
        ids
        for part in (leading, ~leading)
        for ids in (hood.roots[part].tolist(), hood.neighbors[part][valid[part]].tolist())
    )
    mfg = NodeIndex(10).mfg(hood, num_leading)
    assert mfg.nodes.tolist() == list(expected)
    assert (mfg.nodes[mfg.roots] == hood.roots).all()
    assert (mfg.nodes[mfg.neighbors][valid] == hood.neighbors[valid]).all()
    assert not mfg.neighbors[~valid].any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=0, max_size=30))
def test_pitfall_14_the_last_event_of_a_node_wins(events):
    partner_of = {}
    for source, destination in events:
        partner_of[source], partner_of[destination] = destination, source
    pairs = np.array(events, int).reshape(-1, 2)
    last = NodeIndex(6).last_events(pairs[:, 0], pairs[:, 1])
    assert len(set(last.nodes.tolist())) == len(last.nodes)
    assert dict(zip(last.nodes.tolist(), last.partners.tolist(), strict=True)) == partner_of
    roots = np.concatenate([pairs[:, 0], pairs[:, 1]])
    assert np.array_equal(roots[last.own], last.nodes)
    assert np.array_equal(roots[last.peer], last.partners)
    assert last.nodes.tolist() == sorted(last.nodes)


def test_a_self_loop_makes_a_node_its_own_partner():
    last = NodeIndex(4).last_events(np.array([3]), np.array([3]))
    assert (list(last.nodes), list(last.partners)) == ([3], [3])
