#!/usr/bin/env bash
# Validation MRR against steps for several grids, at equal total epochs: does a grid learn as one trainer does?
#
#   bash jobs/experiments/convergence.sh EVENTS.events.h5 [TRAINING OPTIONS]
#
# Runs one grid after the other on this machine, each with the ranks it needs, into runs/convergence/NAME/GRID-sSEED, and
# leaves table.txt and convergence.svg beside them. The first grid is what the others are compared with. A run that is there
# already is kept, one that was stopped goes on; one of other events or options ends the script. README.md has results.
#
#   DISTTGL_VENV=PATH   the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   GRIDS="1x1x1 …"     the grids
#   SEEDS="0"           one run of every grid for each
set -euo pipefail
# shellcheck source=jobs/experiments/training.sh
source "$(dirname "${BASH_SOURCE[0]}")/training.sh"
(($# > 0)) || { printf 'no events: bash %s EVENTS.events.h5 [TRAINING OPTIONS]\n' "$0" >&2 && exit 2; }
events=$1
shift
name=$(basename "$events")
out=runs/convergence/${name%%.*}
runs=()
for seed in ${SEEDS:-0}; do
    for grid in ${GRIDS:-1x1x1 1x2x1 1x1x2 2x1x1 1x1x4}; do
        run=$out/$grid-s$seed
        IFS=x read -r i j k <<<"$grid"
        train "$run" $((i * j * k + 1)) "$events" --grid "$grid" --seed "$seed" --epochs 16 "$@"
        runs+=("$run")
    done
done
python "$here/plot_convergence.py" "$out" "${runs[@]}" | tee "$out/table.txt"
