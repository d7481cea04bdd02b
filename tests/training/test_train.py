"""Training in one process against the emulation, and what a run leaves behind."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from emulation import emulate
from mpi4py import MPI
from run_helpers import SMALL, assert_same_weights, make_store, write_events
from run_records import records

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError, TrainingError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.store.checkpoint_files import read_checkpoint
from disttgl_hpc.training.checkpoints import load_weights
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.sweep_ends import evaluate_run
from disttgl_hpc.training.train import train


def run_in(path, store, **settings):
    """A finished serial run in ``path``."""
    run = RunDirectory(path)
    train(store, TrainConfig(**{**SMALL, **settings}), run, MPI.COMM_SELF)
    return run


@pytest.mark.parametrize("dim_edge", [0, 3])
def test_a_serial_run_equals_the_emulation(tmp_path, dim_edge):
    store = make_store(tmp_path, dim_edge=dim_edge)
    config = TrainConfig(**SMALL, dropout=0.0)
    run = run_in(tmp_path / "run", store, dropout=0.0)
    sweep = -(-store.stream.split.train_end // config.local_batch)
    losses, model, replicas = emulate(store.stream, config, GridShape(1, 1, 1), 2 * sweep)
    trained = build_model(store.stream, config)
    load_weights(run.last_checkpoint, trained)
    memory = read_checkpoint(run.last_checkpoint).arrays["memory/0"]
    assert_same_weights(trained, model)
    assert np.allclose(memory, replicas[0].state, atol=1e-5)
    recorded = [record["loss"] for record in run.records() if record["record"] == "sweep"]
    sizes = np.full(sweep, config.local_batch)
    sizes[-1] = store.stream.split.train_end - sizes[:-1].sum()
    expected = (np.reshape(losses, (2, sweep)) * sizes).sum(axis=1) / sizes.sum()
    assert np.allclose(recorded, expected, atol=1e-5)


def test_batches_prepared_ahead_give_the_same_numbers(tmp_path):
    store = make_store(tmp_path, dim_edge=3)
    found = [
        records(run_in(tmp_path / f"{depth}", store, prefetch=depth, seed=3).path) for depth in (0, 1, 40)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("known", "in_seconds", "in_nanoseconds", "kept"),
    [("ns", 0.0, 0.0, 1e4), ("", 0.0, 0.0, 1e4), ("", 1.0, 1e9, 1e9)],
)
def test_nanoseconds_are_trained_on_as_seconds_are(tmp_path, known, in_seconds, in_nanoseconds, kept):
    stream = make_store(tmp_path).stream
    ends = np.stack([stream.src, stream.dst], axis=1)
    losses = []
    for name, scale, unit in (("s", 1, in_seconds), (known, 10**9, in_nanoseconds)):
        folder = tmp_path / f"{scale}"
        folder.mkdir()
        times = (np.array(stream.time) - stream.time[0]) * scale
        store = write_events(folder, ends, stream.split, times, time_unit=name)
        run = run_in(folder / "run", store, time_unit=unit)
        losses.append([record["loss"] for record in run.records() if record["record"] == "sweep"])
    # float32 keeps elapsed nanoseconds to half a unit of the model's: the highest frequencies see it.
    assert np.allclose(*losses, rtol=2e-3)
    assert run.read_config()["time_unit"] == pytest.approx(kept)


def test_an_error_in_the_loading_thread_is_the_trainings(tmp_path):
    store = make_store(tmp_path, num_nodes=1, num_events=60)
    with pytest.raises(ConfigError, match="a negative must differ from the true destinations"):
        run_in(tmp_path / "run", store, prefetch=2)


def test_pitfall_27_a_seed_decides_the_numbers(tmp_path):
    store = make_store(tmp_path)
    found = [
        records(run_in(tmp_path / name, store, seed=seed).path)
        for name, seed in (("one", 5), ("same", 5), ("other", 6))
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_pitfall_27_checkpoints_hold_what_resuming_needs(tmp_path):
    store = make_store(tmp_path)
    run = run_in(tmp_path / "run", store)
    checkpoint = read_checkpoint(run.last_checkpoint)
    weights, optimiser = checkpoint.group("weights"), checkpoint.group("optimiser")
    assert weights
    for name, array in weights.items():
        assert optimiser[f"{name}/exp_avg"].shape == array.shape
        assert optimiser[f"{name}/exp_avg_sq"].shape == array.shape
    assert checkpoint.arrays["memory/0"].shape == (store.stream.num_nodes, 2 * SMALL["dim_memory"])
    assert checkpoint.attributes["step"] == 2 * -(-store.stream.split.train_end // SMALL["local_batch"])
    assert checkpoint.attributes["settings"]["checksum"] == store.checksum


def test_evaluate_repeats_the_numbers_of_the_test_record(tmp_path):
    store = make_store(tmp_path)
    run = run_in(tmp_path / "run", store)
    recorded = run.records()[-1]
    assert recorded.pop("record") == "test"
    recorded.pop("timing")
    assert json.loads(json.dumps(evaluate_run(run, None, MPI.COMM_SELF))) == recorded


def test_the_best_sweep_is_tested(tmp_path):
    run = run_in(tmp_path / "run", make_store(tmp_path), epochs=3)
    *sweeps, test = run.records()
    best = max(sweeps, key=lambda record: record["validation"]["mrr"])
    assert (test["best_sweep"], test["validation"]) == (best["sweep"], best["validation"])


def test_evaluation_of_other_events_is_refused(tmp_path):
    run = run_in(tmp_path / "run", make_store(tmp_path))
    (tmp_path / "other").mkdir()
    other = make_store(tmp_path / "other", seed=1)
    with pytest.raises(StoreError, match=r"checksum .*--events"):
        evaluate_run(run, other.path, MPI.COMM_SELF)


@pytest.mark.parametrize(("split", "sizes"), [((0, 10), "0, 10 and 210"), ((200, 200), "200, 0 and 20")])
def test_an_empty_part_is_refused_before_anything_is_done(tmp_path, split, sizes):
    store = make_store(tmp_path, split=Split(*split))
    with pytest.raises(ConfigError, match=f"{sizes} of 220: prepare the events again with another --split"):
        run_in(tmp_path / "run", store)
    assert not (tmp_path / "run").exists()


def test_held_out_events_do_not_change_training(tmp_path):
    (tmp_path / "other").mkdir()
    stores = [make_store(tmp_path), make_store(tmp_path / "other", last_event_to=3)]
    assert (stores[0].stream.dst != stores[1].stream.dst).any()
    losses = [
        [record["loss"] for record in run_in(store.path.parent / "run", store).records()[:-1]]
        for store in stores
    ]
    assert losses[0] == losses[1]


def test_a_failed_run_does_not_block_its_name(tmp_path):
    store = make_store(tmp_path, dim_edge=2)
    with pytest.raises(TrainingError):
        run_in(tmp_path / "run", store, lr=1e30)
    with pytest.raises(StoreError, match="finished no sweep"):
        evaluate_run(RunDirectory(tmp_path / "run"), None, MPI.COMM_SELF)
    with pytest.raises(TrainingError):
        run_in(tmp_path / "run", store, lr=1e30)


def test_a_run_cannot_lie_in_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="part of this path is a file"):
        run_in(tmp_path / "file" / "run", make_store(tmp_path))


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="needs a GPU"):
        run_in(tmp_path / "run", make_store(tmp_path), device="cuda")


def test_a_finished_run_is_not_overwritten(tmp_path):
    store = make_store(tmp_path)
    run_in(tmp_path / "run", store)
    with pytest.raises(ConfigError, match="--resume"):
        run_in(tmp_path / "run", store)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    store = make_store(tmp_path, dim_edge=2)
    with pytest.raises(TrainingError, match=r"loss is nan.*step \d+|loss is inf.*step \d+"):
        run_in(tmp_path / "run", store, lr=1e30)


@pytest.mark.parametrize("kind", ["edge", "scaled edge", "node"])
def test_extreme_features_are_refused_with_their_column(tmp_path, kind):
    store = make_store(tmp_path, dim_edge=2)
    stream, scale = store.stream, np.array([1.0, 1e37], np.float32)
    table = np.ones((stream.num_nodes if kind == "node" else stream.num_events, 2), np.float32)
    changed = {
        "edge": {"edge_features": table * scale},
        "scaled edge": {"edge_features": table.astype(np.int8), "edge_scale": scale},
        "node": {"node_features": table * scale},
    }[kind]
    extreme = replace(store, stream=replace(stream, **changed))
    with pytest.raises(ConfigError, match=rf"{kind.split()[-1]} features.*column 1 reaches 1e\+37.*scale"):
        train(extreme, TrainConfig(**SMALL), RunDirectory(tmp_path / "run"), MPI.COMM_SELF)


def test_a_single_extreme_feature_is_named_where_training_fails(tmp_path):
    store = make_store(tmp_path, num_events=3_000, dim_edge=2)
    features = np.array(store.stream.edge_features)
    features[400, 1] = 1e35
    odd = replace(store, stream=replace(store.stream, edge_features=features))
    with pytest.raises(TrainingError, match=r"column 1 .*1e\+35"):
        train(odd, TrainConfig(**SMALL), RunDirectory(tmp_path / "run"), MPI.COMM_SELF)
