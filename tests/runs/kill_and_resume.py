"""Kills a random rank of small runs at random moments and resumes them, again and again; compares the ends.

    python tests/runs/kill_and_resume.py [--kills 50] [--seed 0]      # prints a table; a quarter of an hour

Every run is killed several times before it may finish. It must then be equal, to the last bit of weights,
optimiser, memory and metrics, to one that was left alone; no process and no file in /dev/shm may outlive a kill.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from run_helpers import make_store, small_options  # noqa: E402
from run_records import records  # noqa: E402
from stored_states import assert_same_state  # noqa: E402
from watched_job import WatchedJob, wait_for  # noqa: E402

from disttgl_hpc.core.schedule import GridShape  # noqa: E402
from disttgl_hpc.runs.directory import RunDirectory  # noqa: E402

DISTTGL = [sys.executable, "-m", "disttgl_hpc"]
OPTIONS = ["--checkpoint-steps", 5]
SWEEPS = 30


def command(grid, with_daemon=True):
    """The command line of a grid, up to ``train``, and its options."""
    shape = GridShape.parse(grid)
    launcher = ["mpiexec", "-n", shape.num_trainers + 1] if with_daemon else []
    epochs = SWEEPS * shape.epoch * shape.memory
    return [*launcher, *DISTTGL, "train"], ["--grid", grid, *small_options(epochs=epochs), *OPTIONS]


def undisturbed(folder, store, grid, with_daemon=True):
    """A run that is left alone, and the seconds that its training took."""
    folder.mkdir()
    train, options = command(grid, with_daemon)
    run = RunDirectory(folder / "whole")
    with WatchedJob([*train, store.path, "--run", run.path, *options], folder) as job:
        assert wait_for(job.roster, 100), job.output
        started_s = time.monotonic()
        assert job.wait(200) == 0, job.output
    return run, time.monotonic() - started_s


def killed_and_resumed(folder, store, grid, seconds, kills, draws, with_daemon=True):
    """A run that is killed so many times, (rank, role, seconds after its start, checkpoint) of each, and finished.

    A job that finishes before its kill counts as none, and its run begins anew.
    """
    train, options = command(grid, with_daemon)
    told, attempt, run = [], 0, None
    while True:
        if run is None:
            attempt += 1
            (folder / f"{attempt}").mkdir(parents=True)
            run, told = RunDirectory(folder / f"{attempt}" / "run"), []
        where = ["--resume", run.path] if run.config_file.exists() else [store.path, "--run", run.path]
        extra = [] if run.config_file.exists() else options
        with WatchedJob([*train, *where, *extra], run.path.parent) as job:
            if len(told) == kills:
                assert job.wait(300) == 0, job.output
                return run, told
            assert wait_for(job.roster, 100), job.output
            moment_s = draws.uniform(0, 2 * seconds / kills)
            files = job.shared_files()
            time.sleep(moment_s)
            rank, (role, pid) = draws.choice(sorted(job.roster().items()))
            if job.processes():
                os.kill(pid, signal.SIGKILL)
            assert wait_for(lambda: not job.processes(), 20), f"orphans: {job.output}"
            assert not [file for file in files if file.exists()]
            if job.wait(1) == 0:
                run = None
                continue
        newest = run.whole_checkpoints[-1].name if run.whole_checkpoints else "none"
        told.append((rank, role, moment_s, newest))


def assert_equal(run, whole):
    """Same records, same state."""
    assert records(run.path) == records(whole.path)
    assert_same_state(run, whole)


def tell(line):
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    """Kill, resume, compare, and tell each kill."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draws, done, per_run = random.Random(given.seed), 0, 5
    cases = [("1x1x1", False), ("1x1x1", True), ("2x1x1", True), ("1x2x2", True)]
    tell("kill  grid   killed rank                                   after  newest checkpoint  end")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder)
        wholes = [undisturbed(folder / f"whole-{i}", store, *case) for i, case in enumerate(cases)]
        for number in range(-(-given.kills // per_run)):
            grid, with_daemon = cases[number % len(cases)]
            whole, seconds = wholes[number % len(cases)]
            kills = min(per_run, given.kills - done)
            place = folder / f"run-{number}"
            run, told = killed_and_resumed(place, store, grid, seconds, kills, draws, with_daemon)
            assert_equal(run, whole)
            for rank, role, moment_s, newest in told:
                done += 1
                who = f"{rank}: {role}"
                tell(f"{done:4}  {grid:5}  {who:45} {moment_s:5.2f} s  {newest:17}  equal")


if __name__ == "__main__":
    main()
