"""What pre-training learns from, what it writes, and that it goes on."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from mpi4py import MPI
from run_helpers import SMALL, make_store, write_events

from disttgl_hpc.errors import ConfigError, StoreError, TrainingError
from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.static_memory.lightgcn import smoothed, training_graph
from disttgl_hpc.static_memory.pretrain import METHODS, pretrain, pretrain_config, training_part
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import StaticStore

SETTINGS = {**SMALL, "local_batch": 50, "epochs": 3, "static_dropout": 0.0}


def learn(store, output, method, *, force=False, share=0.8, **changes):
    config = pretrain_config(method, {}, {**SETTINGS, **changes})
    return pretrain(store, output, method, config, MPI.COMM_SELF, share=share, force=force)


def other_future(store, folder):
    """The same store but for all that follows the training split: ends, times, features and their index."""
    path = folder / "other.events.h5"
    shutil.copy(store.path, path)
    end, num_nodes = store.stream.split.train_end, store.stream.num_nodes
    rng = np.random.default_rng(9)
    with h5py.File(path, "r+") as file:
        src, dst, time = (file["events"][name][:] for name in ("src", "dst", "time"))
        src[end:], dst[end:] = rng.integers(0, num_nodes, (2, len(src) - end))
        time[end:] = time[end - 1] + np.cumsum(rng.integers(0, 5, len(time) - end))
        index = build_tcsr(src, dst, time, num_nodes)
        for name, values in {"src": src, "dst": dst, "time": time}.items():
            file["events"][name][...] = values
        for name in ("indptr", "neighbors", "event_ids", "times"):
            del file["tcsr"][name]
            file["tcsr"][name] = getattr(index, name)
        file["features/edge"][end:] = 1e3
    return EventStore.open(path)


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_store_is_told_before_it_is_indexed(tmp_path, method):
    store = make_store(tmp_path)
    with h5py.File(store.path, "r+") as file:
        file["events/dst"][3] = 10**6
    with pytest.raises(StoreError, match="must hold events/dst: ids of destinations"):
        learn(EventStore.open(store.path), tmp_path / "x.static.h5", method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strategy", ["random", "historical"])
def test_pitfall_21_static_memory_learns_from_the_training_split_alone(tmp_path, method, strategy):
    store = make_store(tmp_path, dim_edge=2)
    (tmp_path / "others").mkdir()
    other = other_future(store, tmp_path / "others")
    end = store.stream.split.train_end
    assert np.array_equal(store.stream.src[:end], other.stream.src[:end])
    assert not np.array_equal(store.stream.src[end:], other.stream.src[end:])
    learned = [
        learn(each, tmp_path / f"{number}.static.h5", method, negative_strategy=strategy)
        for number, each in enumerate((store, other))
    ]
    assert learned[0].rows.any()
    assert learned[0].rows.tobytes() == learned[1].rows.tobytes()
    assert learned[0].report == learned[1].report


@pytest.mark.parametrize("method", METHODS)
def test_nodes_that_were_not_learned_from_have_no_memory(tmp_path, method):
    store = make_store(tmp_path)
    learn(store, tmp_path / "x.static.h5", method, share=0.5)
    written = StaticStore.open(tmp_path / "x.static.h5")
    written.check_events(store)
    written.verify()
    origin = written.origin
    assert (origin.method, origin.train_end, origin.learned_end) == (method, 154, 77)
    known = np.union1d(store.stream.src[:77], store.stream.dst[:77])
    assert len(known) < store.stream.num_nodes
    assert np.array_equal(np.flatnonzero(written.rows.any(axis=1)), known)
    assert len(origin.report["epochs"]) == 3
    assert 0 < origin.report["best_mrr"] == max(epoch["mrr"] for epoch in origin.report["epochs"])
    assert not list(tmp_path.glob(".*")), "the run beside it is gone"


def test_a_training_part_ends_where_training_ends():
    store_end = 100
    stream = make_part(store_end)
    part = training_part(stream, 0.9)
    assert (part.num_events, part.split) == (100, Split(90, 95))
    with pytest.raises(ConfigError, match="share must leave events to learn from and two to choose by"):
        training_part(stream, 0.99)
    with pytest.raises(ConfigError, match="share must leave"):
        training_part(stream, 0.001)


def make_part(end):
    src = np.zeros(end + 20, np.int64)
    time = np.arange(end + 20)
    index = build_tcsr(src, src + 1, time, 2)
    return EventStream("part", 2, 0, src, src + 1, time, Split(end, end + 10), index)


def test_an_embedding_that_was_stopped_goes_on(tmp_path, monkeypatch):
    store = make_store(tmp_path)
    whole = learn(store, tmp_path / "whole.static.h5", "embedding")
    asked = iter(range(1, 10**6))
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "is_made", lambda _: next(asked) >= 4)
        assert learn(store, tmp_path / "x.static.h5", "embedding") is None
    assert not (tmp_path / "x.static.h5").exists()
    with pytest.raises(ConfigError, match=r"these differ: lr 0\.001, now 0\.5; .* remove this folder"):
        learn(store, tmp_path / "x.static.h5", "embedding", lr=0.5)
    with pytest.raises(ConfigError, match=r"the first 123 of 154 .* now it would be 77.* give the --share"):
        learn(store, tmp_path / "x.static.h5", "embedding", share=0.5)
    resumed = learn(store, tmp_path / "x.static.h5", "embedding")
    assert resumed.rows.tobytes() == whole.rows.tobytes()
    assert resumed.report == whole.report


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_a_run_with_another_task_and_given_negatives_learn_the_same(tmp_path, method):
    store = make_store(tmp_path, num_classes=3)
    links = learn(store, tmp_path / "links.static.h5", method)
    other = learn(
        store, tmp_path / "x.static.h5", method, task="edge", class_balance=0.5, evaluation_strategy="given"
    )
    assert other.rows.tobytes() == links.rows.tobytes()
    assert other.report == links.report


def test_an_output_is_not_replaced_unasked(tmp_path):
    store, output = make_store(tmp_path), tmp_path / "x.static.h5"
    learn(store, output, "static-gnn")
    first = StaticStore.open(output).checksum
    with pytest.raises(ConfigError, match="exists already: choose another name, or --force"):
        learn(store, output, "static-gnn")
    learn(store, output, "static-gnn", force=True, seed=1)
    assert StaticStore.open(output).checksum != first
    with pytest.raises(ConfigError, match="is no static memory"):
        learn(store, store.path, "static-gnn", force=True)
    with pytest.raises(ConfigError, match="folder"):
        learn(store, tmp_path / "no" / "x.static.h5", "static-gnn")


def test_the_graph_is_that_of_the_training_events_and_smoothing_follows_it(tmp_path):
    stream = make_store(tmp_path).stream
    counts = np.zeros((17, 17))
    for src, dst in zip(stream.src[:154], stream.dst[:154], strict=True):
        counts[src, dst] += 1
        counts[dst, src] += 1
    scale = np.zeros(17)
    scale[counts.any(axis=1)] = counts.sum(axis=1)[counts.any(axis=1)] ** -0.5
    expected = scale[:, None] * counts * scale
    graph = training_graph(stream)
    assert np.allclose(graph.to_dense().numpy(), expected, atol=1e-6)
    rows = np.random.default_rng(0).normal(size=(17, 3))
    means = (rows + expected @ rows + expected @ expected @ rows) / 3
    assert np.allclose(smoothed(graph, torch.from_numpy(rows).float()).numpy(), means, atol=1e-5)


def test_a_loss_that_is_no_number_is_told(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss in epoch .* must be a number: lower --lr"):
        learn(make_store(tmp_path), tmp_path / "x.static.h5", "static-gnn", lr=1e30, epochs=5)
    assert not (tmp_path / "x.static.h5").exists()


def test_a_static_gnn_learns_who_belongs_together(tmp_path):
    """Two communities that never meet: inner products rank a node's own above the other's."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 20, (600, 2)) + rng.integers(0, 2, (600, 1)) * 20
    store = write_events(tmp_path, ends, Split(500, 550))
    learned = learn(store, tmp_path / "x.static.h5", "static-gnn", epochs=10, lr=0.05, dim_memory=4)
    rows = learned.rows
    own, other = np.mean(rows[:20] @ rows[:20].T), np.mean(rows[:20] @ rows[20:].T)
    assert own > other + 1
    assert learned.report["best_mrr"] > 0.3
    assert np.sqrt(np.mean(rows[rows.any(axis=1)] ** 2)) == pytest.approx(1, abs=1e-4)
    losses = [epoch["loss"] for epoch in learned.report["epochs"]]
    assert losses[-1] < losses[0]
