#!/bin/bash
# Throughput of several grids, beside what a model that has seen only one trainer predicts of them, and of up to 4,096.
#
#   bash jobs/experiments/scaling.sh EVENTS.events.h5 [OPTIONS OF disttgl bench scaling]
#   sbatch --nodes=4 --ntasks-per-node=9 jobs/experiments/scaling.sh EVENTS.events.h5 --grids 1x1x1,1x1x8,1x1x16,1x1x32
#
# Give it the machine for itself. Some 10 minutes for 1 to 4 trainers; tables, figures and plot go to runs/scaling/NAME.
# README.md beside this file has results, jobs/benchmarks/README.md says what is measured.
#
#   DISTTGL_VENV=PATH   the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   RANKS=5             ranks to start outside Slurm: trainers of the largest grid, and a daemon
#   SIMULATE="…"        options of disttgl simulate: trainers and cores of a node, network, storage
#
#SBATCH --job-name=scaling
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=scaling-%j.log
set -euo pipefail

(($# > 0)) || { printf 'no events: bash jobs/experiments/scaling.sh EVENTS.events.h5 [OPTIONS]\n' >&2 && exit 2; }
events=$1
shift
export DISTTGL_VENV=${DISTTGL_VENV:-$PWD/.venv}
export PATH=$DISTTGL_VENV/bin:$PATH

name=$(basename "$events")
out=runs/scaling/${name%%.*}
mkdir -p "$out"

export RANKS=${RANKS:-5}
grids=1x1x1,1x1x2,2x1x1,1x2x1,1x1x3,1x1x4,2x1x2
bash jobs/benchmarks/scaling.sh "$events" --grids "$grids" --json "$out/measured.json" "$@" | tee "$out/measured.txt"

read -ra model <<<"${SIMULATE:---trainers-per-node 8 --bandwidth 12.5e9}"
disttgl simulate "$out/measured.json" "${model[@]}" --json "$out/predicted.json" --plot "$out/scaling.svg" |
    tee "$out/predicted.txt"
