"""What --resume goes on with, what it refuses, and what it says."""

import json
import logging

import pytest
from run_helpers import SMALL, make_store
from run_records import records
from serial_jobs import job
from stored_states import assert_same_state

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.training.resume import find_start, resumed_config
from disttgl_hpc.training.run_directory import RunDirectory

BATCHES = 7  # of a sweep


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def test_a_damaged_checkpoint_is_passed_over(tmp_path, store, caplog):
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    options = {"pair_features": True, "comb": "mean"}
    assert job(whole.path, store, **options)
    assert not job(run.path, store, stop_after=11, checkpoint_steps=5, **options)
    part = run.last_checkpoint
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert job(run.path, store, resume=True)
    assert "step-000000011/node-0.h5: is damaged" in caplog.text
    assert records(run.path) == records(whole.path)
    assert_same_state(run, whole)


def test_without_a_whole_checkpoint_nothing_is_begun(tmp_path, store):
    run = RunDirectory(tmp_path / "run")
    assert not job(run.path, store, stop_after=3)
    run.last_checkpoint.unlink()
    with pytest.raises(StoreError, match=r"damaged.*step-000000003"):
        job(run.path, store, resume=True)


def test_a_run_without_a_checkpoint_starts_from_the_beginning(tmp_path, store):
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    assert job(whole.path, store)
    assert not job(run.path, store, stop_after=3)
    (run.whole_checkpoints[-1] / "manifest.json").unlink()
    assert job(run.path, store, resume=True)
    assert records(run.path) == records(whole.path)


def test_a_finished_run_says_so_and_can_be_trained_further(tmp_path, store, caplog):
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    assert job(whole.path, store, epochs=3)
    assert job(run.path, store, epochs=1)
    before = run.metrics_file.read_text()
    with caplog.at_level(logging.INFO):
        assert job(run.path, store, resume=True)
    assert "is complete" in caplog.text
    assert run.metrics_file.read_text() == before
    assert job(run.path, store, resume=True, epochs=3)
    assert records(run.path) == records(whole.path)
    assert_same_state(run, whole)


def test_what_decides_the_result_cannot_be_changed(tmp_path, store):
    job(tmp_path / "run", store, stop_after=2)
    with pytest.raises(ConfigError, match=r"lr 0\.001, now 0\.5, seed 0, now 1, epochs 2, now 1"):
        resumed_config(RunDirectory(tmp_path / "run"), {"lr": 0.5, "seed": 1, "epochs": 1})
    with pytest.raises(ConfigError, match="unknown setting 'epoch': did you mean epochs"):
        resumed_config(RunDirectory(tmp_path / "run"), {"epoch": 3})
    free = {"timeout_s": 5.0, "keep_checkpoints": 7, "checkpoint_steps": 2, "prefetch": 0, "epochs": 9}
    assert resumed_config(RunDirectory(tmp_path / "run"), free).keep_checkpoints == 7


def test_a_run_that_began_with_another_sampling_is_refused(tmp_path, store):
    run = RunDirectory(tmp_path / "run")
    job(run.path, store, stop_after=2)
    settings = json.loads(run.config_file.read_text())
    for earlier in ({"sampling_version": 1}, {}):  # the first version was not recorded
        del settings["sampling_version"]
        settings |= earlier
        run.config_file.write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match=r"version 1 of the sampling.*begin another run"):
            job(run.path, store, resume=True)


def test_a_changed_configuration_or_other_events_are_refused(tmp_path, store):
    run = RunDirectory(tmp_path / "run")
    job(run.path, store, stop_after=2)
    text = run.config_file.read_text()
    for name, value in (("dropout", 0.5), ("checksum", "0" * 64)):
        run.config_file.write_text(json.dumps({**json.loads(text), name: value}))
        other = make_store(tmp_path, seed=1) if name == "checksum" else store
        with pytest.raises(StoreError, match=r"config\.json.*restore it"):
            job(run.path, other, resume=True)


def test_a_run_in_training_is_left_alone(tmp_path, store):
    run = RunDirectory(tmp_path / "run")
    job(run.path, store, stop_after=2)
    with run.locked(), pytest.raises(ConfigError, match="a job is training this run now"):
        job(run.path, store, resume=True)
    assert job(run.path, store, resume=True)


def test_a_new_run_does_not_take_the_place_of_one_with_a_checkpoint(tmp_path, store):
    job(tmp_path / "run", store, stop_after=2)
    with pytest.raises(ConfigError, match="--resume"):
        job(tmp_path / "run", store)


def test_the_last_checkpoints_the_best_and_the_last_sweeps_are_kept(tmp_path, store):
    run = RunDirectory(tmp_path / "run")
    job(run.path, store, epochs=4, checkpoint_steps=2, keep_checkpoints=2, stop_after=27)
    kept = {int(folder.name.removeprefix("step-")) for folder in run.whole_checkpoints}
    assert kept == {26, 27, 3 * BATCHES, run.read_best().step}


def test_another_grid_needs_a_sweeps_end(tmp_path, store):
    run = RunDirectory(tmp_path / "run")
    job(run.path, store, stop_after=2)
    manifest = run.whole_checkpoints[-1] / "manifest.json"
    assert '"grid": "1x1x1"' in manifest.read_text()
    with pytest.raises(ConfigError, match="--grid 1x1x1"):
        find_start(run, TrainConfig(**SMALL, grid="2x1x1"), store)
