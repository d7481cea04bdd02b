#!/usr/bin/env bash
# Test MRR of link prediction on four public streams, with and without pair features: the table and plot of the README.
#
#   bash jobs/experiments/links.sh [FOLDER]
#
# FOLDER (default data) holds wikipedia.events.h5, collegemsg.events.h5, mathoverflow.events.h5 and flights.events.h5;
# docs/data.md says where the streams come from and how they are prepared. Runs go to runs/links/STREAM/KIND-sSEED, the
# table and the plot beside them. Finished runs are kept, stopped ones are resumed. About 30 minutes on one core.
#
#   DISTTGL_VENV=PATH   the environment with disttgl and its extra "plot" (default .venv, which jobs/demo.sh makes)
#   SEEDS="0 1 2"       one run of every kind for each
set -euo pipefail
# shellcheck source=jobs/experiments/training.sh
source "$(dirname "${BASH_SOURCE[0]}")/training.sh"

folder=${1:-data}
declare -A options=(
    [wikipedia]="--epochs 5"
    [collegemsg]="--epochs 8"
    [mathoverflow]="--epochs 2 --evaluation-events 20000"
    [flights]="--epochs 2"
)
runs=()
for stream in wikipedia collegemsg mathoverflow flights; do
    read -ra own <<<"${options[$stream]}"
    for seed in ${SEEDS:-0 1 2}; do
        for kind in plain pairs; do
            run=runs/links/$stream/$kind-s$seed
            features=()
            [[ $kind == plain ]] || features=(--pair-features)
            train "$run" 0 "$folder/$stream.events.h5" --seed "$seed" "${own[@]}" "${features[@]}"
            runs+=("$run")
        done
    done
done
python "$here/plot_links.py" runs/links "${runs[@]}" | tee runs/links/table.md
