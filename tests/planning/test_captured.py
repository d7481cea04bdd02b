"""Captured events against a walk through the batches one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.statistics import quantiles
from disttgl_hpc.planning.captured import captured_events, captured_share, powers_of_two


def oracle(stream, num_events, batch):
    """Share, cold share and ages, by keeping a memory and the mails of one batch after the other."""
    last_seen, survivors, mails, cold, events, times = {}, 0, 0, 0, [], []
    for begin in range(0, num_events, batch):
        mailed = {}
        for event in range(begin, min(begin + batch, num_events)):
            for node in {int(stream.src[event]), int(stream.dst[event])}:
                mails += 1
                if node in last_seen:
                    events.append(event - last_seen[node])
                    times.append(float(stream.time[event] - stream.time[last_seen[node]]))
                else:
                    cold += 1
                mailed[node] = event
        survivors += len(mailed)
        last_seen |= mailed
    return survivors / mails, cold / mails, np.array(events), np.array(times)


@settings(max_examples=50, deadline=None)
@given(stream=streams(), data=st.data())
def test_shares_and_ages_are_those_of_a_walk_through_the_batches(stream, data):
    num_events = data.draw(st.integers(1, stream.num_events))
    batches = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=4))
    found = captured_events(stream.tcsr, num_events, batches)
    for captured, batch in zip(found, batches, strict=True):
        share, cold, events, times = oracle(stream, num_events, batch)
        assert captured.batch == batch
        assert (captured.share, captured.cold) == pytest.approx((share, cold))
        assert captured.age_events == quantiles(events)
        assert captured.age_time == quantiles(times)


@settings(max_examples=20, deadline=None)
@given(stream=streams(float_times=True))
def test_shares_of_the_extremes(stream):
    found = captured_events(stream.tcsr, stream.num_events, powers_of_two(stream.num_events))
    one, whole = found[0], found[-1]
    assert one.share == 1, "a batch of one event loses nothing, self-loop or not"
    assert (whole.cold, whole.age_events) == (1, {}), "a single batch begins with an empty memory"


def test_a_self_loop_is_one_mail():
    stream = make_stream([0, 1, 0], [0, 2, 1], [1, 2, 3], 3)
    assert captured_share(stream.tcsr, 3, [1, 2, 3]) == pytest.approx([1, 1, 3 / 5])


def test_a_sample_of_the_ages_leaves_the_shares_alone():
    rng = np.random.default_rng(0)
    stream = make_stream(
        rng.integers(0, 30, 4000), rng.integers(30, 60, 4000), np.arange(4000), 60, num_src=30
    )
    every, few = (captured_events(stream.tcsr, 4000, [7, 64], most_ages=most)[1] for most in (10**6, 500))
    assert (few.share, few.cold) == (every.share, every.cold)
    assert few.age_events["median"] == pytest.approx(every.age_events["median"], rel=0.15)
    assert few.age_events != every.age_events
    assert (every.as_dict()["age_stride"], few.as_dict()["age_stride"]) == (1, 16)


def test_batch_sizes():
    assert powers_of_two(1) == [1]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(9) == [1, 2, 4, 8, 9]
    stream = make_stream([0], [1], [1], 2)
    with pytest.raises(ConfigError, match="at least one event"):
        captured_events(stream.tcsr, 1, [1, 0])
