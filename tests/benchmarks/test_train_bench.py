"""What ``disttgl bench train`` measures, counts and prints."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.benchmarks import train_bench as bench_train
from disttgl_hpc.benchmarks.measuring import timed
from disttgl_hpc.benchmarks.pyg import PygTrainer
from disttgl_hpc.benchmarks.train_bench import TrainingPlan, measure_training
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.grid.spans import PHASES
from disttgl_hpc.model.products import torch_product
from disttgl_hpc.report.measurement_tables import training_table

PEAK = SimpleNamespace(ru_maxrss=2048)
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


@pytest.mark.parametrize("negatives", [1, 4])
@pytest.mark.parametrize("steps", [range(0, 2), range(3, 8)])
@pytest.mark.parametrize(("dim_node", "static"), [(0, ""), (3, ""), (3, "co-trained")])
def test_counted_products_are_those_of_the_steps(stream, monkeypatch, negatives, steps, dim_node, static):
    done, measured = [], []

    def counting(a, b):
        done.append(2 * a.numel() * b.shape[-1])
        return torch_product(a, b)

    def measure(step, steps):
        done.clear()
        figures = timed(step, steps)
        measured.append(sum(done) / figures["events"] / 1e6)
        return figures

    monkeypatch.setattr("disttgl_hpc.model.input_builder.choose_product", lambda *_: counting)
    monkeypatch.setattr("disttgl_hpc.benchmarks.train_bench.timed", measure)
    if dim_node:
        stream = replace(stream, node_features=np.ones((stream.num_nodes, dim_node), np.float32))
    plan = TrainingPlan(warmup=steps.start, steps=len(steps), rounds=1)
    config = TrainConfig(**SMALL, negatives_per_event=negatives, static=static)
    record = measure_training(stream, config, plan, MPI.COMM_SELF)
    assert record["floor"]["product_mflop"] == pytest.approx(measured[0], rel=0.05)


def test_the_peak_is_the_trainers_and_not_the_measurements(stream, monkeypatch):
    order = []
    monkeypatch.setattr(
        "disttgl_hpc.benchmarks.train_bench.resource.getrusage", lambda _: order.append("peak") or PEAK
    )
    rates = bench_train._rates
    monkeypatch.setattr(
        "disttgl_hpc.benchmarks.train_bench._rates", lambda config: order.append("rates") or rates(config)
    )
    assert measure_training(stream, TrainConfig(**SMALL), PLAN, MPI.COMM_SELF)["peak_rss_mib"] == 2
    assert order == ["peak", "rates", "rates"]


def test_a_stream_without_training_events_is_refused(stream):
    empty = replace(stream, split=Split(0, 10))
    with pytest.raises(ConfigError, match="training needs an event"):
        measure_training(empty, TrainConfig(**SMALL), PLAN, MPI.COMM_SELF)


def test_the_peer_begins_anywhere_with_the_neighbours_of_all_events_before(stream):
    pytest.importorskip("torch_geometric")
    peer = PygTrainer(stream, TrainConfig(**SMALL))
    peer.step(3)
    begun = PygTrainer(stream, TrainConfig(**SMALL))
    for step in range(4):
        begun.step(step)
    nodes = torch.arange(stream.num_nodes)
    for mine, theirs in zip(peer._neighbors(nodes), begun._neighbors(nodes), strict=True):
        assert torch.equal(mine, theirs)


def test_the_peer_learns_from_the_same_batches(stream):
    pytest.importorskip("torch_geometric")
    peer = PygTrainer(stream, TrainConfig(**SMALL, lr=0.01))
    sizes, losses = zip(*((events, loss) for loss, events in map(peer.step, range(70))), strict=True)
    assert sizes[:7] == (25, 25, 25, 25, 25, 25, 4)
    assert np.mean(losses[-14:]) < np.mean(losses[:14])


def test_two_programs_take_turns(stream):
    pytest.importorskip("torch_geometric")
    record = measure_training(stream, TrainConfig(**SMALL), PLAN, MPI.COMM_SELF, against_pyg=True)
    assert record["pyg"]["events"] == record["own"]["events"]
    assert record["ratio"] > 0
    assert f"needs {record['ratio']:.2f} times" in training_table(record)


@pytest.mark.parametrize(
    "setting", [{"negatives_per_event": 2}, {"comb": "mean"}, {"node_memory": False}, {"pair_features": True}]
)
def test_what_the_peer_does_not_have_is_refused_before_anything_is_measured(stream, setting):
    plan = replace(PLAN, steps=10**9)
    with pytest.raises(ConfigError, match=next(iter(setting))):
        measure_training(stream, TrainConfig(**SMALL, **setting), plan, MPI.COMM_SELF, against_pyg=True)


def test_a_missing_peer_is_refused(stream, monkeypatch):
    monkeypatch.setattr("disttgl_hpc.benchmarks.pyg.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install"):
        measure_training(stream, TrainConfig(**SMALL), PLAN, MPI.COMM_SELF, against_pyg=True)
