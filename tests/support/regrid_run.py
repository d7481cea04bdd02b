"""Started under mpiexec -n 3: a serial run's sweeps, gone on with as 1×2×1 from the end of its last whole sweep.

python -m mpi4py regrid_run.py FOLDER
"""

import logging
import sys
from pathlib import Path

from mpi4py import MPI
from run_helpers import SMALL, make_store
from run_records import records

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.sweep_ends import evaluate_run
from disttgl_hpc.training.train import train

BATCHES = 7


def main(folder: Path) -> None:
    """Stop the serial run in the middle of its third sweep, then add lanes; stop that, too, and go on again."""
    world, run = MPI.COMM_WORLD, RunDirectory(folder / "run")
    never_asked = StopRequest.is_made
    if world.rank == 0:
        store, asked = make_store(folder), iter(range(10**6))
        StopRequest.is_made = lambda _: next(asked) > 2 * BATCHES + 2
        assert not train(store, TrainConfig(**{**SMALL, "epochs": 7}), run, MPI.COMM_SELF)
        StopRequest.is_made = never_asked
    world.barrier()
    store = EventStore.open(folder / "random.events.h5")
    before = records(run.path)
    steps = iter(range(10**6))
    StopRequest.is_made = lambda _: world.rank == 0 and next(steps) == BATCHES + 3
    config = resumed_config(run, {"grid": "1x2x1"})
    assert not train(store, config, run, world, resume=True)
    StopRequest.is_made = never_asked
    assert train(store, resumed_config(run, {}), run, world, resume=True)
    world.barrier()
    found = records(run.path)
    sweeps = [(record["sweep"], record["step"]) for record in found[:-1]]
    # Two epochs were trained; five more are three sweeps of two passes.
    assert sweeps == [(sweep, BATCHES * sweep) for sweep in range(1, 6)]
    assert found[:2] == before[:2], "the sweep from which it went on is validated again, as it was"
    tested = evaluate_run(run, None, world)
    if world.rank == 0:
        assert {"record": "test", **tested} == found[-1]
        (folder / "done").touch()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1]))
