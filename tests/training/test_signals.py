"""Signals that ask a job to stop, sent to any of its processes."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from command_line import DISTTGL
from run_helpers import make_store, small_options
from watched_job import LONG_S, WatchedJob, needs_proc, wait_for

from disttgl_hpc.grid import job as signals
from disttgl_hpc.grid.job import STOP_SIGNALS, StopRequest, stop_signals
from disttgl_hpc.training.run_directory import RunDirectory

pytestmark = pytest.mark.slow

LAUNCHER = -1


@needs_proc
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize(
    ("number", "target"),
    [
        (signal.SIGUSR1, 1),
        (signal.SIGTERM, 2),
        (signal.SIGINT, 0),
        (signal.SIGTERM, LAUNCHER),
        (signal.SIGINT, LAUNCHER),
    ],
)
def test_a_signal_to_any_process_ends_the_job_after_a_checkpoint(tmp_path, number, target):
    store, run = make_store(tmp_path), RunDirectory(tmp_path / "run")
    options = ["--run", run.path, "--grid", "1x2x1", *small_options(epochs=10**5)]
    with WatchedJob(["mpiexec", "-n", 3, *DISTTGL, "train", store.path, *options], tmp_path) as job:
        assert wait_for(
            lambda: run.metrics_file.exists() and '"sweep"' in run.metrics_file.read_text(), LONG_S
        ), job.output
        os.kill(job.launcher if target == LAUNCHER else job.roster()[target][1], number)
        assert wait_for(lambda: not job.processes(), LONG_S), job.output
        assert job.wait(LONG_S) == 75
        assert f"disttgl train --resume {run.path}" in job.output
        assert "Traceback" not in job.output
    assert run.whole_checkpoints


@needs_proc
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_ranks_that_lose_their_launcher_stop_after_a_checkpoint(tmp_path):
    store, run = make_store(tmp_path), RunDirectory(tmp_path / "run")
    options = ["--run", run.path, *small_options(epochs=10**5)]
    with WatchedJob(["mpiexec", "-n", 2, *DISTTGL, "train", store.path, *options], tmp_path) as job:
        assert wait_for(
            lambda: run.metrics_file.exists() and '"sweep"' in run.metrics_file.read_text(), LONG_S
        ), job.output
        before = run.whole_checkpoints[-1]
        proxy = parent_of(parent_of(job.roster()[0][1]))
        assert proxy != job.launcher
        os.kill(proxy, signal.SIGKILL)
        assert wait_for(lambda: not job.processes(), LONG_S), job.output
    assert run.whole_checkpoints[-1].name > before.name


def parent_of(pid):
    return int(re.search(r"PPid:\s(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_are_asked_for_only_while_training(number):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert not stop.is_made()
        os.kill(os.getpid(), number)
        assert stop.is_made()
    assert signal.getsignal(number) is before


def test_a_second_interruption_ends_at_once(monkeypatch):
    stop, clock = StopRequest(), iter([10.0, 10.2, 11.0])
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(clock))
    stop.make(signal.SIGINT)
    stop.make(signal.SIGINT)  # the same key press, by way of the launcher
    with pytest.raises(KeyboardInterrupt):
        stop.make(signal.SIGINT)


def test_any_number_of_other_signals_is_one_request():
    stop = StopRequest()
    for _ in range(3):
        stop.make(signal.SIGTERM)
        stop.make(signal.SIGUSR1)
    assert stop.is_made()
