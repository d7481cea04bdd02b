"""Planning for a stream: a calibration on this machine, sizes of node memory, grids for the ranks at hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.benchmarks import calibration
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import GridError
from disttgl_hpc.grid import shared_memory
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.grid.shared_memory import gradient_bytes
from disttgl_hpc.memory.co_trained import static_shapes
from disttgl_hpc.memory.shared_tables import num_bytes, table_shapes
from disttgl_hpc.planning import grid_choice as planning
from disttgl_hpc.planning import machine
from disttgl_hpc.planning.costs import Costs, Machine
from disttgl_hpc.planning.planner import Cluster
from disttgl_hpc.planning.run_plan import RunPlan

CONFIG = TrainConfig(**SMALL)
PARAMETERS = 1000


@pytest.fixture
def stream(tmp_path):
    return make_store(tmp_path).stream


def planned(
    stream, calibrations=(), *, nodes=1, trainers=4, memory=10**9, max_loss=0.0, base=25, config=None
):
    cluster = Cluster(nodes=nodes, trainers_per_node=trainers, memory_per_node=memory)
    machine = Machine(cores=trainers)
    config = config or CONFIG
    return planning.plan_grid(
        stream,
        config,
        cluster,
        machine,
        calibrations,
        num_parameters=PARAMETERS,
        base=base,
        max_loss=max_loss,
    )


def test_a_calibration_measures_every_size_on_the_same_events(stream, monkeypatch):
    monkeypatch.setattr(calibration, "_MEASURED_EVENTS", 150)
    monkeypatch.setattr(calibration, "_WARMUP_EVENTS", 50)
    records = calibration.calibrate(stream, CONFIG, [10, 25], MPI.COMM_SELF)
    assert [record["settings"]["local_batch"] for record in records] == [10, 25]
    for record, steps in zip(records, (16, 8), strict=True):
        (entry,) = record["grids"]
        assert [len(one["step_s"][0]) for one in entry["rounds"]] == [steps] * 3
        assert record["steps"] == steps
        assert Costs.of(record).events_per_s > 0
    plan = planned(stream, records)
    assert {one["local_batch"] for one in plan["local_batches"]} == {10, 25}
    assert all(one["events_per_s"] > 0 for one in plan["candidates"])


def test_a_calibration_looks_at_the_whole_stream(stream, monkeypatch):
    monkeypatch.setattr(calibration, "_MEASURED_EVENTS", 40)
    monkeypatch.setattr(calibration, "_WARMUP_EVENTS", 40)
    (record,) = calibration.calibrate(stream, CONFIG, [10], MPI.COMM_SELF)
    batches = record["grids"][0]["batches_per_sweep"]
    assert record["first_steps"] == [part * batches // 8 for part in (1, 3, 5, 7)]
    assert calibration.first_batches(100, 2) == (12, 37, 62, 87)
    assert calibration.first_batches(20, 9) == (2, 7, 11, 11), "within a sweep"
    assert calibration.first_batches(3, 9) == (0, 0, 0, 0)


def test_without_a_calibration_no_speed_is_predicted(stream):
    plan = planned(stream)
    assert (plan["local_batch"], plan["local_batches"]) == (25, [])
    assert plan["grid"] == "1x1x4"
    assert {one["events_per_s"] for one in plan["candidates"]} == {None}


def test_memory_is_that_of_the_tables(stream):
    two = GridShape(1, 2, 4)
    (entry,) = [one for one in planned(stream, nodes=2)["candidates"] if one["grid"] == "1x2x4"]
    sizes = RunPlan.of(stream, CONFIG, two).sizes
    gradients = gradient_bytes(PARAMETERS, 4)
    assert entry["memory"] == num_bytes(table_shapes(sizes, two, 2)) + gradients, "two replicas on each node"
    assert planned(stream, nodes=2, memory=entry["memory"])["grid"] == "1x2x4"
    with pytest.raises(GridError, match="at least one replica"):
        planned(stream, memory=1000)


def test_a_co_trained_table_needs_memory_too(stream):
    without = planned(stream)["candidates"]
    along = planned(stream, config=replace(CONFIG, static="co-trained"))["candidates"]
    for one, entry in zip(without, along, strict=True):
        rows = RunPlan.of(stream, CONFIG, GridShape.parse(entry["grid"])).sizes.read_rows
        table = static_shapes(stream.num_nodes, CONFIG.dim_memory, rows, 4)
        assert entry["memory"] == one["memory"] + num_bytes(table)


def test_sizes_around_the_base():
    assert calibration.sizes_to_try(600, 10_000) == [150, 300, 600, 1200, 2400]
    assert calibration.sizes_to_try(600, 1000) == [150, 300, 600, 1000]
    assert calibration.sizes_to_try(1, 2) == [1, 2]


def test_one_process_is_one_trainer(stream):
    assert planning.auto_grid(stream, CONFIG, MPI.COMM_SELF, PARAMETERS) == GridShape(1, 1, 1)


def test_trainers_and_daemon_keep_memory_for_themselves(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {3000 * 1024} kB\n")
    monkeypatch.setattr(shared_memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=2000 * 2**20))
    assert 1990 * 2**20 < machine.room_for_node_memory(1) < 2000 * 2**20, (
        "3,000 less 870 are more than /dev/shm has"
    )
    assert machine.room_for_node_memory(4) == (3000 - 4 * 470 - 400) * 2**20
    assert machine.room_for_node_memory(9) == 0
