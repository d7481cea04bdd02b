"""``jobs/train.sbatch`` with the real program on two nodes, against the same grid on one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_records import records
from test_slurm_local import JOBS, needs_slurm, run_job

RATINGS = "user,item,when\n" + "".join(f"{e * 7 % 11},{e * 5 % 8},{e}\n" for e in range(200))
SMALL = (
    "--epochs 4 --grid 1x1x2 --local-batch 30 --dim-memory 8 --dim-time 6 --dim-embedding 8 "
    "--num-neighbors 4 --evaluation-batch 20 --evaluation-negatives 4"
)


@needs_slurm
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_two_nodes_give_the_numbers_of_one(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(RATINGS)
    events, program = tmp_path / "ratings.events.h5", [sys.executable, "-m", "disttgl_hpc"]
    columns = "src=user,dst=item,time=when"
    subprocess.run(
        [*program, "prepare", tmp_path / "ratings.csv", events, "--columns", columns, "--bipartite"],
        check=True,
    )
    one_node = ["timeout", "100", "mpiexec", "-n", "3", *program, "train", events, "--run", tmp_path / "one"]
    subprocess.run([*one_node, *SMALL.split()], check=True)

    done = run_job(
        JOBS / "train.sbatch",
        *SMALL.split(),
        DISTTGL_VENV=str(Path(sys.executable).parents[1]),
        EVENTS=str(events),
        RUN=str(tmp_path / "two"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "daemon of node 1" in done.stdout + done.stderr  # both nodes took part
    assert records(tmp_path / "two") == records(tmp_path / "one")
