#!/usr/bin/env bash
# Batch size against accuracy, beside the share of mails that batches of each size capture: what a larger batch costs.
#
#   bash jobs/experiments/batch_size.sh EVENTS.events.h5 [TRAINING OPTIONS]
#
# Trains one trainer for the same number of epochs with every batch size and seed, into runs/batch_size/NAME/bBATCH-sSEED,
# and leaves a table and a plot beside them. A run that is there already is kept, one that was stopped goes on. Two epochs of
# 100,000 events take some 20 seconds a run, so the runs below some 10 minutes; README.md beside this file has results.
#
#   DISTTGL_VENV=PATH       the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   SIZES="75 150 …"        events of a batch
#   SEEDS="0 1 2"           one run of every size for each
#   EPOCHS=8                passes over the training events
set -euo pipefail
# shellcheck source=jobs/experiments/training.sh
source "$(dirname "${BASH_SOURCE[0]}")/training.sh"
(($# > 0)) || { printf 'no events: bash %s EVENTS.events.h5 [TRAINING OPTIONS]\n' "$0" >&2 && exit 2; }
events=$1
shift
name=$(basename "$events")
out=runs/batch_size/${name%%.*}
sizes=${SIZES:-75 150 300 600 1200 2400 4800}
mkdir -p "$out"
disttgl plan "$events" --captured --batch-sizes "${sizes// /,}" --json "$out/captured.json" >/dev/null

runs=()
for seed in ${SEEDS:-0 1 2}; do
    for size in $sizes; do
        run=$out/b$size-s$seed
        train "$run" 0 "$events" --local-batch "$size" --seed "$seed" --epochs "${EPOCHS:-8}" "$@"
        runs+=("$run")
    done
done
python "$here/plot_batch_size.py" "$out" "${runs[@]}" | tee "$out/table.txt"
