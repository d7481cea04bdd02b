"""Mail that is a mean, against lists of the events of each node."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.events.stream import Split
from disttgl_hpc.grid.schedule import Batching, slice_bounds
from disttgl_hpc.sampling.mail import Groups, MeanMail, graph_with_partners, partners_between, pending_mail
from disttgl_hpc.sampling.mfg import NodeIndex
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors


def events_of(stream, node, first, last):
    """(event, other end) of the events [first, last) of ``node``; a self-loop stands once."""
    ends = [(int(stream.src[event]), int(stream.dst[event])) for event in range(first, last)]
    return [
        (event, dst if src == node else src)
        for event, (src, dst) in enumerate(ends, first)
        if node in (src, dst)
    ]


def listed(groups):
    """The items of each group."""
    return [part.tolist() for part in np.split(groups.items, groups.begins[1:])] if len(groups.begins) else []


@st.composite
def cases(draw):
    """A stream, its batching, and the bounds of one of its batches."""
    stream = draw(streams())
    batching = Batching(stream.split, draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    split, size = stream.split, batching.global_batch
    batches = [(first, min(first + size, split.train_end)) for first in range(0, split.train_end, size)]
    batches += batching.evaluation_bounds(split.train_end, split.validation_end)
    batches += batching.evaluation_bounds(split.validation_end, stream.num_events)
    return stream, batching, batches


@settings(max_examples=50, deadline=None)
@given(cases(), st.data())
def test_mail_has_all_events_of_the_batch_it_is_from(case, data):
    stream, batching, batches = case
    at = data.draw(st.integers(0, len(batches) - 1))
    nodes = np.arange(stream.num_nodes)
    plain = pending_mail(stream.tcsr, nodes, batches[at][0], 0, batching)
    mail = MeanMail.of(plain, stream.tcsr, nodes, batching)
    expected = {}
    for first, last in batches[:at]:
        for node in nodes:
            own = [event for event, _ in events_of(stream, node, first, last)]
            expected |= {node: own} if own else {}
    assert dict(zip(mail.rows.tolist(), listed(mail.events), strict=True)) == expected
    assert [events[-1] for events in listed(mail.events)] == plain.event_ids.tolist()
    assert mail.elapsed is plain.elapsed


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(1, 3), st.data())
def test_every_slice_knows_the_partners_in_the_whole_batch(case, num_slices, data):
    """What slices write does not depend on their number; nodes that only others' events name come last."""
    stream, _, batches = case
    bounds = data.draw(st.sampled_from(batches))
    index, written = NodeIndex(stream.num_nodes), {}
    for minibatch in range(num_slices):
        first, last = slice_bounds(*bounds, num_slices, minibatch)
        roots = np.concatenate([stream.src[first:last], stream.dst[first:last]])
        root_bounds = np.tile(event_bounds(stream.time, first, last), 2)
        mfg = index.mfg(
            recent_neighbors(stream.tcsr, roots, np.tile(stream.time[first:last], 2), root_bounds, 2)
        )
        writes = index.last_events(stream.src[first:last], stream.dst[first:last])
        graph, peers = graph_with_partners(index, mfg, stream.tcsr, writes, bounds)
        assert graph.nodes[: len(mfg.nodes)].tolist() == mfg.nodes.tolist()
        assert len(set(graph.nodes.tolist())) == len(graph.nodes)
        assert len(graph.nodes) - len(mfg.nodes) <= bounds[1] - bounds[0] - (last - first)
        names = [graph.nodes[rows].tolist() for rows in listed(peers)]
        for node, partners in zip(writes.nodes.tolist(), names, strict=True):
            assert written.setdefault(node, partners) == partners
    assert written == {
        node: [other for _, other in events_of(stream, node, *bounds)]
        for node in range(stream.num_nodes)
        if events_of(stream, node, *bounds)
    }


def test_a_self_loop_is_one_mail_with_oneself():
    stream, nodes, batching = (
        make_stream([0, 0], [0, 1], [1, 2], 2),
        np.arange(2),
        Batching(Split(2, 2), 2, 2),
    )
    mail = pending_mail(stream.tcsr, nodes, 2, 0, batching)
    assert listed(MeanMail.of(mail, stream.tcsr, nodes, batching).events) == [[0, 1], [1]]
    assert listed(partners_between(stream.tcsr, nodes, 0, 2)) == [[0, 1], [0]]


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), max_size=5), st.data())
@settings(max_examples=50, deadline=None)
def test_groups_are_averaged_each_by_itself_and_in_parts(lists, data):
    sizes = [len(group) for group in lists]
    items = np.array(list(itertools.chain(*lists)), np.int64)
    groups = Groups(items, np.cumsum([0, *sizes])[:-1])
    for table in (np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), np.eye(5, dtype=np.int8)):
        means = groups.mean(table)
        assert means.dtype == np.float32
        for mean, group in zip(means, lists, strict=True):
            np.testing.assert_allclose(mean, table[group].astype(float).mean(axis=0), atol=1e-6)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(lists))] * 2)))
    assert listed(groups.part(first, last)) == lists[first:last]
