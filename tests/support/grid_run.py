"""Started under mpiexec: runs of grids, each compared with the emulation and with the schedule.

python -m mpi4py grid_run.py FOLDER IxJxK[:co-trained | :TASK]…
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from cases import run_cases
from emulation import emulate
from mpi4py import MPI
from run_helpers import SMALL, assert_same_weights, make_store

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.grid.schedule import GridShape, Operation, num_steps, replica_operations
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training import train as training
from disttgl_hpc.training.checkpoints import load_memory, load_static, load_weights
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.run_events import with_task
from disttgl_hpc.training.trainer import Trainer


def compare(world: MPI.Comm, folder: Path, grid: str, variant: str) -> None:
    """Train on all ranks; compare the daemon's order with the schedule, all else with one process taking turns."""
    shape = GridShape.parse(grid)
    static, task = (variant, "link") if variant == CO_TRAINED else ("", variant or "link")
    if world.rank == 0:
        make_store(folder, dim_edge=2, num_classes=3)
    world.barrier()
    store = EventStore.open(folder / "random.events.h5")
    fixed_sets = 5 if shape.epoch > 1 else 0
    comb = "mean" if shape.num_trainers == 4 else "most-recent"
    settings = {"negative_sets": fixed_sets, "pair_features": shape.minibatch > 1, "comb": comb}
    settings |= {"static": static, "static_dropout": 0.0, "task": task}
    settings |= {"class_features": task == "edge", "class_balance": 0.5}
    config = TrainConfig(**{**SMALL, "dropout": 0.0, "grid": grid, **settings})
    run = RunDirectory(folder / "run")
    with recorded_losses() as own_losses, recorded_orders() as own_orders:
        training.train(store, config, run, world)
    by_rank, orders = world.gather(own_losses), world.gather(own_orders)
    if by_rank is None:
        return
    num_batches = batching_of(store.stream, config, shape).num_batches
    steps = num_steps(config.epochs, shape, num_batches)
    assert orders == [{}] * shape.num_trainers + [expected_orders(shape, num_batches, steps)]
    totals = np.array(by_rank[:-1]).sum(axis=0)  # over trainers; the last rank is the daemon
    store = with_task(store, config)
    losses, model, replicas = emulate(store.stream, config, shape, steps)
    trained = build_model(store.stream, config)
    load_weights(run.last_checkpoint, trained)
    memory = np.empty_like(replicas[0].state)
    load_memory(run.last_checkpoint, 0, memory)
    assert_same_weights(trained, model)
    assert np.allclose(memory, replicas[0].state, atol=1e-5)
    if static:
        table = np.empty_like(model.table)
        load_static(run.last_checkpoint, {"rows": table})
        assert table.any()
        assert np.allclose(table, model.table, atol=1e-4)
    assert np.allclose(totals[:, 0] / totals[:, 1], losses, atol=1e-5)


@contextmanager
def recorded_losses() -> Iterator[list[tuple[float, int]]]:
    """A list that will hold (summed loss, number of events) of every step of this rank's trainer."""
    losses: list[tuple[float, int]] = []
    take_step = Trainer.step

    def step(self: Trainer, number: int) -> tuple[float, int]:
        losses.append(take_step(self, number))
        return losses[-1]

    with mock.patch.object(Trainer, "step", step):
        yield losses


@contextmanager
def recorded_orders() -> Iterator[dict[int, list[Operation]]]:
    """What this rank will do to each replica's memory, in its order; a trainer does nothing to it."""
    orders: dict[int, list[Operation]] = {}
    recording = partial(training.serve_memory, record=orders)
    with mock.patch.object(training, "serve_memory", recording):
        yield orders


def expected_orders(shape: GridShape, num_batches: int, steps: int) -> dict[int, list[Operation]]:
    """The schedule's order for each replica, the first of which is copied for evaluation after its sweeps."""
    copied = range(num_batches - 1, steps, num_batches)
    return {
        replica: list(
            replica_operations(replica, shape, num_batches, 0, steps, snapshots=() if replica else copied)
        )
        for replica in range(shape.memory)
    }


if __name__ == "__main__":
    run_cases(compare, Path(sys.argv[1]), sys.argv[2:])
