"""Facts about events and baselines: what both make of past classes, against a walk over the events."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_streams import make_stream, streams

from disttgl_hpc.evaluation.heuristics import (
    class_baselines,
    last_label_scores,
    majority_scores,
    share_scores,
)
from disttgl_hpc.events.stream import Targets
from disttgl_hpc.sampling.class_features import (
    WINDOW,
    WINDOWS,
    class_codes,
    class_facts,
    dim_facts,
    encode_classes,
    forerunners,
)
from disttgl_hpc.sampling.neighbors import event_bounds


@st.composite
def labelled(draw, **options):
    """A stream with targets, of one class an event or several."""
    stream = draw(streams(**options))
    rng, num_classes = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(2, 4))
    if draw(st.booleans()):
        values = rng.integers(-1, num_classes, stream.num_events)  # −1: unknown
    else:
        values = rng.integers(0, 2, (stream.num_events, num_classes)).astype(np.uint8)
    targets = Targets(values, num_classes, of_pair=draw(st.booleans()), codes=class_codes(num_classes))
    return stream, targets


def rows_of(targets):
    """Every event's classes as 1 and 0; an unknown one is none of them."""
    if targets.is_multi_label:
        return targets.values
    rows = np.eye(targets.num_classes)[targets.values]
    rows[targets.values < 0] = 0
    return rows


def past_of(stream, event):
    """Events strictly before the time of ``event``, as (event, source, destination)."""
    seen = range(int(np.searchsorted(stream.time, stream.time[event])))
    return [(past, int(stream.src[past]), int(stream.dst[past])) for past in seen]


def forerunners_of(stream, event, counts=None):
    """Last event of the pair, of the source as a source, of the destination as a destination; −1 for none.

    counts: (E,) which events are looked at; all without it.
    """
    source, destination = int(stream.src[event]), int(stream.dst[event])
    past = [row for row in past_of(stream, event) if counts is None or counts[row[0]]]
    return [
        max((e for e, s, d in past if (s, d) == (source, destination)), default=-1),
        max((e for e, s, _ in past if s == source), default=-1),
        max((e for e, _, d in past if d == destination), default=-1),
    ]


@given(labelled())
@settings(max_examples=50, deadline=None)
def test_forerunners_are_those_of_a_walk_over_the_events(problem):
    stream, _ = problem
    first, last = stream.num_events // 3, stream.num_events
    found = forerunners(stream, first, last, event_bounds(stream.time, first, last))
    assert found.tolist() == [forerunners_of(stream, event) for event in range(first, last)]


@pytest.mark.parametrize(("between", "found"), [(WINDOW - 1, 0), (WINDOW, -1)])
def test_forerunners_beyond_the_window_are_forgotten(between, found):
    """Node 0 is a source, then a destination ``between`` times, then a source again."""
    src, dst = np.ones(between + 2, int), np.zeros(between + 2, int)
    src[[0, -1]], dst[0], dst[-1] = 0, 2, 3
    stream = make_stream(src, dst, np.arange(len(src)), 4)
    last = len(src) - 1
    assert forerunners(stream, last, last + 1, np.array([last])).tolist() == [[-1, found, -1]]


@given(labelled())
@settings(max_examples=30, deadline=None)
def test_facts_are_those_of_a_walk_over_the_events(problem):
    stream, targets = problem
    first, last = stream.num_events // 2, stream.num_events
    rows, wanted = rows_of(targets), []
    for event in range(first, last):
        past, ends = past_of(stream, event), (int(stream.src[event]), int(stream.dst[event]))
        facts = [float(ends[0] == ends[1])] if targets.of_pair else []
        for found in forerunners_of(stream, event) if targets.of_pair else forerunners_of(stream, event)[1:2]:
            told = [1.0, np.log1p(len(past) - found) / 8, *rows[found]]
            facts += told if found >= 0 else [0.0] * len(told)
        own = [[e for e, s, d in past if end in (s, d)] for end in ends[: 1 + targets.of_pair]]
        for events in ([e for e, _, _ in past], *own):
            for size in WINDOWS:
                facts += rows[events[-size:]].mean(axis=0).tolist() if events else [0.0] * targets.num_classes
        wanted.append(facts)
    found = class_facts(stream, targets, first, last)
    assert found.shape == (last - first, dim_facts(targets))
    assert class_facts(stream, targets, first, first).shape == (0, dim_facts(targets))
    np.testing.assert_allclose(found, np.array(wanted), atol=1e-6)


@given(labelled(max_events=30))
@settings(max_examples=30, deadline=None)
def test_pitfall_23_facts_and_baselines_see_no_class_of_their_time_or_later(problem):
    stream, targets = problem
    first = stream.num_events // 2
    hidden = int(np.searchsorted(stream.time, stream.time[first]))
    values = targets.values.copy()
    values[hidden:] = (values[hidden:] + 1) % (2 if targets.is_multi_label else targets.num_classes)
    other = replace(targets, values=values)
    asked = first, first + 1
    assert (class_facts(stream, targets, *asked) == class_facts(stream, other, *asked)).all()
    # The majority of training is known to the baselines.
    if targets.is_labelled[: stream.split.train_end].any() and stream.split.train_end <= hidden:
        for scores in (last_label_scores, share_scores):
            one, changed = (np.concatenate([*scores(stream, known, *asked)]) for known in (targets, other))
            assert (one == changed).all()


def test_known_features_are_told_as_they_are_stored_or_scaled():
    stream = make_stream([0, 1, 0], [2, 2, 0], [1, 2, 3], 3)
    known = np.array([[1, 2], [3, 4], [5, 6]], np.int8)
    targets = Targets(np.zeros(3, np.int64), 2, known=known, known_scale=np.array([0.5, 2.0], np.float32))
    assert class_facts(stream, targets, 1, 3).tolist() == [[0, 1.5, 8], [1, 2.5, 12]]
    assert class_facts(stream, replace(targets, of_pair=False, known=None), 1, 3).shape == (2, 0)


def test_few_classes_have_a_column_each_and_many_random_signs():
    assert (class_codes(5) == np.eye(5)).all()
    codes = class_codes(256)
    assert (codes.shape, set(np.unique(codes).tolist())) == ((256, 32), {-1, 1})
    alike = (codes.astype(int) @ codes.T.astype(int) + 32) // 2  # places in which two classes agree
    np.fill_diagonal(alike, 16)
    assert alike.min() >= 4
    assert alike.max() <= 28
    several = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    assert encode_classes(several, class_codes(3)).tolist() == several.tolist()


@given(labelled())
@settings(max_examples=50, deadline=None)
def test_baselines_are_those_of_a_walk_over_the_events(problem):
    stream, targets = problem
    first, last, train_end = stream.num_events // 2, stream.num_events, stream.split.train_end
    is_known = targets.is_labelled
    if not is_known[:train_end].any():
        return
    rows = rows_of(targets) - 0.5 * targets.is_multi_label
    majority = rows[:train_end][is_known[:train_end]].mean(axis=0)
    last_label, share = [], []
    for event in range(first, last):
        pair, source, destination = forerunners_of(stream, event, is_known)
        order = (pair, source, destination) if targets.of_pair else (source,)
        found = next((event for event in order if event >= 0), -1)
        last_label.append(majority if found < 0 else rows[found])
        own = [e for e, s, _ in past_of(stream, event) if s == stream.src[event] and is_known[e]]
        share.append(rows[own].mean(axis=0) if own else majority)
    asked = stream, targets, first, last
    np.testing.assert_allclose(
        np.concatenate([*majority_scores(*asked)]), np.tile(majority, (last - first, 1))
    )
    np.testing.assert_allclose(np.concatenate([*last_label_scores(*asked)]), last_label)
    np.testing.assert_allclose(np.concatenate([*share_scores(*asked)]), share)


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_baselines_of_many_classes_need_little_memory(is_multi_label):
    """No baseline holds a number for every event and class."""
    num_events, num_classes = 4_000, 5_000
    rng = np.random.default_rng(0)
    stream = make_stream(*rng.integers(0, 9, (2, num_events)), np.arange(num_events), 9)
    values = rng.integers(0, num_classes, num_events)
    if is_multi_label:
        values = rng.integers(0, 2, (num_events, num_classes), np.uint8)
    tracemalloc.start()
    found = class_baselines(stream, Targets(values, num_classes), 1_000, num_events)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["last_label"].num_events == 3_000
    assert peak < 2 * num_events * num_classes


@pytest.mark.parametrize(("of_pair", "names"), [(True, 2), (False, 3)])
def test_pitfall_24_every_baseline_is_reported(of_pair, names):
    rng = np.random.default_rng(0)
    stream = make_stream(rng.integers(0, 9, 200), rng.integers(0, 9, 200), np.arange(200), 9)
    targets = Targets((stream.src % 2).astype(np.int64), 2, of_pair=of_pair)
    found = class_baselines(stream, targets, 150, 200)
    assert len(found) == names
    assert found["majority"].roc_auc == 0.5
    assert found["last_label"].f1_micro > 0.9 if not of_pair else found["last_label"].f1_micro > 0.6
