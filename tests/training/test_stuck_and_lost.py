"""What never answers again ends a job in bounded time: a daemon that is stopped, an input cut short under it."""

import os
import re
import shutil
import signal

import pytest
from command_line import DISTTGL
from run_helpers import make_store, small_options
from watched_job import LONG_S, WatchedJob, needs_proc, wait_for

from disttgl_hpc.store.checkpoint_files import read_manifest, verify_parts
from disttgl_hpc.training.run_directory import RunDirectory

pytestmark = [
    pytest.mark.slow,
    needs_proc,
    pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher"),
]

TIMEOUT_S = 15  # the trainer loads for some seconds before it asks for anything


def begin(folder, store, run, *options):
    """A trainer and a daemon at work."""
    words = ["--run", run.path, *small_options(epochs=10**5), *options]
    return WatchedJob(["mpiexec", "-n", 2, *DISTTGL, "train", store.path, *words], folder)


def has_begun(run, job):
    """Whether a sweep has been finished, while the job lives."""
    assert job.processes(), job.output
    return run.metrics_file.exists() and '"sweep"' in run.metrics_file.read_text()


def assert_ended(job, run, files):
    """No process is left, nothing in shared memory, and the last checkpoint is whole."""
    assert wait_for(lambda: not job.processes(), LONG_S), job.output
    assert job.wait(LONG_S) not in {0, 75}
    assert not [file for file in files if file.exists()]
    verify_parts(read_manifest(run.whole_checkpoints[-1]))


def test_a_daemon_that_no_longer_answers_ends_the_job_after_its_timeout(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with begin(tmp_path, make_store(tmp_path), run, "--timeout-s", TIMEOUT_S) as job:
        assert wait_for(lambda: has_begun(run, job), LONG_S), job.output
        files, (role, daemon) = job.shared_files(), job.roster()[1]
        assert role == "daemon of node 0"
        os.kill(daemon, signal.SIGSTOP)
        assert_ended(job, run, files)
        assert "Error: rank 0 of 2" in job.output
        assert f"waited {TIMEOUT_S} s for the " in job.output
        assert "allow more time with --timeout-s" in job.output


def test_events_cut_short_under_a_job_end_it_with_the_cause(tmp_path):
    run, store = RunDirectory(tmp_path / "run"), make_store(tmp_path, dim_edge=40)
    with begin(tmp_path, store, run) as job:
        assert wait_for(lambda: has_begun(run, job), LONG_S), job.output
        files = job.shared_files()
        os.truncate(store.path, 0)
        assert_ended(job, run, files)
        assert re.search(
            r"rank 0, process \d+ on .*, died of SIGBUS: a mapped file was cut short", job.output
        )
