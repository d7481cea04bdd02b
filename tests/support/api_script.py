"""What a user may write, started alone or under mpiexec: python -m mpi4py api_script.py EVENTS RUN OUT.npz"""

import sys

import numpy as np
from mpi4py import MPI
from run_helpers import SMALL

import disttgl_hpc

events, path, output = sys.argv[1:]
run = disttgl_hpc.train(events, {**SMALL, "epochs": 1}, path, comm=MPI.COMM_WORLD)
if MPI.COMM_WORLD.rank == 0:
    found = run.embed()
    best = run.recommend([0, 1], top=3, exclude_seen=True)
    np.savez(output, ids=found.ids, rows=found.rows, dst=best.dst, logit=best.logit)
