"""Jobs on a real Slurm of two nodes, brought up on this machine by jobs/slurm-local/run.sh."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from documentation import commands, run_as_printed
from local_slurm import JOBS, RUN, needs_slurm

pytestmark = pytest.mark.slow

DEADLINE_S = 120

# What one rank says: where Slurm put it, and with how many others it shares memory.
RANK = """\
import os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
node = world.Split_type(MPI.COMM_TYPE_SHARED)
total = world.allreduce(world.rank)
place = os.environ["SLURMD_NODENAME"]
print("rank", world.rank, "of", world.size, place, node.size, total, *sys.argv[1:], flush=True)
"""


def run_job(
    *arguments: str | Path, seconds: int = DEADLINE_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """One job, from the Slurm's start to its end; SIGTERM to all of it after so many seconds."""
    return subprocess.run(
        ["timeout", str(seconds), "bash", RUN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def configuration_of(output: str) -> Path:
    """The SLURM_CONF that the job printed: it lies in the temporary folder."""
    (line,) = (line for line in output.splitlines() if line.startswith("configuration "))
    return Path(line.split()[1])


def processes_of(configuration: Path) -> list[str]:
    """Daemons and jobs of this Slurm: all have the path of its configuration in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile, or is not ours to read
            continue
        if str(configuration).encode() in environment:
            found.append(f"{process.name}: {command.decode(errors='replace')}")
    return found


def assert_nothing_is_left(configuration: Path) -> None:
    """Neither a process nor the temporary folder."""
    assert processes_of(configuration) == []
    assert not configuration.parent.exists()


@needs_slurm
def test_job_spans_two_nodes_and_its_status_comes_back(tmp_path: Path) -> None:
    rank = tmp_path / "rank.py"
    rank.write_text(RANK)
    job = tmp_path / "hello.sbatch"
    job.write_text(
        "#!/bin/bash\n"
        "#SBATCH --nodes=2 --ntasks-per-node=2\n"
        "echo configuration $SLURM_CONF\n"
        f'srun --mpi=pmi2 {sys.executable} {rank} "$@"\n'
        "exit 7\n"
    )

    done = run_job(job, "first", "second")

    assert done.returncode == 7, done.stderr
    ranks = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert ranks == [
        "rank 0 of 4 n0 2 6 first second",
        "rank 1 of 4 n0 2 6 first second",
        "rank 2 of 4 n1 2 6 first second",
        "rank 3 of 4 n1 2 6 first second",
    ]
    assert_nothing_is_left(configuration_of(done.stdout))


@needs_slurm
def test_interrupted_job_leaves_nothing(tmp_path: Path) -> None:
    job = tmp_path / "long.sbatch"
    job.write_text(
        "#!/bin/bash\n"
        "#SBATCH --nodes=2 --ntasks-per-node=1\n"
        "echo configuration $SLURM_CONF\n"
        "srun bash -c 'echo running; exec sleep 600'\n"
    )
    with subprocess.Popen(
        ["timeout", str(DEADLINE_S), "bash", RUN, job], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]  # both ranks are there
        configuration = configuration_of("".join(lines))
        assert len(processes_of(configuration)) >= 5  # three daemons, two ranks

        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        running.wait(DEADLINE_S)

    assert time.monotonic() - started < 30
    assert_nothing_is_left(configuration)


@needs_slurm
def test_train_sbatch_starts_every_rank_with_its_arguments(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "disttgl"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{RANK}")
    program.chmod(0o755)

    done = run_job(
        "--ntasks-per-node=3",
        JOBS / "train.sbatch",
        "--grid",
        "2x1x2",
        DISTTGL_VENV=str(tmp_path),
        EVENTS="my.events.h5",
        RUN="runs/mine",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [line for line in done.stdout.splitlines() if line.startswith("rank")]
    assert len(ranks) == 6
    for line in ranks:
        _, _, _, size, node, node_size, _, *arguments = line.split()
        assert (size, node_size) == ("6", "3")
        assert node in {"n0", "n1"}
        assert arguments[:4] == ["train", "my.events.h5", "--run", "runs/mine"]
        assert arguments[-2:] == ["--grid", "2x1x2"]


@needs_slurm
@pytest.mark.timeout(400)
def test_a_csv_becomes_a_job_on_two_nodes_and_then_embeddings(tmp_path: Path) -> None:
    """The README's own lines, from a csv through a Slurm job to what is asked of its run."""
    (tmp_path / "jobs").symlink_to(JOBS)
    begin = (
        "disttgl generate loans",
        "disttgl prepare loans",
        "EVENTS=loans.events.h5 bash jobs/slurm-local/run.sh",
    )
    lines = [line for line in commands("README.md") if line.startswith(begin)]
    assert len(lines) == 3
    run_as_printed(
        [*lines, "disttgl embed runs/job readers.h5 --of sources", "disttgl report runs/job"],
        tmp_path,
        DISTTGL_VENV=f"{Path(sys.executable).parents[1]}",
        RUN="runs/job",
    )
    with h5py.File(tmp_path / "readers.h5") as embeddings:
        assert embeddings["embedding"].shape == (500, 100)
    assert (tmp_path / "runs" / "job" / "report.html").is_file()


def test_without_a_job_it_says_how_to_use_it() -> None:
    done = run_job()
    assert done.returncode == 1
    assert "SBATCH_FILE" in done.stderr
