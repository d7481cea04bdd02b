"""Message flow graphs and the last event of each node, against dictionaries."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.core.batch import NodeIndex, last_events
from disttgl_hpc.core.sampler import Neighborhood

ids = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(ids)
def test_distinct_and_rows_are_unique_and_its_inverse(values):
    index = NodeIndex(10)
    nodes = index.distinct(np.array(values))
    assert list(nodes) == sorted(set(values))
    assert list(nodes[index.rows(nodes, np.array(values))]) == values


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_mfg_names_the_same_nodes_as_the_neighborhood(data):
    num_roots, num_slots = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    node = st.integers(0, 9)
    roots = np.array(data.draw(st.lists(node, min_size=num_roots, max_size=num_roots)))
    size = num_roots * num_slots
    neighbors = np.array(data.draw(st.lists(node, min_size=size, max_size=size))).reshape(
        num_roots, num_slots
    )
    counts = np.array(data.draw(st.lists(st.integers(0, num_slots), min_size=num_roots, max_size=num_roots)))
    hood = Neighborhood(roots, neighbors, neighbors * 0, neighbors.astype(np.float32), counts)
    mfg = NodeIndex(10).mfg(hood)
    valid = np.arange(num_slots) < counts[:, None]
    assert list(mfg.nodes) == sorted({*roots, *neighbors[valid]})
    assert (mfg.nodes[mfg.roots] == roots).all()
    assert (mfg.nodes[mfg.neighbors][valid] == neighbors[valid]).all()
    assert not mfg.neighbors[~valid].any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=0, max_size=30))
def test_pitfall_14_the_last_event_of_a_node_wins(events):
    partner_of = {}
    for source, destination in events:
        partner_of[source], partner_of[destination] = destination, source
    pairs = np.array(events, int).reshape(-1, 2)
    last = last_events(pairs[:, 0], pairs[:, 1])
    assert len(set(last.nodes.tolist())) == len(last.nodes)
    assert dict(zip(last.nodes.tolist(), last.partners.tolist(), strict=True)) == partner_of


def test_a_self_loop_makes_a_node_its_own_partner():
    last = last_events(np.array([3]), np.array([3]))
    assert (list(last.nodes), list(last.partners)) == ([3], [3])
