"""Jobs of serial runs that stop where a test wants them to."""

import pytest
from mpi4py import MPI
from run_helpers import SMALL

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.train import train


def job(path, store, *, stop_after=None, resume=False, **settings):
    """One job of a serial run: whether it came to its end. ``stop_after`` so many steps it is asked to stop."""
    run, asked = RunDirectory(path), iter(range(1, 10**6))
    config = TrainConfig(**{**SMALL, **settings})
    if resume:
        config = resumed_config(run, settings)
    with pytest.MonkeyPatch.context() as patch:
        if stop_after is not None:
            patch.setattr(StopRequest, "is_made", lambda _: next(asked) >= stop_after)
        return train(store, config, run, MPI.COMM_SELF, resume=resume)
