#!/bin/bash
# How training scales over trainers, on this machine or in a Slurm job; README.md beside it says what is measured.
#
#   bash jobs/benchmarks/scaling.sh EVENTS.events.h5 [OPTIONS OF disttgl bench scaling]
#   sbatch --nodes=2 --ntasks-per-node=3 jobs/benchmarks/scaling.sh EVENTS.events.h5 --grids 1x1x1,1x1x2,1x1x4
#
# Give it the machine for itself: nothing else may run beside it, or the figures are those of both. Takes some
# 10 minutes with the grids below. Figures go to runs/scaling.json, a table to the terminal; options given to this
# script come last and win.
#
#   DISTTGL_VENV=PATH   the environment with disttgl (default .venv, which jobs/demo.sh makes)
#   RANKS=9             ranks to start outside Slurm: trainers of the largest grid, and a daemon
#
#SBATCH --job-name=scaling
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=scaling-%j.log
set -euo pipefail

(($# > 0)) || { printf 'no events: bash jobs/benchmarks/scaling.sh EVENTS.events.h5 [OPTIONS]\n' >&2 && exit 2; }
export PATH=${DISTTGL_VENV:-$PWD/.venv}/bin:$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of each trainer, and --threads below

launcher=(mpiexec -n "${RANKS:-9}")
[[ -z ${SLURM_JOB_ID:-} ]] ||
    launcher=(srun --mpi="${PMI:-pmi2}" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1)

# Whole sweeps cost the same for every grid, wherever its replicas start: 184 batches of 600 events are one sweep
# over the 110,231 training events of the stream that the README's table was measured with.
measuring=(
    --grids '1x1x1,1x1x2,2x1x1,1x2x1,1x1x4,1x1x8'
    --threads "$OMP_NUM_THREADS"
    --steps 184
    --warmup 20
    --rounds 3
    --json runs/scaling.json
)

mkdir -p runs
printf 'load before the start: %s\n' "$(uptime | sed 's/.*load averages\{0,1\}: //')"
exec "${launcher[@]}" disttgl bench scaling "${measuring[@]}" "$@"
