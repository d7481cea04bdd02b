"""Started under mpiexec: a run of one grid, whose rank 0 compares it with the emulation.

python -m mpi4py grid_run.py FOLDER IxJxK
"""

import sys
from pathlib import Path

import numpy as np
from emulation import emulate
from mpi4py import MPI
from run_helpers import SMALL, assert_same_weights, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.schedule import GridShape, num_steps
from disttgl_hpc.runs.checkpoints import load_memory, load_weights
from disttgl_hpc.runs.directory import RunDirectory
from disttgl_hpc.runs.inputs import build_model
from disttgl_hpc.runs.plan import batching_of
from disttgl_hpc.runs.train import train
from disttgl_hpc.runs.trainer import Trainer
from disttgl_hpc.store.events import EventStore


def main(folder: Path, grid: str) -> None:
    """Train on all ranks; on rank 0 compare weights, memory and losses with one process taking turns."""
    world, shape = MPI.COMM_WORLD, GridShape.parse(grid)
    if world.rank == 0:
        make_store(folder, dim_edge=2)
    world.barrier()
    store = EventStore.open(folder / "random.events.h5")
    config = TrainConfig(**{**SMALL, "dropout": 0.0, "grid": grid})
    run = RunDirectory(folder / "run")
    own_losses = recorded_losses()
    train(store, config, run, world)
    by_rank = world.gather(own_losses)
    if by_rank is None:
        return
    totals = np.array([steps for steps in by_rank if steps]).sum(
        axis=0
    )  # over trainers; daemons have no steps
    num_batches = batching_of(store.stream, config, shape).num_batches
    losses, model, replicas = emulate(
        store.stream, config, shape, num_steps(config.epochs, shape, num_batches)
    )
    trained = build_model(store.stream, config)
    load_weights(run.last_checkpoint, trained)
    memory = np.empty_like(replicas[0].state)
    load_memory(run.last_checkpoint, memory)
    assert_same_weights(trained, model)
    assert np.allclose(memory, replicas[0].state, atol=1e-5)
    assert np.allclose(totals[:, 0] / totals[:, 1], losses, atol=1e-5)
    (folder / "equal").touch()


def recorded_losses() -> list[tuple[float, int]]:
    """A list that will hold (summed loss, number of events) of every step of this rank's trainer."""
    losses: list[tuple[float, int]] = []
    take_step = Trainer.step

    def step(self: Trainer, number: int) -> tuple[float, int]:
        losses.append(take_step(self, number))
        return losses[-1]

    Trainer.step = step
    return losses


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
