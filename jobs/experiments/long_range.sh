#!/usr/bin/env bash
# Does memory parallelism lose what happened long ago? Test MRR against the number of replicas k, at equal passes over the
# events, on a stream whose destinations lie further back than neighbours reach, and on one where they do not.
#
#   bash jobs/experiments/long_range.sh [TRAINING OPTIONS]
#
# In both streams the destination is most often the one of LAG of the source's own events ago. With --num-neighbors 1 only
# the memory can know it in "far" (LAG 3); in "near" (LAG 1) the one neighbour is it. Each trains 1×1×k for every k and seed,
# and one trainer without node memory, into runs/long_range/STREAM; table.md, long_range.json and long_range.svg follow. What is
# there already is kept, what was stopped goes on. Some 40 minutes on 2 cores; README.md beside this file has results.
#
#   DISTTGL_VENV=PATH       the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   SEEDS="0 1 2"           one run of every kind for each
#   REPLICAS="1 2 4 8"      the numbers k
#   EVENTS=40000            of each stream
set -euo pipefail
# shellcheck source=jobs/experiments/training.sh
source "$(dirname "${BASH_SOURCE[0]}")/training.sh"

options=(--epochs 16 --num-neighbors 1 --local-batch 200 --evaluation-batch 200 --evaluation-events 3000 --scale-lr sqrt "$@")
out=runs/long_range
mkdir -p "$out"
runs=()
for stream in far:3 near:1; do
    events=$out/${stream%:*}.events.h5
    how=(--kind long-range --lag "${stream#*:}" --repeat 0.95 --events "${EVENTS:-40000}" --sources 200 --destinations 50
        --edge-features 16)
    ! is_new "$events" "${how[@]}" || disttgl generate "$events" "${how[@]}"
    for seed in ${SEEDS:-0 1 2}; do
        run=$out/${stream%:*}/none-s$seed
        train "$run" 0 "$events" --seed "$seed" "${options[@]}" --no-node-memory
        runs+=("$run")
        for k in ${REPLICAS:-1 2 4 8}; do
            run=$out/${stream%:*}/$k-s$seed
            train "$run" $((k + 1)) "$events" --seed "$seed" "${options[@]}" --grid "1x1x$k"
            runs+=("$run")
        done
    done
done
python "$here/plot_long_range.py" "$out" "${runs[@]}" | tee "$out/table.md"
