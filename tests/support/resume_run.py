"""Started under mpiexec: runs that stop after every step and are resumed, compared with ones that never stop.

python -m mpi4py resume_run.py FOLDER IxJxK[:co-trained]…
"""

import itertools
import sys
from pathlib import Path
from unittest import mock

from cases import run_cases
from mpi4py import MPI
from run_helpers import SMALL, make_store
from run_records import records
from stored_states import assert_same_state

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training import train as training
from disttgl_hpc.training.run_directory import RunDirectory


def compare(world: MPI.Comm, folder: Path, grid: str, static: str) -> None:
    """Two sweeps: once in a go, once in jobs each of which one rank, in turn, has stop as soon as it can."""
    shape = GridShape.parse(grid)
    if world.rank == 0:
        make_store(folder, dim_edge=2)
    world.barrier()
    store = EventStore.open(folder / "random.events.h5")
    epochs = 2 * shape.epoch * shape.memory
    config = TrainConfig(**{**SMALL, "grid": grid, "epochs": epochs, "static": static, "static_dropout": 0.2})
    whole, pieces = RunDirectory(folder / "whole"), RunDirectory(folder / "pieces")
    assert training.train(store, config, whole, world)
    for job in itertools.count():
        with mock.patch.object(StopRequest, "is_made", lambda _, job=job: world.rank == job % world.size):
            is_complete = training.train(store, config, pieces, world, resume=job > 0)
        if is_complete:
            break
    world.barrier()
    if world.rank == 0:
        num_steps = whole.records()[-2]["step"]
        assert num_steps // 3 < job <= num_steps, (
            job
        )  # a daemon's word reaches its trainers a step or two later
        assert records(pieces.path) == records(whole.path)
        assert_same_state(pieces, whole)


if __name__ == "__main__":
    run_cases(compare, Path(sys.argv[1]), sys.argv[2:])
