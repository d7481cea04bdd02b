#!/usr/bin/env bash
# Classes of events and of nodes, over seeds, against the majority and the last label.
#
#   bash jobs/experiments/tasks.sh edge EVENTS.events.h5 [TRAINING OPTIONS]    events: disttgl train --task edge
#   bash jobs/experiments/tasks.sh node EVENTS.events.h5 [TRAINING OPTIONS]    nodes: trained along, --task node, and
#                                                                              frozen, disttgl classify
#   bash jobs/experiments/tasks.sh edge flights.events.h5 --epochs 3 --class-features
#
# Runs are in runs/tasks/NAME, and the table of all of them in runs/tasks/table.md. What is there already is kept, and what
# was stopped goes on, so seeds and streams can be added.
#
#   DISTTGL_VENV=PATH     the environment with disttgl (default .venv, which jobs/demo.sh makes)
#   SEEDS="0 1 2"         one run for each
#   LINK="…"              options of the link prediction whose embeddings stay frozen
set -euo pipefail
# shellcheck source=jobs/experiments/training.sh
source "$(dirname "${BASH_SOURCE[0]}")/training.sh"

usage() {
    sed -n 's/^# \{0,1\}//; 2,14p' "$0" >&2
    exit 2
}
(($# >= 2)) || usage
kind=$1 events=$2
shift 2
[[ $kind == edge || $kind == node ]] || usage
read -ra link <<<"${LINK---epochs 6 --evaluation-events 3000}"
name=$(basename "$events")
out=runs/tasks/${name%%.*}
mkdir -p "$out"

for seed in ${SEEDS:-0 1 2}; do
    train "$out/$kind-s$seed" 0 "$events" --task "$kind" --seed "$seed" "$@"
    if [[ $kind == node ]]; then
        run=$out/frozen-s$seed
        train "$run" 0 "$events" --seed "$seed" "${link[@]}"
        [[ -s $run/classify.json ]] || disttgl classify "$run" --seeds 1
    fi
done
python "$here/table_tasks.py" runs/tasks | tee runs/tasks/table.md
