"""Damaged files are found before anything is trained or told from them."""

import os
import stat

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import StoreError
from disttgl_hpc.sampling import presample
from disttgl_hpc.sampling.graph_records import Record, check_records
from disttgl_hpc.sampling.presample import sample
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training import train as training
from disttgl_hpc.training.resume import find_prefix
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.sweep_ends import evaluate_run
from disttgl_hpc.training.train import train


def _new(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize("grid", ["", "auto"])
def test_events_that_point_nowhere_are_neither_trained_on_nor_sampled(tmp_path, monkeypatch, grid):
    for module, reader in ((training, "grid_shape"), (presample, "LiveGraphs")):
        monkeypatch.setattr(module, reader, lambda *_: pytest.fail("must not read unchecked events"))
    path, config = make_store(tmp_path).path, TrainConfig(**SMALL, negative_sets=1, grid=grid)
    with h5py.File(path, "r+") as file:
        file["tcsr/neighbors"][5] = 10**6
    store, run = EventStore.open(path), RunDirectory(tmp_path / "run")
    with pytest.raises(StoreError, match="tcsr/neighbors: ids of nodes"):
        train(store, config, run, MPI.COMM_SELF)
    with pytest.raises(StoreError, match="tcsr/neighbors: ids of nodes"):
        sample(store, config, 1, tmp_path / "x.batches.h5", MPI.COMM_SELF)
    assert {place.name for place in tmp_path.iterdir()} == {path.name}


def test_a_damaged_original_is_not_compared_with_a_longer_store(tmp_path):
    original, longer = (make_store(_new(tmp_path / name), seed=seed) for seed, name in enumerate("ab"))
    with h5py.File(original.path, "r+") as file:
        file["events/src"][5] = 10**6
    with pytest.raises(StoreError, match="events/src: ids of sources"):
        find_prefix(longer, original.checksum, original.path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in a folder of its own, made by a user who lets the group read, and its events."""
    store = make_store(tmp_path_factory.mktemp("events"))
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "run")
    before = os.umask(0o027)
    try:
        assert train(store, TrainConfig(**{**SMALL, "epochs": 1}), run, MPI.COMM_SELF)
    finally:
        os.umask(before)
    return store, run


def test_files_have_the_rights_that_the_user_gives_and_lie_in_the_run_directory(trained):
    _, run = trained
    assert [place.name for place in run.path.parent.iterdir()] == [run.path.name]
    places = [run.path, *run.path.rglob("*")]
    assert len(places) > 6
    for place in places:
        assert stat.S_IMODE(place.stat().st_mode) == (0o750 if place.is_dir() else 0o640), place


def test_events_that_are_gone_are_asked_for(trained):
    store, run = trained
    elsewhere = store.path.rename(store.path.with_name("elsewhere.events.h5"))
    try:
        with pytest.raises(StoreError, match="the run's events are not there any more: say where they are"):
            evaluate_run(run, None, MPI.COMM_SELF)
        assert evaluate_run(run, elsewhere, MPI.COMM_SELF)["test"] == run.records()[-1]["test"]
    finally:
        elsewhere.rename(store.path)


def test_a_damaged_checkpoint_is_not_evaluated(trained):
    _, run = trained
    whole = run.best_checkpoint.read_bytes()
    with h5py.File(run.best_checkpoint, "r+") as file:
        name = next(iter(file["weights"]))
        file["weights"][name][...] += 1
    try:
        with pytest.raises(StoreError, match=r"node-0\.h5: is damaged.*checksum"):
            evaluate_run(run, None, MPI.COMM_SELF)
    finally:
        run.best_checkpoint.write_bytes(whole)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"{}", b'{"record": 1}', b'{"record": "sweep", "step": "1"}', b"\xff"]
)
def test_records_that_are_none_are_named_by_their_line(tmp_path, line):
    run = RunDirectory(tmp_path)
    run.metrics_file.write_bytes(b'{"record": "sweep", "step": 3}\n' + line + b"\n")
    with pytest.raises(StoreError, match=r"metrics\.jsonl, line 2: must be a record"):
        run.records()


@pytest.mark.parametrize("text", ["{}", '{"events": 3, "checksum": "x"}', '{"events": "x"}', "[" * 100_000])
def test_a_configuration_without_inputs_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StoreError, match=r"config\.json: .*: "):
        RunDirectory(tmp_path).read_config()


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"nodes": [0, 9]}, r"nodes must lie in \[0, 9\), found 0 to 9"),
        ({"event_ids": [0, -1, 2]}, r"event_ids must lie in \[0, 5\)"),
        ({"rows": [0, 1, 2, 3, 4]}, r"rows must lie in \[0, 4\)"),
        ({"counts": [0, 3]}, r"counts must lie in \[0, 3\)"),
        ({"counts": [0, 2]}, "its roots have 2 slots, found 3"),
    ],
)
def test_records_that_point_nowhere_are_refused(changed, rule):
    values = {"nodes": [0, 8], "event_ids": [0, 1, 4], "rows": [0, 1, 2, 3, 0], "counts": [1, 2]}
    whole, odd = (
        Record(elapsed=np.zeros(3, np.float32), **{name: np.array(rows) for name, rows in fields.items()})
        for fields in (values, values | changed)
    )
    check_records((whole, whole), 9, 5, 2)
    with pytest.raises(ValueError, match=rule):
        check_records((whole, odd), 9, 5, 2)
