#!/usr/bin/env bash
# Validation MRR against steps for several grids, at equal total epochs: does a grid learn as one trainer does?
#
#   bash jobs/experiments/convergence.sh EVENTS.events.h5 [TRAINING OPTIONS]
#
# Runs one grid after the other on this machine, each with the ranks it needs, into runs/convergence/GRID, and
# plots runs/convergence/convergence.svg. A run that is there already is kept. README.md beside this file has
# results.
#
#   DISTTGL_VENV=PATH   the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   GRIDS="1x1x1 …"     the grids
set -euo pipefail
(($# > 0)) || { printf 'no events: bash %s EVENTS.events.h5 [TRAINING OPTIONS]\n' "$0" >&2 && exit 2; }
events=$1
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=${DISTTGL_VENV:-$here/../../.venv}/bin:$PATH
export OMP_NUM_THREADS=1

runs=()
for grid in ${GRIDS:-1x1x1 1x2x1 1x1x2 2x1x1 1x1x4}; do
    run=runs/convergence/$grid
    IFS=x read -r i j k <<<"$grid"
    [[ -s $run/metrics.jsonl ]] ||
        mpiexec -n $((i * j * k + 1)) disttgl train "$events" --run "$run" --grid "$grid" --epochs 16 "$@"
    runs+=("$run")
done
python "$here/plot_convergence.py" runs/convergence/convergence.svg "${runs[@]}"
