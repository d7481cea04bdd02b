#!/usr/bin/env bash
# Does static node memory help, and which? None, embedding, static-gnn and co-trained, over seeds, on any streams.
#
#   bash jobs/experiments/static.sh EVENTS.events.h5 [EVENTS.events.h5 …] [TRAINING OPTIONS]
#   SEEDS="0 1 2" bash jobs/experiments/static.sh flights.events.h5 --epochs 4 --evaluation-events 6000
#
# For every stream and seed it learns both tables and trains one run of each kind with the same options, into
# runs/static/NAME; then it leaves table.md, static.json and static.svg of all finished runs in runs/static. What is there
# already is kept, and what was stopped goes on, so seeds and streams can be added; what was made of other events or with
# other options ends the script. README.md beside this file has results.
#
#   DISTTGL_VENV=PATH       the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   SEEDS="0"               one run of every kind for each, with tables of its own
#   KINDS="none …"          what to compare
#   STATIC="…"              further options of runs with static memory, such as --static-dropout 0.5
#   PRETRAIN="…"            options of disttgl pretrain --kind embedding (default: the TRAINING OPTIONS)
#   STATIC_GNN="…"          options of disttgl pretrain --kind static-gnn (default: none)
set -euo pipefail
# shellcheck source=jobs/experiments/training.sh
source "$(dirname "${BASH_SOURCE[0]}")/training.sh"

streams=()
while (($# > 0)) && [[ $1 != -* ]]; do
    streams+=("$1")
    shift
done
((${#streams[@]} > 0)) || { printf 'no events: bash %s EVENTS.events.h5 … [OPTIONS]\n' "$0" >&2 && exit 2; }
read -ra static <<<"${STATIC-}"
options=(--epochs 4 --evaluation-events 3000 "$@")
read -ra learning <<<"${PRETRAIN-${options[*]}}"
read -ra smoothing <<<"${STATIC_GNN-}"

learn() { # EVENTS TABLE OPTIONS: a table that is there when this returns
    ! is_new "$2" "${@:3}" || disttgl pretrain "$@"
}

for events in "${streams[@]}"; do
    name=$(basename "$events")
    out=runs/static/${name%%.*}
    mkdir -p "$out"
    for seed in ${SEEDS:-0}; do
        for kind in ${KINDS:-none embedding static-gnn co-trained}; do
            run=$out/$kind-s$seed
            table=$run.static.h5
            own=(--static "$table" "${static[@]}")
            case $kind in
            none) own=() ;;
            co-trained) own=(--static co-trained "${static[@]}") ;;
            static-gnn) learn "$events" "$table" --kind static-gnn --seed "$seed" "${smoothing[@]}" ;;
            embedding) learn "$events" "$table" --kind embedding --seed "$seed" "${learning[@]}" ;;
            esac
            train "$run" 0 "$events" --seed "$seed" "${options[@]}" "${own[@]}"
        done
    done
done

runs=()
for stream in runs/static/*/; do
    for kind in none embedding static-gnn co-trained; do
        for run in "$stream$kind"-s*/; do
            ! is_finished "$run" || runs+=("${run%/}")
        done
    done
done
python "$here/plot_static.py" runs/static "${runs[@]}" | tee runs/static/table.md
