"""Checkpoints that cannot be written, or not to their end: what was there before stays as it is."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import DISTTGL
from run_helpers import make_store, small_options
from watched_job import WatchedJob, needs_proc, wait_for

from disttgl_hpc.training.checkpoints import newest_whole
from disttgl_hpc.training.run_directory import RunDirectory

pytestmark = pytest.mark.slow


def test_a_kill_at_any_operation_leaves_a_whole_checkpoint(tmp_path):
    script = Path(__file__).parents[1] / "support" / "checkpoint_kills.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "kills").read_text()) > 100


@needs_proc
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_full_disk_ends_the_job_and_leaves_the_checkpoint_before(tmp_path, ranks):
    """The disk is full for one process: the kernel refuses to let its files grow."""
    store, run = make_store(tmp_path), RunDirectory(tmp_path / "run")
    options = ["--run", run.path, *small_options(epochs=10**5)]
    with WatchedJob(["mpiexec", "-n", ranks, *DISTTGL, "train", store.path, *options], tmp_path) as job:
        assert wait_for(lambda: len(run.whole_checkpoints) > 1, 100), job.output
        _, writer = job.roster()[ranks - 1]
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (30_000, 30_000))
        assert wait_for(lambda: not job.processes(), 30), job.output
        assert job.wait(1) not in {0, 75}
        assert "cannot be written (File too large)" in job.output
        assert "free disk space" in job.output
        assert job.output.count("Error:") == 1
        assert "Traceback" not in job.output
    newest = newest_whole(run, f"1x1x{max(1, ranks - 1)}")
    assert newest.folder == run.whole_checkpoints[-1]
