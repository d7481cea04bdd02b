"""Small random streams full of what is hard: equal times, repeated pairs, self-loops, idle nodes."""

import numpy as np
from hypothesis import strategies as st

from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import build_tcsr


def make_stream(src, dst, time, num_nodes, *, num_src=0, split=None):
    """Stream of plain lists or arrays; without a split, 70/15/15."""
    src, dst, time = np.asarray(src, np.int32), np.asarray(dst, np.int32), np.asarray(time)
    split = split or Split(len(src) * 70 // 100, len(src) * 85 // 100)
    return EventStream(
        "random", num_nodes, num_src, src, dst, time, split, build_tcsr(src, dst, time, num_nodes)
    )


@st.composite
def streams(draw, max_events=40, float_times=False):
    """Streams of up to ``max_events`` events over few nodes and few distinct times."""
    num_src, num_others = draw(st.integers(0, 4)), draw(st.integers(4, 9))
    num_nodes = num_src + num_others
    num_events = draw(st.integers(1, max_events))
    sources = st.integers(0, num_src - 1) if num_src else st.integers(0, num_nodes - 1)
    src = draw(st.lists(sources, min_size=num_events, max_size=num_events))
    dst = draw(st.lists(st.integers(num_src, num_nodes - 1), min_size=num_events, max_size=num_events))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 5]), min_size=num_events, max_size=num_events))
    time = np.cumsum(gaps)
    return make_stream(src, dst, time / 4 if float_times else time, num_nodes, num_src=num_src)
