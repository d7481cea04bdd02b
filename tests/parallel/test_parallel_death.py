"""A job one of whose ranks is killed: it ends, all of it, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB = """
import os, re
import numpy as np
from mpi4py import MPI
from disttgl_hpc.core.memory import MemorySizes
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.parallel.client import open_memory
from disttgl_hpc.parallel.daemon import serve_memory
from disttgl_hpc.parallel.grid import Grid

grid = Grid.create(MPI.COMM_WORLD, GridShape(1, 2, 1))
pids = grid.world.gather(os.getpid())
sizes = MemorySizes(1000, 8, 1000, 1000)
if grid.is_daemon:
    serve_memory(grid, sizes, 5, 10**6)
else:
    memory = open_memory(grid, sizes, 5, 10**6)
    if grid.world.rank == 0:
        files = set(re.findall(r"/dev/shm/\\S+", open("/proc/self/maps").read()))
        print(*pids, *files, flush=True)
    nodes = np.arange(1000)
    for counter in range(grid.trainer, 10**6, 2):
        memory.post_read(counter, nodes)
        memory.write(counter, nodes, memory.wait_read(counter) + 1)
"""


def is_alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds):
    deadline_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def launcher():
    if any(name in os.environ for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")):
        pytest.skip("starts a job of its own")
    beside_python = Path(sys.executable).with_name("mpiexec")
    found = str(beside_python) if beside_python.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("needs mpiexec")
    return found


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc")
@pytest.mark.parametrize("victim", [0, 1, 2], ids=["first-trainer", "second-trainer", "daemon"])
def test_killing_any_rank_ends_the_job_and_leaves_no_shared_memory(launcher, victim):
    with subprocess.Popen(
        [launcher, "-n", "3", sys.executable, "-c", JOB],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        try:
            words = job.stdout.readline().split()
            pids = [int(word) for word in words[:3]]
            files = [Path(word) for word in words[3:]]
            assert any("mpi" in file.name for file in files)
            time.sleep(0.1)  # well into the traffic
            os.kill(pids[victim], signal.SIGKILL)
            assert wait_for(lambda: not any(map(is_alive, pids)), 10)
            assert job.wait(10) != 0
        finally:
            job.kill()
    assert not [file for file in files if file.exists()]
