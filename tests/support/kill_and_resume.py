"""Kills a random rank of small runs at random moments and resumes them, again and again; compares the ends.

    python tests/support/kill_and_resume.py [--kills 50] [--seed 0]      # prints a table; a quarter of an hour

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

from command_line import DISTTGL  # noqa: E402
from run_helpers import make_store, small_options  # noqa: E402
from run_records import records  # noqa: E402
from stored_states import assert_same_state  # noqa: E402
from watched_job import WatchedJob, wait_for  # noqa: E402

from disttgl_hpc.grid.schedule import GridShape  # noqa: E402
from disttgl_hpc.training.run_directory import RunDirectory  # noqa: E402

OPTIONS = ["--checkpoint-steps", 5]
SWEEPS = 30


def command(grid, with_daemon=True):
    """The command line of a grid, up to ``train``, and its options."""
    shape = GridShape.parse(grid)
    launcher = ["mpiexec", "-n", shape.num_trainers + 1] if with_daemon else []
    epochs = SWEEPS * shape.epoch * shape.memory
    return [*launcher, *DISTTGL, "train"], ["--grid", grid, *small_options(epochs=epochs), *OPTIONS]


def undisturbed(folder, store, grid, with_daemon=True):
    """A run that is left alone."""
    folder.mkdir()
    train, options = command(grid, with_daemon)
    run = RunDirectory(folder / "whole")
    with WatchedJob([*train, store.path, "--run", run.path, *options], folder) as job:
        assert job.wait(300) == 0, job.output
    return run


def killed_and_resumed(folder, store, grid, kills, draws, with_daemon=True):
    """A run that is killed so many times, then finished; (rank, role, sweeps by then, checkpoint) of each kill."""
    train, options = command(grid, with_daemon)
    folder.mkdir()
    run, told = RunDirectory(folder / "run"), []
    while len(told) < kills:
        with WatchedJob([*train, *place_of(run, store, options)], folder) as job:
            assert wait_for(job.roster, 100), job.output
            sweeps = len(run.records()) + draws.randrange(2 * SWEEPS // (kills + 2))
            files = job.shared_files()
            reaches(run, job, min(sweeps, SWEEPS - 8))  # not so late that the job may end first
            time.sleep(draws.uniform(0, 0.3))
            rank, (role, pid) = draws.choice(sorted(job.roster().items()))
            os.kill(pid, signal.SIGKILL)
            assert wait_for(lambda: not job.processes(), 20), f"orphans: {job.output}"
            assert not [file for file in files if file.exists()]
        newest = run.whole_checkpoints[-1].name if run.whole_checkpoints else "none"
        told.append((rank, role, len(run.records()), newest))
    with WatchedJob([*train, *place_of(run, store, options)], folder) as job:
        assert job.wait(300) == 0, job.output
    return run, told


def place_of(run, store, options):
    """The words with which a run begins or goes on."""
    return ["--resume", run.path] if run.config_file.exists() else [store.path, "--run", run.path, *options]


def reaches(run, job, sweeps):
    """Wait for so many sweeps."""
    assert wait_for(lambda: len(run.records()) >= sweeps, 300), job.output


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
    tell(f"kill  grid   {'killed rank':45} sweeps  newest checkpoint  end")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder)
        wholes = [undisturbed(folder / f"whole-{i}", store, *case) for i, case in enumerate(cases)]
        for number in range(-(-given.kills // per_run)):
            grid, with_daemon = cases[number % len(cases)]
            whole = wholes[number % len(cases)]
            kills = min(per_run, given.kills - done)
            place = folder / f"run-{number}"
            run, told = killed_and_resumed(place, store, grid, kills, draws, with_daemon)
            assert_equal(run, whole)
            for rank, role, sweeps, newest in told:
                done += 1
                who = f"{rank}: {role}"
                tell(f"{done:4}  {grid:5}  {who:45} {sweeps:6}  {newest:17}  equal")


if __name__ == "__main__":
    main()
