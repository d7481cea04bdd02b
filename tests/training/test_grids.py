"""Runs of whole grids under mpiexec, more ranks than cores, against the emulation in one process."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disttgl_hpc.grid.schedule import GridShape

SHAPES = ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "2x2x1", "1x2x2", "2x1x2", "1x4x2", "2x2x2"]

pytestmark = pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")


def start(folder, grid, *others):
    """A run of ``grid`` that compares itself with the emulation and the schedule; others: of grid_run.py."""
    ranks = GridShape.parse(grid).num_trainers + 1
    script = Path(__file__).parents[1] / "support" / "grid_run.py"
    command = ["timeout", "120", "mpiexec", "-n", f"{ranks}", sys.executable, "-m", "mpi4py", script]
    return subprocess.Popen(
        [*command, folder, grid, *others], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def assert_equal(job, folder):
    """The job has ended well, after its comparison."""
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert (folder / "equal").exists()


@pytest.mark.parametrize("grid", SHAPES)
def test_a_grid_trains_as_its_emulation(tmp_path, grid):
    assert_equal(start(tmp_path, grid), tmp_path)


@pytest.mark.parametrize("grid", ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "2x1x2"])
def test_a_co_trained_static_memory_learns_as_in_the_emulation(tmp_path, grid):
    assert_equal(start(tmp_path, grid, "co-trained"), tmp_path)


@pytest.mark.parametrize(
    ("grid", "task"),
    [("1x1x1", "edge"), ("2x1x2", "edge"), ("2x1x1", "link+edge"), ("1x2x1", "link+node"), ("1x1x2", "node")],
)
def test_a_task_with_classes_trains_as_its_emulation(tmp_path, grid, task):
    assert_equal(start(tmp_path, grid, task), tmp_path)


def test_pitfall_9_jobs_on_one_host_do_not_meet(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    jobs = [start(folder, "1x2x1") for folder in folders]
    for job, folder in zip(jobs, folders, strict=True):
        assert_equal(job, folder)
