"""First meetings against a walk over all events."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import streams

from disttgl_hpc.sampling.negatives import FirstMeetings


def first_meetings(stream, node):
    """(partner, event) of each node that ``node`` meets, in the order of their first event."""
    first = {}
    for event, ends in enumerate(zip(stream.src.tolist(), stream.dst.tolist(), strict=True)):
        if node in ends:
            first.setdefault(ends[1] if ends[0] == node else ends[0], event)
    return list(first.items())


@given(streams())
@settings(max_examples=50, deadline=None)
def test_each_partner_stands_once_with_the_first_event(stream):
    meetings = FirstMeetings.of(stream.tcsr)
    for node in range(stream.num_nodes):
        own = slice(meetings.indptr[node], meetings.indptr[node + 1])
        found = zip(meetings.partners[own].tolist(), meetings.event_ids[own].tolist(), strict=True)
        assert list(found) == first_meetings(stream, node)
    assert meetings.partners.dtype == stream.tcsr.neighbors.dtype


@given(streams(), st.data())
@settings(max_examples=50, deadline=None)
def test_a_range_of_events_is_a_range_of_partners(stream, data):
    meetings, event = FirstMeetings.of(stream.tcsr), st.integers(0, stream.num_events)
    first, bound = sorted((data.draw(event), data.draw(event)))
    nodes = np.arange(stream.num_nodes)
    low, high = meetings.between(nodes, first, np.full(stream.num_nodes, bound))
    for node in nodes:
        expected = [partner for partner, at in first_meetings(stream, node) if first <= at < bound]
        assert meetings.partners[low[node] : high[node]].tolist() == expected
