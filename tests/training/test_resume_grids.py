"""Jobs of a step each make the run that one long job makes, bit for bit, on any grid."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import assert_equal, start
from mpi4py import MPI
from resume_run import compare

pytestmark = pytest.mark.slow

needs_mpi = pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
CASES = {
    "links": ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "1x2x2", "2x2x2"],
    "co-trained": [f"{grid}:co-trained" for grid in ("1x1x1", "2x1x1", "1x2x1")],
}


@needs_mpi
@pytest.mark.parametrize("learned", CASES)
def test_runs_in_pieces_are_the_runs_in_one(tmp_path, learned):
    cases = CASES[learned]
    assert_equal(start("resume_run.py", tmp_path, cases), tmp_path, cases)


def test_a_run_in_pieces_is_the_run_in_one_without_a_daemon(tmp_path):
    compare(MPI.COMM_SELF, tmp_path, "1x1x1", "")


@needs_mpi
def test_another_grid_goes_on_from_the_last_sweeps_end(tmp_path):
    script = Path(__file__).parents[1] / "support" / "regrid_run.py"
    command = ["timeout", "200", "mpiexec", "-n", "3", sys.executable, "-m", "mpi4py", script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "done").exists()
    assert "resuming on 1×2×1 from the end of sweep 2 (step 14), trained on 1×1×1" in done.stderr
    assert "Not kept: the replicas' memory" in done.stderr
