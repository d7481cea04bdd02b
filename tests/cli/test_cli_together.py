"""How a job ends on an error that only some of its ranks have found."""

import shutil
import subprocess
import sys

import pytest

# Stands for a command: ranks 1 and 2 lie on a node with too little shared memory, rank 0 on another.
COMMAND = """
from mpi4py import MPI
from disttgl_hpc import cli
from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.collectives import raise_together

def open_tables(**_):
    raise_together(MPI.COMM_WORLD, GridError("no room here") if MPI.COMM_WORLD.rank else None, 20)

cli.disttgl.main = open_tables
cli.main()
"""


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_an_error_of_one_node_is_told_once_by_a_rank_that_has_it():
    command = ["timeout", "60", "mpiexec", "-n", "3", sys.executable, "-c", COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("no room here") == done.stderr.count("Error:") == 1
    assert "Error: rank 1 of 3" in done.stderr
    assert "Traceback" not in done.stderr
