"""Costs of a trainer's steps from the records of a run."""

import json

import numpy as np
import pytest
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.benchmarks.calibration import run_costs
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.planning.costs import Costs, Machine
from disttgl_hpc.planning.scaling import forecast
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two sweeps of 7 steps and 154 events."""
    folder = tmp_path_factory.mktemp("trained")
    train(make_store(folder, dim_edge=2), TrainConfig(**SMALL), RunDirectory(folder / "run"), MPI.COMM_SELF)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of its records, to change."""
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    return tmp_path


def change(run, edit):
    """Change every sweep's record in place."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        if record["record"] == "sweep":
            edit(record)
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_calibrates_as_a_measurement_does(run):
    record = run_costs(run)
    assert (record["steps"], record["train_events"], record["edge_bytes"]) == (7, 154, 8)
    costs = Costs.of(record)
    assert (costs.events, costs.train_events, costs.reply_s) == (pytest.approx(22), 154, 0)
    timings = [sweep["timing"] for sweep in RunDirectory(run).records() if sweep["record"] == "sweep"]
    trained_s = [one["course"]["elapsed_s"][-1] - one["trainers"]["checkpoint"][0] for one in timings]
    assert [sum(one["step_s"][0]) for one in record["grids"][0]["rounds"]] == pytest.approx(trained_s)
    (one,) = forecast(record, Machine(cores=2), [], epochs=2)["measured"]
    assert one["predicted_events_per_s"] == pytest.approx(one["events_per_s"], rel=0.3)
    (assumption,) = record["assumed"]
    assert "CPU time is not recorded" in assumption


def test_steps_recorded_together_and_a_daemon(run):
    def edit(sweep):
        timing, end = sweep["timing"], sweep["step"]
        timing["course"] = {"step": [end - 4, end - 1, end], "loss": [0.5] * 3, "elapsed_s": [0.6, 1.2, 1.4]}
        columns = {name: [0.1] for name in timing["trainers"]}
        timing["trainers"] = columns | {"rank": [0], "checkpoint": [0.0], "read": [0.7], "load": [0.3]}
        timing["daemons"] = {"rank": [1], "read": [0.07], "write": [0.14], "wait": [9.0]}
        timing["daemons"] |= {"resident_mib": [9.0], "peak_mib": [9.0]}

    change(run, edit)
    record = run_costs(run)
    assert record["steps_together"] == 3
    assert "3 at a time" in record["assumed"][1]
    costs = Costs.of(record)
    assert costs.batch_s == pytest.approx(np.array([0.2] * 7) - 0.1), "without the tenth of waiting"
    assert (costs.reply_s, costs.daemon_s) == (pytest.approx(0.1), pytest.approx(0.03))
    assert costs.cpu_s == pytest.approx((6 * 0.1 + 0.3) / 7)


def test_a_timing_without_a_phase_is_refused(run):
    change(run, lambda sweep: sweep["timing"]["trainers"].pop("forward"))
    with pytest.raises(StoreError, match="forward"):
        run_costs(run)


def test_only_whole_sweeps_of_one_trainer_count(run):
    def resume_second(sweep):
        if sweep["sweep"] == 2:
            sweep["timing"]["events_per_s"] /= 2

    change(run, resume_second)
    record = run_costs(run)
    assert len(record["grids"][0]["rounds"]) == 1
    assert "single sweep" in record["assumed"][-1]
    change(
        run,
        lambda sweep: sweep["timing"].update(
            trainers={n: 2 * c for n, c in sweep["timing"]["trainers"].items()}
        ),
    )
    with pytest.raises(ConfigError, match=r"whole sweeps.*--grids 1x1x1"):
        run_costs(run)


def test_events_that_are_gone_are_named(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"events": "/nowhere/x.events.h5"}))
    with pytest.raises(ConfigError, match=r"/nowhere/x.events.h5: .*put them back"):
        run_costs(run)
