"""What ``disttgl bench train`` measures, counts and prints."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.nn.products import torch_product
from disttgl_hpc.report import training_table
from disttgl_hpc.runs.bench_alone import timed
from disttgl_hpc.runs.bench_pyg import PygTrainer
from disttgl_hpc.runs.bench_train import TrainingPlan, measure_training
from disttgl_hpc.runs.phases import PHASES

PLAN = TrainingPlan(steps=3, warmup=1, rounds=2)


@pytest.fixture
def stream(tmp_path):
    return make_store(tmp_path, dim_edge=5).stream


def test_phases_add_up_to_the_step_and_the_floor_lies_below(stream):
    record = measure_training(stream, TrainConfig(**SMALL), PLAN, MPI.COMM_SELF)
    own, floor = record["own"], record["floor"]
    assert own["events"] == (75 + 54) / 2  # events 25 to 99, then two batches and the short last one
    spent = sum(own[f"{phase}_us"] for phase in PHASES)
    assert 0.5 * own["cpu_us"] < spent < 1.3 * own["cpu_us"]
    assert 0 < floor["products_us"] < floor["cpu_us"] < own["cpu_us"]
    assert record["peak_rss_mib"] > 50
    assert "pyg" not in record
    assert "PyTorch" not in training_table(record)


def test_the_floor_grows_with_what_must_be_computed_and_read(stream):
    config = TrainConfig(**SMALL)
    floors = [
        measure_training(each, config, PLAN, MPI.COMM_SELF)["floor"]
        for each in (stream, replace(stream, edge_features=None))
    ]
    assert all(floors[0][name] > floors[1][name] for name in ("product_mflop", "slot_mflop", "kilobytes"))


def test_counted_products_are_those_of_the_steps(stream, monkeypatch):
    done, measured = [], []

    def counting(a, b):
        done.append(2 * a.numel() * b.shape[-1])
        return torch_product(a, b)

    def measure(step, steps):
        done.clear()
        figures = timed(step, steps)
        measured.append(sum(done) / figures["events"] / 1e6)
        return figures

    monkeypatch.setattr("disttgl_hpc.runs.inputs.choose_product", lambda *_: counting)
    monkeypatch.setattr("disttgl_hpc.runs.bench_train.timed", measure)
    plan = TrainingPlan(
        warmup=3, steps=5, rounds=1
    )  # of 7 batches those that are counted: from the middle on
    record = measure_training(stream, TrainConfig(**SMALL), plan, MPI.COMM_SELF)
    assert record["floor"]["product_mflop"] == pytest.approx(measured[0], rel=0.05)


def test_the_peer_learns_from_the_same_batches(stream):
    pytest.importorskip("torch_geometric")
    peer = PygTrainer(stream, TrainConfig(**SMALL, lr=0.01))
    sizes, losses = zip(*((events, loss) for loss, events in map(peer.step, range(70))), strict=True)
    assert sizes[:7] == (25, 25, 25, 25, 25, 25, 4)
    assert np.mean(losses[-14:]) < np.mean(losses[:14])


def test_two_programs_take_turns(stream):
    pytest.importorskip("torch_geometric")
    record = measure_training(stream, TrainConfig(**SMALL), replace(PLAN, against_pyg=True), MPI.COMM_SELF)
    assert record["pyg"]["events"] == record["own"]["events"]
    assert record["ratio"] > 0
    assert f"needs {record['ratio']:.2f} times" in training_table(record)


def test_a_missing_peer_and_other_negatives_are_refused(stream, monkeypatch):
    pytest.importorskip("torch_geometric")
    with pytest.raises(ConfigError, match="1 negative"):
        PygTrainer(stream, TrainConfig(**SMALL, negatives_per_event=2))
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    with pytest.raises(ConfigError, match="pip install"):
        PygTrainer(stream, TrainConfig(**SMALL))
