"""``jobs/train.sbatch`` on two nodes, told that its time is up: it requeues itself and ends as one long job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_records import records
from stored_states import assert_same_state
from test_slurm_local import JOBS, RUN, needs_slurm
from test_slurm_training import RATINGS
from watched_job import WatchedJob, wait_for

from disttgl_hpc.runs.directory import RunDirectory

DISTTGL = [sys.executable, "-m", "disttgl_hpc"]
SMALL = (
    "--epochs 40 --grid 1x1x2 --local-batch 30 --dim-memory 8 --dim-time 6 --dim-embedding 8 "
    "--num-neighbors 4 --evaluation-batch 20 --evaluation-negatives 4"
)


@needs_slurm
@pytest.mark.timeout(400)
def test_a_job_out_of_time_requeues_itself_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(RATINGS)
    events, whole, requeued = tmp_path / "my.events.h5", tmp_path / "whole", tmp_path / "requeued"
    columns = ["--columns", "src=user,dst=item,time=when", "--bipartite"]
    subprocess.run([*DISTTGL, "prepare", tmp_path / "ratings.csv", events, *columns], check=True)
    one_node = ["timeout", "100", "mpiexec", "-n", "3", *DISTTGL, "train", events, "--run", whole]
    subprocess.run([*one_node, *SMALL.split()], check=True)

    settings = {
        "DISTTGL_VENV": f"{Path(sys.executable).parents[1]}",
        "EVENTS": f"{events}",
        "RUN": f"{requeued}",
    }
    metrics = requeued / "metrics.jsonl"
    with WatchedJob(["bash", RUN, JOBS / "train.sbatch", *SMALL.split()], tmp_path, **settings) as job:
        assert wait_for(lambda: metrics.exists() and '"sweep"' in metrics.read_text(), 100), job.output
        signal_as_slurm_does(job.roster()[0][1])
        assert job.wait(200) == 0, job.output
        assert job.output.count("Stopped after a checkpoint") == 1
        assert job.output.count("going on with step") == 1

    assert records(requeued) == records(whole)
    assert_same_state(RunDirectory(requeued), RunDirectory(whole))


def signal_as_slurm_does(rank: int) -> None:
    """What ``--signal=USR1`` does before a time limit, to the job of which ``rank`` is a process."""
    words = Path(f"/proc/{rank}/environ").read_text().split("\0")
    environment = dict(word.split("=", 1) for word in words if "=" in word)
    known = {"SLURM_CONF": environment["SLURM_CONF"]}
    command = ["scancel", "--signal=USR1", environment["SLURM_JOB_ID"]]
    subprocess.run(command, check=True, env=os.environ | known)
