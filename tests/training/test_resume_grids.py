"""Jobs of a step each make the run that one long job makes, bit for bit, on any grid."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disttgl_hpc.grid.schedule import GridShape

SHAPES = ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "1x2x2", "2x2x2"]
HERE = Path(__file__).parent


def run_script(launcher, name, *arguments):
    """The script has ended well; returns what it said."""
    command = ["timeout", "200", *launcher, sys.executable, "-m", "mpi4py", HERE / name]
    path = f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("grid", SHAPES)
def test_a_run_in_pieces_is_the_run_in_one(tmp_path, grid):
    ranks = GridShape.parse(grid).num_trainers + 1
    run_script(["mpiexec", "-n", f"{ranks}"], "resume_run.py", tmp_path, grid)
    assert (tmp_path / "equal").exists()


def test_a_run_in_pieces_is_the_run_in_one_without_a_daemon(tmp_path):
    run_script([], "resume_run.py", tmp_path, "1x1x1")
    assert (tmp_path / "equal").exists()


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("grid", ["1x1x1", "2x1x1", "1x2x1"])
def test_a_run_with_co_trained_static_memory_goes_on_bit_for_bit(tmp_path, grid):
    ranks = GridShape.parse(grid).num_trainers + 1
    run_script(["mpiexec", "-n", f"{ranks}"], "resume_run.py", tmp_path, grid, "co-trained")
    assert (tmp_path / "equal").exists()


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_another_grid_goes_on_from_the_last_sweeps_end(tmp_path):
    said = run_script(["mpiexec", "-n", "3"], "regrid_run.py", tmp_path)
    assert (tmp_path / "done").exists()
    assert "resuming on 1×2×1 from the end of sweep 2 (step 14), trained on 1×1×1" in said
    assert "Not carried over: the replicas' memory" in said
