"""The arithmetic of scaling measurements, and one measured in a single process."""

import numpy as np
import pytest
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.benchmarks.measuring import Counters, Measure, figures, medians
from disttgl_hpc.benchmarks.scaling_bench import ScalingPlan, measure_scaling
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.training.trainer import Trainer

ALONE = GridShape(1, 1, 1)


def trainer(*, events=1000, elapsed_s=2.0, cpu_s=1.0, memory_wait_s=0.0, gradient_wait_s=0.0, tcp_bytes=0):
    spent = Counters(elapsed_s, cpu_s, memory_wait_s, gradient_wait_s, 4000, tcp_bytes)
    return Measure(False, 10, events, spent)


def daemon(*, cpu_s=0.03, tcp_bytes=0):
    """A daemon is measured over warm-up and measured steps together."""
    return Measure(True, 15, 0, Counters(9.0, cpu_s, 0.0, 0.0, 0, tcp_bytes))


def test_figures_of_two_trainers_and_a_daemon():
    slow = trainer(elapsed_s=2.5, cpu_s=2.0, memory_wait_s=0.1, gradient_wait_s=0.4)
    found = figures([trainer(gradient_wait_s=0.5), slow, daemon()], num_nodes=1)
    assert found["events_per_s"] == 2000 / 2.5
    assert found["trainer_cpu_us"] == pytest.approx(1500)
    assert found["daemon_cpu_us"] == pytest.approx(10)  # 0.02 s for the 10 steps in which trainers counted
    assert found["daemon_share"] == pytest.approx(0.02 / 1.5)
    assert found["memory_wait_s"] == [0.0, 0.1]
    assert found["gradient_wait_s"] == [0.5, 0.4]
    assert found["waiting_share"] == pytest.approx(1.0 / 5.0)
    assert (found["gradient_bytes"], found["tcp_bytes"]) == (0, 0), "nothing leaves a node"


def test_gradients_of_several_nodes_cross_and_daemons_send_for_all_their_steps():
    found = figures(
        [trainer(tcp_bytes=4100), trainer(tcp_bytes=4100), daemon(tcp_bytes=150), daemon()], num_nodes=2
    )
    assert found["gradient_bytes"] == 800
    assert found["tcp_bytes"] == pytest.approx(830)
    assert found["daemon_share"] == pytest.approx(0.02), "of one daemon"


def test_medians_are_taken_figure_by_figure_and_trainer_by_trainer():
    runs = [{"a": 1, "each": [1, 9]}, {"a": 5, "each": [2, 8]}, {"a": 2, "each": [7, 7]}]
    assert medians(runs) == {"a": 2, "each": [2, 8]}


def test_a_measurement_goes_on_from_several_places(tmp_path, monkeypatch):
    taken = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, number: taken.append(number) or step(self, number))
    plan = ScalingPlan(grids=(ALONE,), steps=2, warmup=1, rounds=1, first_steps=(0, 4))
    record = measure_scaling(make_store(tmp_path).stream, TrainConfig(**SMALL), plan, MPI.COMM_SELF)
    assert taken == [0, 1, 2, 4, 5, 6]
    (one,) = record["grids"][0]["rounds"]
    assert (record["steps"], len(one["step_s"][0])) == (4, 4)
    assert one["events_per_s"] * one["elapsed_s"] == pytest.approx(79), (
        "three batches of 25, and the last of 4"
    )
    assert 0.5 * one["elapsed_s"] < sum(one["step_s"][0]) <= one["elapsed_s"]


def test_events_count_each_time_they_are_trained(tmp_path):
    stream = make_store(tmp_path, dim_edge=2).stream
    config = TrainConfig(**SMALL)  # batches of 25: 7 a sweep, the last of them 4 events long
    plan = ScalingPlan(grids=(ALONE, ALONE), steps=14, warmup=3, rounds=3)
    record = measure_scaling(stream, config, plan, MPI.COMM_SELF)
    assert record["machine"]["ranks"] == 1
    assert (record["train_events"], record["edge_bytes"]) == (stream.split.train_end, 8)
    first, second = record["grids"]
    assert first["speed_up"] == 1
    for entry in (first, second):
        assert len(entry["rounds"]) == 3
        assert (entry["daemons"], entry["batches_per_sweep"]) == (0, 7)
        for run in entry["rounds"]:
            assert run["events_per_s"] * run["elapsed_s"] == pytest.approx(2 * stream.split.train_end)
            assert run["memory_wait_s"] == run["gradient_wait_s"] == [0]
            (steps,) = run["step_s"]
            assert len(steps) == 14
            assert 0 < sum(steps) <= run["elapsed_s"]
            assert 0 < sum(run["phases_s"].values()) < run["elapsed_s"]
        assert entry["model_bytes"] > 4000
        assert "step_s" not in entry, "steps of different rounds have no median"
        speeds = [run["events_per_s"] for run in entry["rounds"]]
        assert entry["events_per_s"] == np.median(speeds)


@pytest.mark.parametrize(
    ("shape", "rule"), [(GridShape(1, 1, 2), "needs 2 trainers"), (GridShape(1, 3, 1), "needs 3 trainers")]
)
def test_a_grid_that_does_not_fit_is_refused_before_anything_runs(tmp_path, monkeypatch, shape, rule):
    stream = make_store(tmp_path).stream
    monkeypatch.setattr(
        "disttgl_hpc.benchmarks.scaling_bench.Trainer", lambda *_, **__: pytest.fail("trained")
    )
    with pytest.raises(GridError, match=rule):
        measure_scaling(stream, TrainConfig(**SMALL), ScalingPlan(grids=(ALONE, shape)), MPI.COMM_SELF)
