"""Synthetic streams follow their recipe, checked by plain loops over all events."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.synthetic import WIKIPEDIA, Recipe, synthetic_events


def whole(recipe, chunk_events=10**6):
    """All events of a recipe as one dict of arrays."""
    chunks = list(synthetic_events(recipe, chunk_events))
    names = [field.name for field in dataclasses.fields(chunks[0])]
    columns = {name: [getattr(chunk, name) for chunk in chunks] for name in names}
    return {name: np.concatenate(parts) for name, parts in columns.items() if parts[0] is not None}


def pasts(stream):
    """(destination, the source's earlier destinations) of every event."""
    met = {}
    for source, destination in zip(stream["src"].tolist(), stream["dst"].tolist(), strict=True):
        yield destination, met.setdefault(source, [])
        met[source].append(destination)


@st.composite
def recipes(draw):
    num_events = draw(st.integers(12, 300))
    return Recipe(
        num_events=num_events,
        num_src=draw(st.integers(2, 12)),
        num_dst=draw(st.sampled_from([0, 0, 1, 9])),
        kind=draw(st.sampled_from(["recent", "long-range"])),
        lag=draw(st.integers(1, 4)),
        repeat=draw(st.sampled_from([0, 0.5, 1])),
        bursts=draw(st.sampled_from([0, 0.5, 1])),
        activity=draw(st.sampled_from([0, 0.5, 1, 2])),
        dim_edge=draw(st.sampled_from([0, 3])),
        num_classes=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@given(recipe=recipes(), chunk=st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_streams_do_not_depend_on_chunks_and_every_node_occurs(recipe, chunk):
    expected, found = whole(recipe), whole(recipe, chunk)
    assert expected.keys() == found.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype
    assert len(found["src"]) == recipe.num_events
    assert (np.diff(found["time"]) >= 0).all()
    assert (found["src"] != found["dst"]).all()
    sources, destinations = (np.unique(found[name]).tolist() for name in ("src", "dst"))
    if recipe.num_dst:
        assert sources == list(range(recipe.num_src))
        assert destinations == list(range(recipe.num_src, recipe.num_nodes))
    else:
        assert sorted({*sources, *destinations}) == list(range(recipe.num_nodes))
    if recipe.num_classes:
        assert set(found["edge_labels"].tolist()) <= set(range(recipe.num_classes))


def test_another_seed_makes_another_stream():
    recipe = Recipe(num_events=1000, num_src=50, dim_edge=2)
    other = dataclasses.replace(recipe, seed=1)
    assert not np.array_equal(whole(recipe)["dst"], whole(other)["dst"])
    assert not np.array_equal(whole(recipe)["edge_features"], whole(other)["edge_features"])


def test_wikipedia_has_its_size_and_repeat_rate():
    stream = whole(dataclasses.replace(WIKIPEDIA, dim_edge=0))
    assert len(stream["src"]) == 157_474
    assert (len(np.unique(stream["src"])), len(np.unique(stream["dst"]))) == (8_227, 1_000)
    assert abs(stream["time"][-1] / 86_400 - 31) < 0.5
    repeats = sum(past[-1:] == [destination] for destination, past in pasts(stream))
    assert abs(repeats / 157_474 - 0.791) < 0.01
    assert next(synthetic_events(WIKIPEDIA, 10)).edge_features.shape == (10, 172)


@pytest.mark.parametrize("repeat", [0.2, 0.9])
def test_repeats_are_of_the_last_destinations(repeat):
    stream = whole(Recipe(num_events=30_000, num_src=300, num_dst=20_000, lag=3, repeat=repeat, popularity=0))
    recent = [destination in past[-3:] for destination, past in pasts(stream) if past]
    # Two events in three have a new destination, which is no repeat; 20,000 make chance repeats rare.
    share_new = 2 / 3
    assert abs(np.mean(recent) - repeat * (1 - share_new)) < 0.02


def test_a_few_sources_are_very_active():
    def share_of_top(activity):
        stream = whole(Recipe(num_events=40_000, num_src=2_000, bursts=0, activity=activity))
        counts = np.sort(np.bincount(stream["src"], minlength=2_000))[::-1]
        return counts[:20].sum() / 40_000

    assert share_of_top(0) < 0.12  # the first nodes have more time
    assert share_of_top(1) > 0.4


def test_bursts_bring_sources_again_soon():
    def share_of_recent(bursts):
        sources = whole(Recipe(num_events=20_000, num_src=2_000, bursts=bursts, activity=0.3))["src"].tolist()
        return np.mean([source in sources[max(0, k - 64) : k] for k, source in enumerate(sources)])

    assert share_of_recent(0.8) > 0.65  # new sources, one event in ten, are in no burst
    assert share_of_recent(0) < 0.3


def test_long_range_destinations_are_found_by_looking_far_back():
    lag = 12
    stream = whole(
        Recipe(
            num_events=40_000,
            num_src=100,
            num_dst=5_000,
            kind="long-range",
            lag=lag,
            repeat=0.95,
            popularity=0,
        )
    )
    known = [(destination, past[-lag:]) for destination, past in pasts(stream) if len(past) >= 2 * lag]
    far = np.mean([past[0] == destination for destination, past in known])
    near = np.mean([destination in past[1:] for destination, past in known])
    assert far > 0.8  # 0.95 of the seven events in eight without a new destination
    assert near < 0.1


def test_mean_gap_is_the_time_between_events():
    time = whole(Recipe(num_events=20_000, num_src=100, mean_gap=3.5))["time"]
    assert time[-1] / 20_000 == pytest.approx(3.5, rel=0.05)


def test_classes_are_the_idle_time_of_the_source():
    recipe = Recipe(num_events=20_000, num_src=400, num_classes=5, activity=0.5)
    stream = whole(recipe)
    last = {}
    for source, time, label in zip(stream["src"], stream["time"], stream["edge_labels"], strict=True):
        expected = 4
        if source in last:
            idle_gaps = (time - last[source]) / recipe.mean_gap
            expected = min(4, int(5 * np.log1p(idle_gaps) / np.log1p(400)))
        assert label == expected
        last[source] = time
    assert np.bincount(stream["edge_labels"]).min() > 500


def test_features_are_signed_by_their_destination():
    recipe = Recipe(num_events=4_000, num_src=30, num_dst=3, repeat=0, popularity=0, dim_edge=70)
    stream = whole(recipe)
    features = stream["edge_features"]
    assert np.abs(features).max() < 1.5
    means = np.stack([features[stream["dst"] == node].mean(axis=0) for node in (30, 31, 32)])
    np.testing.assert_allclose(np.abs(means), 0.5, atol=0.06)
    assert len(np.unique(np.sign(means), axis=0)) == 3
    assert not np.array_equal(np.sign(means[:, :6]), np.sign(means[:, 64:]))


@pytest.mark.parametrize(("dtype", "error"), [("float16", 5e-4), ("int8", 0.5 * 1.5 / 127)])
def test_compact_features_are_close_to_float32(dtype, error):
    recipe = Recipe(num_events=500, num_src=30, dim_edge=5)
    compact = dataclasses.replace(recipe, feature_dtype=dtype)
    stored = whole(compact)["edge_features"]
    assert stored.dtype == dtype
    scale = 1 if compact.edge_scale is None else compact.edge_scale
    np.testing.assert_allclose(stored * scale, whole(recipe)["edge_features"], atol=error * 1.01)


def test_memory_grows_with_nodes_not_events():
    def peak(num_events):
        list(map(len, (chunk.src for chunk in synthetic_events(Recipe(num_events=10, num_src=5), 10))))
        tracemalloc.start()
        for _ in synthetic_events(Recipe(num_events=num_events, num_src=1_000), 5_000):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(400_000) < 1.2 * peak(50_000)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_src": 0}, "kind must be 2"),
        ({"num_src": 101}, "101 nodes"),
        ({"num_src": 1, "num_dst": 101}, "102 nodes"),
        ({"kind": "short"}, "--kind.*short"),
        ({"lag": 0}, "--lag"),
        ({"repeat": 1.5}, "found 1.5"),
        ({"bursts": -0.1}, "found 0.7 and -0.1"),
        ({"activity": -1}, "--activity"),
        ({"mean_gap": 0}, "--mean-gap"),
        ({"num_classes": -1}, "--edge-features and --classes"),
        ({"seed": -1}, "--seed"),
        ({"num_events": 2**40, "num_src": 2**30}, "2.62"),
    ],
)
def test_impossible_recipes_are_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Recipe(**{"num_events": 100, "num_src": 10} | changes)
