"""The Slurm of two nodes that jobs/slurm-local/run.sh starts on this machine."""

import os
import shutil
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"
RUN = JOBS / "slurm-local" / "run.sh"

needs_slurm = pytest.mark.skipif(
    any(
        shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None
        for program in ("slurmctld", "slurmd", "sbatch", "srun", "munged")
    ),
    reason="needs Debian's slurmctld, slurmd, slurm-client and munge",
)
