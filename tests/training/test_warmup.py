"""Cold starts: many processes on one empty cache, and one compilation a node."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from mpi4py import MPI
from run_helpers import SMALL, make_store
from thread_ranks import thread_ranks

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.node_memory import MemoryRun
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.training.trainer import Trainer, compile_once

COLD = """
import numpy as np
from disttgl_hpc.model.loops import read_mail
zero, mail = np.zeros(1, np.int64), np.empty((1, 6), np.float32)
times = np.zeros(1, np.float32), np.zeros(1), np.zeros(1)
features = np.arange(3, dtype=np.int8)[np.newaxis], zero, np.full(3, 0.5, np.float32)
read_mail(0, 1, np.full((1, 2), 7, np.float32), zero, *times, *features, mail)
assert mail.tolist() == [[7, 7, 0, 0.5, 1, 1]], mail
"""


def test_processes_that_start_at_once_on_an_empty_cache_all_work(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    started = [
        subprocess.Popen([sys.executable, "-c", COLD], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in started:
        _, error = process.communicate(timeout=200)
        assert process.returncode == 0, error
    kept = list((tmp_path / "cache").rglob("*.nbc"))
    assert kept
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path not in kept]
    # What they have left is whole: another process loads it and compiles nothing.
    check = (
        COLD
        + "assert sum(read_mail.stats.cache_misses.values()) == 0 < sum(read_mail.stats.cache_hits.values())\n"
    )
    subprocess.run([sys.executable, "-c", check], env=environment, check=True, timeout=100)


@pytest.fixture
def trainer(tmp_path):
    stream, config = make_store(tmp_path, dim_edge=2).stream, TrainConfig(**SMALL, dropout=0.1)
    grid = Grid.create(MPI.COMM_SELF, GridShape(1, 1, 1))
    plan = RunPlan.of(stream, config, grid.shape, 4)
    run = MemoryRun(sizes=plan.sizes, num_batches=plan.num_batches, num_steps=plan.num_steps, timeout_s=20)
    memory = open_memory(grid, run)
    return Trainer(stream, config, plan, grid, memory)


def test_a_rehearsal_leaves_no_trace(tmp_path, trainer):
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.rehearse()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert all(not parameter.grad.any() for parameter in trainer.model.parameters())
    rehearsed = [trainer.step(step) for step in range(4)]
    assert np.isfinite([loss for loss, _ in rehearsed]).all()


def test_others_wait_for_the_first_to_have_compiled():
    finished, comms = {}, thread_ranks(2)

    class Rehearsing:
        def __init__(self, rank):
            self.rank = rank

        def rehearse(self):
            started = time.perf_counter()
            finished[self.rank] = (started, started if self.rank else time.perf_counter())

    threads = [
        threading.Thread(target=compile_once, args=(Rehearsing(rank), comms[rank], 10)) for rank in (1, 0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert finished[0][1] <= finished[1][0]
