"""A run that goes on with a longer stream: weights and optimiser stay, the rest is a run on that stream."""

import logging

import numpy as np
import pytest
from mpi4py import MPI
from run_helpers import SMALL
from run_records import records

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.inference.queries import embed
from disttgl_hpc.inference.trained_run import open_trained
from disttgl_hpc.ingest.append import AppendSettings, append
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.ingest.split import parse_split
from disttgl_hpc.store.checkpoint_files import read_checkpoint
from disttgl_hpc.training.resume import find_prefix, resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.run_events import with_task
from disttgl_hpc.training.sweep_ends import evaluate_run
from disttgl_hpc.training.train import train

SHORT, LONG = 150, 260


@pytest.fixture
def stores(tmp_path):
    """A store of 150 events, and a longer one with new nodes whose training split goes beyond them."""
    rng = np.random.default_rng(0)
    ends = (rng.random((LONG, 2)) * np.linspace(8, 30, LONG)[:, None]).astype(int)
    rows = [f"{u},{v},{t}\n" for t, (u, v) in enumerate(ends)]
    for name, part in (("old", rows[:SHORT]), ("new", rows[SHORT:])):
        (tmp_path / f"{name}.csv").write_text("src,dst,time\n" + "".join(part))
    settings = PrepareSettings(inputs=(tmp_path / "old.csv",), output=tmp_path / "old.events.h5")
    store = prepare(settings)
    longer = append(
        AppendSettings(
            store=store.path,
            inputs=(tmp_path / "new.csv",),
            output=tmp_path / "longer.events.h5",
            split=parse_split("0.7/0.15/0.15"),
        )
    )
    assert longer.stream.num_nodes > store.stream.num_nodes
    assert longer.stream.split.train_end > SHORT
    return store, longer


def job(run, store, *, resume=False, stop_after=None, **settings):
    config = resumed_config(run, settings) if resume else TrainConfig(**{**SMALL, **settings})
    steps, never_asked = iter(range(10**6)), StopRequest.is_made
    try:
        if stop_after is not None:
            StopRequest.is_made = lambda _: next(steps) >= stop_after
        return train(store, config, run, MPI.COMM_SELF, resume=resume)
    finally:
        StopRequest.is_made = never_asked


def test_a_run_goes_on_with_a_longer_stream(tmp_path, stores, caplog):
    store, longer = stores
    run = RunDirectory(tmp_path / "run")
    assert job(run, store, epochs=2)
    before = [record for record in records(run.path) if record["record"] == "sweep"]
    first_step = before[-1]["step"]
    optimiser = read_checkpoint(run.last_checkpoint, "optimiser/").arrays
    assert job(run, longer, resume=True)
    with caplog.at_level(logging.INFO):
        assert job(run, longer, resume=True, epochs=4)
    assert "longer stream from the end of sweep 2" in caplog.text
    found = records(run.path)
    assert found[:2] == before
    steps = -(-longer.stream.split.train_end // SMALL["local_batch"])
    assert [record["sweep"] for record in found[:-1]] == [1, 2, 3, 4]
    assert found[3]["step"] == first_step + 2 * steps
    assert found[-1]["validation"]["num_events"] == LONG * 15 // 100
    assert run.read_best().sweep > 2, "validations of other events do not compare"
    counts = {
        name: (optimiser[name].item(), array.item())
        for name, array in read_checkpoint(run.last_checkpoint, "optimiser/").arrays.items()
        if name.endswith("/step")
    }
    assert counts
    assert set(counts.values()) == {(first_step, found[3]["step"])}, "the optimiser goes on"
    assert {"record": "test", **evaluate_run(run, None, MPI.COMM_SELF)} == found[-1]
    trained = open_trained(run)
    assert trained.stream.num_events == LONG
    assert np.isfinite(embed(trained, np.arange(trained.stream.num_nodes), trained.moment())).all()


def test_it_may_be_stopped_at_any_time(tmp_path, stores):
    """Before the first checkpoint on the longer stream and after it, against a run that was not."""
    store, longer = stores
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    for one in (whole, run):
        assert job(one, store, epochs=1)
    assert job(whole, longer, resume=True, epochs=3)
    for stop_after in (0, 2, 9):
        assert not job(run, longer, resume=True, epochs=3, stop_after=stop_after)
    assert job(run, longer, resume=True)
    assert records(run.path) == records(whole.path)


def test_a_sweep_that_was_not_validated_leaves_no_gap_in_the_records(tmp_path, stores):
    """Stopped at the end of the first sweep, before its validation, the run goes on with the longer stream."""
    store, longer = stores
    run = RunDirectory(tmp_path / "run")
    assert not job(
        run, store, epochs=3, stop_after=-(-store.stream.split.train_end // SMALL["local_batch"]) - 1
    )
    assert run.best() is None
    assert not job(run, longer, resume=True, stop_after=2)
    assert job(run, longer, resume=True)
    assert [sweep["sweep"] for sweep in run.sweeps()] == [1, 2, 3]
    assert "validation" not in run.sweeps()[0]
    assert run.read_best().sweep > 1


def test_an_unfinished_sweep_is_no_place_to_go_on_from(tmp_path, stores):
    store, longer = stores
    run = RunDirectory(tmp_path / "run")
    assert not job(run, store, epochs=2, stop_after=2)
    with pytest.raises(ConfigError, match="end of a sweep"):
        job(run, longer, resume=True)


def test_other_events_and_static_memory_are_refused(tmp_path, stores):
    store, longer = stores
    run = RunDirectory(tmp_path / "run")
    assert job(run, longer, epochs=1)
    with pytest.raises(StoreError, match="150 of 260"):
        job(run, store, resume=True)
    run = RunDirectory(tmp_path / "along")
    assert job(run, store, epochs=1, static="co-trained")
    with pytest.raises(ConfigError, match="static memory"):
        job(run, longer, resume=True, epochs=2)


def test_classes_are_compared_by_name_where_a_longer_store_numbers_them_otherwise(tmp_path):
    """A later class sorts before the others; the store is that of a task, which sees past classes as features."""
    rows = [f"{event % 5},{event % 7},{event},{'bc'[event % 2]}" for event in range(60)]
    stores = []
    for name, lines in {
        "old": rows[:40],
        "longer": [*rows, "1,2,61,a"],
        "other": ["0,0,0,c", *rows[1:]],
    }.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["src,dst,time,label", *lines]))
        columns = parse_columns("src=src,dst=dst,time=time,label=label")
        stores.append(
            prepare(
                PrepareSettings(
                    inputs=(tmp_path / f"{name}.csv",), output=tmp_path / f"{name}.events.h5", columns=columns
                )
            )
        )
    old, longer, other = (with_task(store, TrainConfig(**SMALL, task="edge")) for store in stores)
    assert find_prefix(longer, old.checksum, old.path).num_events == 40
    with pytest.raises(StoreError, match="event classes differ"):
        find_prefix(other, old.checksum, old.path)
