"""Jobs of a step each make the run that one long job makes, bit for bit, on any grid."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disttgl_hpc.core.schedule import GridShape

SHAPES = ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "1x2x2", "2x2x2"]
HERE = Path(__file__).parent


def assert_equal(launcher, folder, grid):
    """The script has ended well, after its comparison."""
    command = ["timeout", "120", *launcher, sys.executable, "-m", "mpi4py", HERE / "resume_run.py"]
    path = f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*command, folder, grid],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "equal").exists()


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("grid", SHAPES)
def test_a_run_in_pieces_is_the_run_in_one(tmp_path, grid):
    ranks = GridShape.parse(grid).num_trainers + 1
    assert_equal(["mpiexec", "-n", f"{ranks}"], tmp_path, grid)


def test_a_run_in_pieces_is_the_run_in_one_without_a_daemon(tmp_path):
    assert_equal([], tmp_path, "1x1x1")
