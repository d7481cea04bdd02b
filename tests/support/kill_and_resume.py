"""Kills a random rank of small runs at random moments and resumes them, again and again; compares the ends.

    python tests/support/kill_and_resume.py [--kills 50] [--seed 0] [--damage]     # a quarter of an hour

Every run is killed several times before it may finish. It must then be equal, to the last bit of weights,
optimiser, memory and metrics, to one that was left alone; no process and no file in /dev/shm may outlive a kill.

With --damage the run directory is damaged after every second kill. The run must then still end as it would have,
or refuse to be resumed in one line; the damage is then undone. No file outside the run directory may change.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from command_line import DISTTGL  # noqa: E402
from run_damages import DAMAGES, contents, make_outside  # noqa: E402
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


@dataclass
class Kill:
    """One kill: its rank and moment, what was damaged after it, and what came of that."""

    rank: int
    role: str
    sweeps: int
    newest: str
    damage: str = ""
    end: str = "equal"


def killed_and_resumed(folder, store, grid, kills, draws, with_daemon=True, *, is_damaged=False):
    """A run that is killed so many times, then finished, and its kills; is_damaged: after every second one."""
    train, options = command(grid, with_daemon)
    folder.mkdir()
    run, told = RunDirectory(folder / "run"), []
    outside, undamaged = folder / "outside", folder / "undamaged"
    make_outside(outside)
    damages = draws.sample(sorted(DAMAGES), len(DAMAGES)) if is_damaged else []
    while True:
        theirs = contents(outside)
        with WatchedJob([*train, *place_of(run, store, options)], folder) as job:
            if len(told) < kills:
                sweeps = count_sweeps(run) + draws.randrange(2 * SWEEPS // (kills + 2))
                reaches(run, job, min(sweeps, SWEEPS - 8))  # not so late that the job may end first
                time.sleep(draws.uniform(0, 0.3))
            else:
                job.wait(300)
            is_killed = not job.has_ended
            if is_killed:
                told.append(kill(run, job, draws))
        assert contents(outside) == theirs, f"{told[-1]}: files outside the run have changed"
        if is_killed:
            if damages and len(told) % 2 and len(run.whole_checkpoints) > 1 and run.best():
                copied(run.path, undamaged)
                told[-1].damage = damages.pop()
                DAMAGES[told[-1].damage](run, outside, draws)
        elif job.wait(0) == 0:
            return run, told
        else:
            damaged = next(one for one in reversed(told) if one.damage)
            damaged.end = refusal(job)
            copied(undamaged, run.path)


def copied(source, target):
    """Make a folder a copy of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def kill(run, job, draws):
    """Kill a random rank of a job; nothing of the job may be left."""
    files = job.shared_files()
    rank, (role, pid) = draws.choice(sorted(job.roster().items()))
    with suppress(ProcessLookupError):  # a job that refuses a damaged run may be about to end
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not job.processes(), 20), f"orphans: {job.output}"
    assert not [file for file in files if file.exists()]
    newest = run.whole_checkpoints[-1].name if run.whole_checkpoints else "none"
    return Kill(rank, role, count_sweeps(run), newest)


def refusal(job):
    """The one line with which a job refused a damaged run."""
    lines = [line for line in job.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, job.output
    assert job.wait(0) in (1, 2), job.output
    assert "Traceback" not in job.output, job.output
    return lines[0]


def place_of(run, store, options):
    """The words with which a run begins or goes on."""
    return ["--resume", run.path] if run.config_file.exists() else [store.path, "--run", run.path, *options]


def reaches(run, job, sweeps):
    """Wait until a job has told its ranks and has done so many sweeps, or has ended."""
    is_there = lambda: job.has_ended or (job.roster() and count_sweeps(run) >= sweeps)  # noqa: E731
    assert wait_for(is_there, 300), job.output


def count_sweeps(run):
    """Number of records, of which there may be none or only parts."""
    return run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.is_file() else 0


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
    parser.add_argument("--damage", action="store_true", help="damage the run after every second kill")
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
            kills = min(per_run, given.kills - done)
            place = folder / f"run-{number}"
            run, told = killed_and_resumed(
                place, store, grid, kills, draws, with_daemon, is_damaged=given.damage
            )
            assert_equal(run, wholes[number % len(cases)])
            for one in told:
                done += 1
                who, end = f"{one.rank}: {one.role}", f"{one.damage}: {one.end}" if one.damage else one.end
                tell(f"{done:4}  {grid:5}  {who:45} {one.sweeps:6}  {one.newest:17}  {end}")


if __name__ == "__main__":
    main()
