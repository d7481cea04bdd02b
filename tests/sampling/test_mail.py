"""Pending mail against a simulation that stores mail and memory times, as TGN does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.schedule import Batching
from disttgl_hpc.sampling.mail import batch_first_of, pending_mail


class StoredTimes:
    """The stateful form: mail and memory times of each node, advanced batch by batch."""

    def __init__(self):
        self.mail = {}  # node → (event, time)
        self.memory_time = {}

    def pending(self, node):
        """(event, mail_time − memory_time) or None."""
        if node not in self.mail:
            return None
        event, time = self.mail[node]
        return event, float(time - self.memory_time.get(node, time))

    def process(self, src, dst, time, first, last):
        """Roots digest their mail, then get the mail of their last event in the batch."""
        roots = {*src[first:last], *dst[first:last]}
        for node in roots:
            if node in self.mail:
                self.memory_time[node] = self.mail[node][1]
        for event in range(first, last):
            for node in {src[event], dst[event]}:
                self.mail[node] = event, time[event]


@st.composite
def cases(draw):
    num_nodes, num_events = draw(st.integers(1, 5)), draw(st.integers(3, 30))
    ids = st.lists(st.integers(0, num_nodes - 1), min_size=num_events, max_size=num_events)
    time = 1_200_000_000 + np.cumsum(
        draw(st.lists(st.integers(0, 3), min_size=num_events, max_size=num_events))
    )
    train_end, validation_end = sorted(draw(st.tuples(*[st.integers(1, num_events)] * 2)))
    batching = Batching(Split(train_end, validation_end), draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    return np.array(draw(ids)), np.array(draw(ids)), time, num_nodes, batching


def batches(batching, num_events):
    """All batches of a sweep and the evaluation behind it, in order."""
    split, size = batching.split, batching.global_batch
    training = [(first, min(first + size, split.train_end)) for first in range(0, split.train_end, size)]
    validation = batching.evaluation_bounds(split.train_end, split.validation_end)
    return training + validation + batching.evaluation_bounds(split.validation_end, num_events)


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_mail_is_what_stored_times_say(case, data):
    src, dst, time, num_nodes, batching = case
    tcsr = build_tcsr(src, dst, time, num_nodes)
    start = data.draw(st.integers(0, batching.num_batches - 1))  # a replica may start mid-stream
    stored, nodes = StoredTimes(), np.arange(num_nodes)
    for first, last in batches(batching, len(src))[start:]:
        mail = pending_mail(tcsr, nodes, first, start * batching.global_batch, batching)
        got = dict(
            zip(
                mail.rows.tolist(),
                zip(mail.event_ids.tolist(), mail.elapsed.tolist(), strict=True),
                strict=True,
            )
        )
        expected = {node: stored.pending(node) for node in range(num_nodes) if stored.pending(node)}
        assert got == expected
        stored.process(src.tolist(), dst.tolist(), time.tolist(), first, last)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_batch_first_of_agrees_with_the_list_of_batches(case):
    src, *_, batching = case
    split = batching.split
    cuts = split.train_end, split.validation_end, batching.global_batch, batching.evaluation_batch
    for first, last in batches(batching, len(src)):
        assert {batch_first_of(event, cuts) for event in range(first, last)} == {first}


def test_pitfall_15_elapsed_is_mail_time_minus_the_mail_before():
    """Node 0 meets at 10, 20 (batch 0), 50 (batch 1): its pending mail of 50 finds memory as of 20."""
    src, dst, time = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1]), np.array([10, 20, 50, 60])
    tcsr = build_tcsr(src, dst, time, 2)
    mail = pending_mail(tcsr, np.array([0]), 3, 0, Batching(Split(4, 4), 2, 2))
    assert (list(mail.event_ids), list(mail.elapsed)) == ([2], [30.0])


def test_a_node_updated_for_the_first_time_has_no_elapsed_time():
    tcsr = build_tcsr(np.array([0, 0]), np.array([1, 1]), np.array([10, 20]), 2)
    mail = pending_mail(tcsr, np.array([0]), 1, 0, Batching(Split(2, 2), 1, 1))
    assert list(mail.elapsed) == [0.0]


@pytest.mark.parametrize(("sweep_first", "rows"), [(0, [0]), (1, []), (2, [])])
def test_events_before_the_sweep_leave_no_mail(sweep_first, rows):
    tcsr = build_tcsr(np.array([0, 1, 1]), np.array([1, 1, 1]), np.array([1, 2, 3]), 2)
    mail = pending_mail(tcsr, np.array([0]), 2, sweep_first, Batching(Split(3, 3), 1, 1))
    assert list(mail.rows) == rows


def test_pitfall_16_mail_depends_on_the_global_batch():
    """The same node before the same event: its memory's time differs with the batch size."""
    src, dst, time = np.zeros(4, int), np.ones(4, int), np.array([10, 20, 50, 90])
    tcsr = build_tcsr(src, dst, time, 2)
    elapsed = [
        pending_mail(tcsr, np.array([0]), 2, 0, Batching(Split(4, 4), size, 1)).elapsed[0] for size in (1, 2)
    ]
    assert elapsed == [10.0, 0.0]
