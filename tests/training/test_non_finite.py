"""A NaN or infinite loss in a job of several trainers is reported once, by a trainer that has it."""

import shutil

import pytest
from command_line import DISTTGL
from run_helpers import make_store, small_options
from watched_job import WatchedJob, needs_proc, wait_for

pytestmark = pytest.mark.slow


@needs_proc
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_a_non_finite_loss_is_reported_once_with_rank_and_step(tmp_path):
    store = make_store(tmp_path, dim_edge=2)
    options = ["--run", tmp_path / "run", "--grid", "1x1x2", "--lr", 1e30, *small_options()]
    with WatchedJob(["mpiexec", "-n", 3, *DISTTGL, "train", store.path, *options], tmp_path) as job:
        assert wait_for(lambda: "Error:" in job.output, 100), job.output
        assert wait_for(lambda: not job.processes(), 10), job.output
        assert job.wait(1) not in {0, 75}
        (line,) = [line for line in job.output.splitlines() if line.startswith("Error:")]
        assert "Error: rank " in line
        assert "finite" in line or "loss is" in line
        assert "in step " in line
        assert "there is no checkpoint yet" in line
        assert "Traceback" not in job.output
