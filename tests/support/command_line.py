"""``disttgl`` as a user types it: a process of its own, alone or under mpiexec."""

import shutil
import subprocess
import sys

import pytest

DISTTGL = [sys.executable, "-m", "disttgl_hpc"]
needs_mpi = pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")


def disttgl(*arguments, ranks=0, check=True):
    """Run the command, under mpiexec if ``ranks`` is given."""
    launcher = ["timeout", "100", *(["mpiexec", "-n", f"{ranks}"] if ranks else [])]
    command = [*launcher, *DISTTGL, *(str(word) for word in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
