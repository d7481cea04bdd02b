"""Runs of whole grids under mpiexec, more ranks than cores, against the emulation in one process."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disttgl_hpc.core.schedule import GridShape

SHAPES = ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "2x2x1", "1x2x2", "2x1x2", "1x4x2", "2x2x2"]


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("grid", SHAPES)
def test_a_grid_trains_as_its_emulation(tmp_path, grid):
    ranks = GridShape.parse(grid).num_trainers + 1
    script = Path(__file__).with_name("grid_run.py")
    command = ["timeout", "120", "mpiexec", "-n", f"{ranks}", sys.executable, "-m", "mpi4py", script]
    done = subprocess.run([*command, tmp_path, grid], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "equal").exists()
