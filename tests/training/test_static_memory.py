"""Runs with static memory: frozen as the emulation has it, co-trained and evaluated with what was learned."""

import dataclasses
import shutil

import numpy as np
import pytest
from emulation import emulate, emulate_evaluation
from mpi4py import MPI
from run_helpers import SMALL, assert_same_weights, make_store
from run_records import records

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import StoreError
from disttgl_hpc.evaluation.candidates import held_out_parts
from disttgl_hpc.evaluation.metrics import link_metrics
from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.inference.trained_run import open_trained
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.store.node_rows import StaticOrigin, StaticStore, with_static_memory, write_static_store
from disttgl_hpc.training.checkpoints import load_memory, load_static, load_weights
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.sweep_ends import evaluate_run
from disttgl_hpc.training.train import train

BATCHES = 7  # of a sweep


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, dim_edge=2)


def write_table(path, store, seed=0):
    """A static store of random rows, some of them zero."""
    rows = np.random.default_rng(seed).normal(size=(store.stream.num_nodes, 5)).astype(np.float32)
    rows[::4] = 0
    learned = {"method": "static-gnn", "name": "random", "train_end": 154, "learned_end": 139}
    origin = StaticOrigin(events=store.checksum, settings={}, report={}, **learned)
    write_static_store(path, rows, origin)
    return rows


def run_in(path, store, *, resume=False, **settings):
    run, config = RunDirectory(path), TrainConfig(**{**SMALL, **settings})
    if resume:
        config = resumed_config(run, settings)
    train(store, config, run, MPI.COMM_SELF, resume=resume)
    return run


def test_a_frozen_static_memory_trains_as_in_the_emulation(tmp_path, store):
    rows = write_table(tmp_path / "t.static.h5", store)
    settings = {"dropout": 0.0, "static_dropout": 0.0, "static": str(tmp_path / "t.static.h5")}
    run = run_in(tmp_path / "run", store, **settings)
    stream = dataclasses.replace(store.stream, static_memory=rows)
    config = TrainConfig(**SMALL, **settings)
    _, model, replicas = emulate(stream, config, GridShape(1, 1, 1), 2 * BATCHES)
    trained = build_model(stream, config)
    load_weights(run.last_checkpoint, trained)
    assert trained.static.shape == (8, 5)
    assert_same_weights(trained, model)
    validation, _ = held_out_parts(stream, config)
    scores = emulate_evaluation(stream, config, model, replicas[0], validation)
    expected = link_metrics(scores[:, 0], scores[:, 1:]).mrr
    assert run.records()[1]["validation"]["mrr"] == pytest.approx(expected, abs=1e-3)


def test_static_memory_stands_beside_node_features(tmp_path, store):
    write_table(tmp_path / "t.static.h5", store)
    features = np.random.default_rng(1).normal(size=(store.stream.num_nodes, 3)).astype(np.float32)
    store = dataclasses.replace(store, stream=dataclasses.replace(store.stream, node_features=features))
    for static, width in ((str(tmp_path / "t.static.h5"), 3 + 5), ("co-trained", 3 + 8)):
        run = run_in(tmp_path / f"run{width}", store, static=static, epochs=1)
        stream = dataclasses.replace(store.stream, static_memory=np.zeros((17, 5)))
        model = build_model(stream, TrainConfig(**SMALL, static=static))
        load_weights(run.last_checkpoint, model)
        assert model.static.shape == (8, width)


def test_dropped_rows_are_neither_seen_nor_learned(tmp_path, store):
    """Every node is dropped from some passes; with all rows dropped, a table stays empty and a file is not seen."""
    write_table(tmp_path / "t.static.h5", store)
    found = [
        records(
            run_in(
                tmp_path / f"{rate}", store, static=str(tmp_path / "t.static.h5"), static_dropout=rate
            ).path
        )
        for rate in (0.0, 0.5)
    ]
    assert found[0] != found[1]
    run = run_in(tmp_path / "all", store, static="co-trained", static_dropout=1 - 1e-9, epochs=1)
    table = np.ones((17, 8), np.float32)
    load_static(run.last_checkpoint, {"rows": table})
    assert not table.any()


def test_a_co_trained_table_is_what_is_evaluated(tmp_path, store):
    run = run_in(tmp_path / "run", store, static="co-trained", static_dropout=0.0)
    record = records(run.path)[-1]
    del record["record"]
    again = evaluate_run(run, None, MPI.COMM_SELF)
    assert again == record
    rows = np.empty((17, 8), np.float32)
    load_static(run.best_checkpoint, {"rows": rows})
    assert np.array_equal(rows.any(axis=1), np.isin(np.arange(17), seen(store)))


def seen(store):
    """Nodes that a pass over the training events may have looked at: those that occur in them."""
    end = store.stream.split.train_end
    return np.union1d(store.stream.src[:end], store.stream.dst[:end])


def test_a_run_never_takes_another_table(tmp_path, store):
    table, run = tmp_path / "t.static.h5", tmp_path / "run"
    write_table(table, store)
    run_in(run, store, static=str(table), epochs=1)
    shutil.copy(table, tmp_path / "moved.static.h5")
    write_table(table, store, seed=1)
    for static in ({}, {"static": ""}, {"static": "co-trained"}):
        with pytest.raises(StoreError, match=r"was trained with a static memory of checksum .*--static FILE"):
            run_in(run, store, resume=True, epochs=2, **static)
    with pytest.raises(StoreError, match=r"was trained with .*evaluate RUN --static FILE"):
        evaluate_run(RunDirectory(run), None, MPI.COMM_SELF)
    moved = tmp_path / "moved.static.h5"
    evaluated = evaluate_run(RunDirectory(run), None, MPI.COMM_SELF, moved)
    assert evaluated["test"] == records(run)[-1]["test"]
    run_in(run, store, resume=True, epochs=2, static=str(moved))
    assert evaluate_run(RunDirectory(run), None, MPI.COMM_SELF)["best_sweep"] in {1, 2}
    table.unlink()
    moved.unlink()
    with pytest.raises(StoreError, match="no such file"):
        evaluate_run(RunDirectory(run), None, MPI.COMM_SELF)


def test_a_damaged_table_is_not_used_by_anything(tmp_path, store):
    """Also where its checksum and shape still look right."""
    table, run, config = tmp_path / "t.static.h5", tmp_path / "run", {"epochs": 1}
    rows = write_table(table, store)
    run_in(run, store, static=str(table), **config)
    content = bytearray(table.read_bytes())
    content[content.find(rows.tobytes())] ^= 1
    table.write_bytes(content)
    uses = [
        lambda: run_in(tmp_path / "new", store, static=str(table), **config),
        lambda: run_in(run, store, resume=True, epochs=2),
        lambda: evaluate_run(RunDirectory(run), None, MPI.COMM_SELF),
        lambda: open_trained(RunDirectory(run)),
        lambda: with_static_memory(store, TrainConfig(static=str(table))),
        lambda: StaticStore.open(table, check=True),
    ]
    for use in uses:
        with pytest.raises(StoreError, match=r"t\.static\.h5: contents must have the checksum"):
            use()
    assert not (tmp_path / "new").exists()


def test_a_run_without_static_memory_is_not_given_one(tmp_path, store):
    run_in(tmp_path / "run", store, epochs=1)
    with pytest.raises(
        StoreError, match="was trained with no static memory, here is co-trained static memory"
    ):
        run_in(tmp_path / "run", store, resume=True, epochs=2, static="co-trained")


@pytest.mark.parametrize("static", ["co-trained", "file"])
def test_a_run_in_pieces_is_the_run_in_one(tmp_path, store, static, monkeypatch):
    if static == "file":
        static = str(tmp_path / "t.static.h5")
        write_table(tmp_path / "t.static.h5", store)
    settings = {"static": static, "static_dropout": 0.3, "static_decay": 0.1}
    whole = run_in(tmp_path / "whole", store, **settings)
    asked = iter(range(1, 10**6))
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "is_made", lambda _: next(asked) >= 4)
        run_in(tmp_path / "pieces", store, **settings)
    pieces = run_in(tmp_path / "pieces", store, resume=True)
    assert records(pieces.path) == records(whole.path)


def test_without_node_memory_nothing_is_remembered(tmp_path, store):
    run = run_in(tmp_path / "run", store, node_memory=False)
    memory = np.ones((17, 16), np.float32)
    load_memory(run.last_checkpoint, 0, memory)
    assert not memory.any()
    assert records(run.path) != records(run_in(tmp_path / "with", store).path)
