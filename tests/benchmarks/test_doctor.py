"""``disttgl doctor`` alone and under mpiexec, on a healthy machine and for jobs that would fail."""

import os
import subprocess
import sys

import h5py
import pytest
from click.testing import CliRunner
from command_line import needs_mpi
from run_helpers import make_store

from disttgl_hpc.cli.doctor import doctor as command


def doctor(*arguments, **environment):
    """Run it in this process: exit status and what it printed."""
    for name in ("PMI_SIZE", "SLURM_STEP_ID"):
        environment.setdefault(name, None)
    done = CliRunner(env=environment).invoke(command, [str(word) for word in arguments])
    return done.exit_code, done.output


def doctor_of_ranks(*arguments):
    """Run it on three ranks."""
    launched = ["timeout", "100", "mpiexec", "-n", "3", sys.executable, "-m", "disttgl_hpc", "doctor"]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [str(word) for word in arguments]
    return subprocess.run([*launched, *words], capture_output=True, text=True, check=False, env=settings)


def test_a_machine_is_fit_for_one_process(tmp_path):
    store = make_store(tmp_path)
    status, told = doctor(store.path, "--run", tmp_path / "runs" / "x")
    assert status == 0, told
    assert "The job can start" in told
    assert "FAILS" not in told
    assert store.checksum[:16] in told
    assert {path.name for path in tmp_path.iterdir()} == {store.path.name}


@pytest.mark.parametrize(
    ("change", "settings", "reason"),
    [
        (("tcsr/neighbors", 5, 10**6), [], "tcsr/neighbors: ids of nodes"),
        (("tcsr/indptr", 5, 10**6), ["--grid", "auto"], "tcsr/indptr: positions"),
        (None, ["--task", "edge"], "holds no classes"),
        (None, ["--static", "gone.static.h5"], "gone.static.h5: no such file"),
        (None, ["--evaluation-strategy", "given"], "negatives that came with the events"),
    ],
)
def test_events_that_training_refuses_are_found(tmp_path, change, settings, reason):
    store = make_store(tmp_path)
    if change is not None:
        name, at, value = change
        with h5py.File(store.path, "r+") as file:
            file[name][at] = value
    status, told = doctor(store.path, "--run", tmp_path / "runs", *settings)
    assert status == 1, told
    assert reason in " ".join(told.split())


def test_processes_that_each_see_a_world_of_one_report_once(tmp_path):
    launch = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    status, told = doctor("--run", tmp_path, **launch)
    assert status == 1
    assert "mpiexec started 2 processes, MPI has 1 rank" in told
    assert "load one MPI only" in " ".join(told.split())
    assert doctor("--run", tmp_path, **launch | {"OMPI_COMM_WORLD_RANK": "1"}) == (1, "")


@needs_mpi
def test_a_job_that_would_fail_has_every_reason_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = [tmp_path / "no.events.h5", "--grid", "2x2x2", "--run", tmp_path / "file" / "x"]
    done = doctor_of_ranks(*arguments, "--device", "cuda", "--threads", 1000)
    assert done.returncode == 1, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "9 ranks, started were 3 → mpiexec -n 9 disttgl train" in told
    assert "no.events.h5: no such file → check the path" in told
    assert "2 trainers of 1000 threads (ranks 0, 1)" in told
    assert f"{tmp_path / 'file'} cannot be written" in told
    assert "3 of 14" in told or "4 of 14" in told  # where there is a GPU that is no reason
    assert done.stdout.count("The job would fail") == 1
    assert not done.stderr


@needs_mpi
def test_ranks_share_memory_and_see_the_same(tmp_path):
    done = doctor_of_ranks(make_store(tmp_path).path, "--grid", "1x1x2", "--run", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "launcher started 3 processes, MPI has 3 ranks" in done.stdout
    assert "1×1×2: 2 trainers and 1 daemon" in done.stdout
    assert "needed on a node" in done.stdout
