"""Cases of a comparison, IxJxK or IxJxK:VARIANT, that share one start of mpiexec.

Every process that is started imports torch first, which takes longer than a case.
"""

import subprocess
import sys
from pathlib import Path

from mpi4py import MPI

from disttgl_hpc.grid.collectives import wait_request
from disttgl_hpc.grid.schedule import GridShape

_LIMIT_S = 280


def ranks_of(case):
    """Trainers and a daemon."""
    return GridShape.parse(case.partition(":")[0]).num_trainers + 1


def start(script, folder, cases):
    """Start ``script FOLDER CASE…`` on as many ranks as the largest case needs."""
    ranks = max(ranks_of(case) for case in cases)
    path = Path(__file__).with_name(script)
    launcher = ["timeout", f"{_LIMIT_S}", "mpiexec", "-n", f"{ranks}"]
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "mpi4py", path, folder, *cases],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_equal(job, folder, cases):
    """The job has ended well, and every case after its comparison."""
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert [case for case in cases if not (folder_of(folder, case) / "equal").exists()] == []


def folder_of(folder, case):
    """Where a case keeps its files; "equal" is one of them once its comparison has passed."""
    return folder / case.replace(":", "-")


def run_cases(compare, folder, cases):
    """On every rank: ``compare(comm, folder, grid, variant)`` for one case after the other, on its first ranks.

    The ranks that a case does not need sleep meanwhile.
    """
    world = MPI.COMM_WORLD
    parts = [world.Split(0 if world.rank < ranks_of(case) else MPI.UNDEFINED, world.rank) for case in cases]
    for case, part in zip(cases, parts, strict=True):
        if part != MPI.COMM_NULL:
            own, (grid, _, variant) = folder_of(folder, case), case.partition(":")
            if part.rank == 0:
                own.mkdir()
            part.barrier()
            compare(part, own, grid, variant)
            if part.rank == 0:
                (own / "equal").touch()
            part.Free()
        wait_request(world.Ibarrier(), _LIMIT_S, f"case {case}", longest_s=0.02)
