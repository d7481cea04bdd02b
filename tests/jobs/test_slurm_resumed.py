"""``jobs/train.sbatch`` on two nodes: out of time, or a rank killed, and gone on with."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import DISTTGL
from local_slurm import JOBS, RUN, needs_slurm
from run_records import records
from stored_states import assert_same_state
from watched_job import WatchedJob, wait_for

from disttgl_hpc.training.run_directory import RunDirectory

RATINGS = "user,item,when\n" + "".join(f"{e * 7 % 11},{e * 5 % 8},{e}\n" for e in range(200))
SMALL_TEXT = (
    "--epochs 60 --grid 1x1x2 --local-batch 30 --dim-memory 8 --dim-time 6 --dim-embedding 8 "
    "--num-neighbors 4 --evaluation-batch 20 --evaluation-negatives 4"
)
SMALL = SMALL_TEXT.split()
BATCH_JOB = ["bash", RUN, JOBS / "train.sbatch", *SMALL]

pytestmark = [
    pytest.mark.slow,
    needs_slurm,
    pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small event store."""
    folder = tmp_path_factory.mktemp("events")
    (folder / "ratings.csv").write_text(RATINGS)
    columns = ["--columns", "src=user,dst=item,time=when", "--bipartite"]
    subprocess.run(
        [*DISTTGL, "prepare", folder / "ratings.csv", folder / "my.events.h5", *columns], check=True
    )
    return folder / "my.events.h5"


@pytest.fixture(scope="module")
def whole(events: Path) -> RunDirectory:
    """The run in one piece, on one node."""
    path = events.with_name("whole")
    one_node = ["timeout", "100", "mpiexec", "-n", "3", *DISTTGL, "train", events, "--run", path, *SMALL]
    subprocess.run(one_node, check=True)
    return RunDirectory(path)


def settings(events: Path, run: RunDirectory) -> dict[str, str]:
    """What the batch job reads from its environment."""
    return {"DISTTGL_VENV": f"{Path(sys.executable).parents[1]}", "EVENTS": f"{events}", "RUN": f"{run.path}"}


def has_finished_a_sweep(run: RunDirectory) -> bool:
    return run.metrics_file.exists() and '"sweep"' in run.metrics_file.read_text()


def assert_equal(run: RunDirectory, whole: RunDirectory) -> None:
    """Same records, same state."""
    assert records(run.path) == records(whole.path)
    assert_same_state(run, whole)


def test_a_job_out_of_time_requeues_itself_and_resumes(
    tmp_path: Path, events: Path, whole: RunDirectory
) -> None:
    run = RunDirectory(tmp_path / "run")
    with WatchedJob(BATCH_JOB, tmp_path, **settings(events, run)) as job:
        assert wait_for(lambda: has_finished_a_sweep(run), 100), job.output
        signal_as_slurm_does(job.roster()[0][1])
        assert job.wait(200) == 0, job.output
        assert job.output.count("Stopped after a checkpoint") == 1
        assert job.output.count("continuing with step") == 1
    assert_equal(run, whole)


def test_a_rank_killed_on_one_node_ends_the_job_on_both_and_the_next_one_goes_on(
    tmp_path: Path, events: Path, whole: RunDirectory
) -> None:
    run = RunDirectory(tmp_path / "run")
    with WatchedJob(BATCH_JOB, tmp_path, **settings(events, run)) as job:
        assert wait_for(lambda: has_finished_a_sweep(run), 100), job.output
        assert wait_for(lambda: len(job.roster()) == 4, 5), job.output  # printed, and on its way to us
        roster, files = job.roster(), job.shared_files()
        ranks = [pid for _, pid in roster.values()]
        assert [roster[rank][0] for rank in (2, 3)] == [
            "trainer of replica 1, lane 0, slice 0",
            "daemon of node 1",
        ]
        os.kill(roster[2][1], signal.SIGKILL)

        assert wait_for(lambda: not set(ranks) & set(job.processes()), 10), job.output
        assert wait_for(lambda: not job.processes(), 60), "the Slurm itself, too"
        assert job.wait(1) != 0
        assert f"rank 2, process {roster[2][1]} " in job.output, job.output
        assert not [file for file in files if file.exists()]
    assert not any(record["record"] == "test" for record in run.records())
    with WatchedJob(BATCH_JOB, tmp_path, **settings(events, run)) as job:
        assert job.wait(200) == 0, job.output
        assert "resuming from the checkpoint before step" in job.output
    assert_equal(run, whole)


def signal_as_slurm_does(rank: int) -> None:
    """What ``--signal=USR1`` does before a time limit, to the job of which ``rank`` is a process."""
    words = Path(f"/proc/{rank}/environ").read_text().split("\0")
    environment = dict(word.split("=", 1) for word in words if "=" in word)
    known = {"SLURM_CONF": environment["SLURM_CONF"]}
    command = ["scancel", "--signal=USR1", environment["SLURM_JOB_ID"]]
    subprocess.run(command, check=True, env=os.environ | known)
