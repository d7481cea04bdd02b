# shellcheck shell=bash
# What the experiments share, to be sourced: the environment with disttgl, and runs that are complete or go on.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=${DISTTGL_VENV:-$here/../../.venv}/bin:$PATH
export OMP_NUM_THREADS=1

train() { # RUN RANKS EVENTS [OPTIONS]: a run that is complete when this returns; RANKS 0: without mpiexec
    local run=$1 launch=()
    (($2 == 0)) || launch=(mpiexec -n "$2")
    if [[ -d $run/checkpoints && ! -s $run/metrics.jsonl ]]; then
        rm -r "$run" # it was stopped before its first sweep's end
    fi
    if [[ ! -d $run ]]; then
        "${launch[@]}" disttgl train "$3" --run "$run" "${@:4}"
    elif ! grep -q '"record": "test"' "$run/metrics.jsonl"; then
        "${launch[@]}" disttgl train --resume "$run"
    fi
}
