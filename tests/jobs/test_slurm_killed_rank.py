"""A rank killed on the second of two Slurm nodes: the job ends on both, and says which rank it was."""

import os
import signal
import sys
from pathlib import Path

from test_slurm_local import JOBS, RUN, needs_slurm
from watched_job import WatchedJob, wait_for

EVENTS = "user,item,when\n" + "".join(f"{e * 7 % 11},{e * 5 % 8},{e}\n" for e in range(200))
SMALL = (
    "--epochs 100000 --grid 1x1x2 --local-batch 30 --dim-memory 8 --dim-time 6 --dim-embedding 8 "
    "--num-neighbors 4 --evaluation-batch 20 --evaluation-negatives 4"
)


@needs_slurm
def test_a_rank_killed_on_one_node_ends_the_job_on_both(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    store, metrics = tmp_path / "my.events.h5", tmp_path / "run" / "metrics.jsonl"
    columns = ["--columns", "src=user,dst=item,time=when", "--bipartite"]
    prepare = [sys.executable, "-m", "disttgl_hpc", "prepare", tmp_path / "events.csv", store, *columns]
    with WatchedJob(prepare, tmp_path) as job:
        assert job.wait(60) == 0, job.output

    settings = {"DISTTGL_VENV": f"{Path(sys.executable).parents[1]}", "EVENTS": f"{store}"}
    command = ["bash", RUN, JOBS / "train.sbatch", *SMALL.split()]
    with WatchedJob(command, tmp_path, **settings, RUN=f"{metrics.parent}") as job:
        assert wait_for(lambda: metrics.exists() and '"sweep"' in metrics.read_text(), 90), job.output
        assert wait_for(lambda: len(job.roster()) == 4, 5), job.output  # printed, and on its way to us
        roster, files = job.roster(), job.shared_files()
        ranks = [pid for _, pid in roster.values()]
        role, victim = roster[2]
        assert role == "trainer of replica 1, lane 0, slice 0"
        os.kill(victim, signal.SIGKILL)

        assert wait_for(lambda: not set(ranks) & set(job.processes()), 10), job.output
        assert wait_for(lambda: not job.processes(), 60), "the Slurm itself, too"
        assert job.wait(1) != 0
        assert "error: n1: task 2: Killed" in job.output
        assert not [file for file in files if file.exists()]
