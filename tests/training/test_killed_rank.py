"""A job one of whose ranks is killed: it ends, all of it, says who it was, and leaves nothing behind."""

import os
import re
import shutil
import signal

import pytest
from command_line import DISTTGL
from run_helpers import make_store, small_options
from watched_job import LONG_S, WatchedJob, needs_proc, wait_for

pytestmark = [
    pytest.mark.slow,
    needs_proc,
    pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher"),
]


def last_words(job):
    """(rank, process) of those that are said to have been killed."""
    found = re.findall(r"rank (\d+), process (\d+) on .*, died of SIGKILL", job.output)
    return [(int(rank), int(pid)) for rank, pid in found]


def assert_all_ends(job, files):
    """No process is left, the launcher has failed, and the files are gone."""
    assert wait_for(lambda: not job.processes(), LONG_S), job.output
    assert job.wait(LONG_S) != 0
    assert not [file for file in files if file.exists()]


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["first-trainer", "second-trainer", "daemon"])
def test_a_killed_rank_ends_the_training_and_is_named(tmp_path, victim):
    store, metrics = make_store(tmp_path), tmp_path / "run" / "metrics.jsonl"
    options = ["--run", metrics.parent, "--grid", "1x1x2", *small_options(epochs=10**5)]
    with WatchedJob(["mpiexec", "-n", 3, *DISTTGL, "train", store.path, *options], tmp_path) as job:
        assert wait_for(lambda: metrics.exists() and '"sweep"' in metrics.read_text(), LONG_S), job.output
        roster, files = job.roster(), job.shared_files()
        assert sorted(roster) == [0, 1, 2]
        assert any("mpi" in file.name for file in files)
        _, pid = roster[victim]
        os.kill(pid, signal.SIGKILL)
        assert_all_ends(job, files)
        assert last_words(job)[:1] == [(victim, pid)]


def test_a_rank_killed_in_an_evaluation_leaves_nothing(tmp_path):
    store, run = make_store(tmp_path, num_events=6000), tmp_path / "run"
    with WatchedJob(
        [*DISTTGL, "train", store.path, "--run", run, *small_options(epochs=1, local_batch=1000)], tmp_path
    ) as job:
        assert job.wait(LONG_S) == 0, job.output
    with WatchedJob(["mpiexec", "-n", 2, *DISTTGL, "evaluate", run], tmp_path) as job:
        # Torch comes with the command, later than what all commands begin with.
        assert wait_for(lambda: len(job.processes(mapping="libtorch")) == 2, LONG_S), job.output
        files = job.shared_files()
        assert any("mpi" in file.name for file in files)
        assert wait_for(lambda: len(job.roster()) == 2, LONG_S), job.output
        _, pid = job.roster()[1]
        os.kill(pid, signal.SIGKILL)
        assert_all_ends(job, files)
        assert last_words(job)[:1] == [(1, pid)]
