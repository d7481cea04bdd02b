#!/usr/bin/env bash
# A temporal graph network, trained under MPI on the 336,776 flights that left New York in 2013.
#
#   bash jobs/demo.sh [TRAINING OPTIONS]
#
# From nothing to a table of test results in under 10 minutes on 2 cores, installation included: a virtual
# environment, the flights as an event store, training with one trainer and one memory daemon. What is there
# from the last time is used again; each run gets a directory of its own.
#
#   DISTTGL_VENV=PATH   the environment to use or make (default .venv)
set -euo pipefail
venv=${DISTTGL_VENV:+$(realpath -m "$DISTTGL_VENV")} # relative to where the caller is
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/environment.sh
source jobs/environment.sh

export OMP_NUM_THREADS=1 # one core for the trainer, one for the daemon and the rest of the machine
events=data/flights.events.h5

# What to train; options given to this script come last and win.
training=(
    --epochs 2
)

run=runs/demo
for ((number = 2; ; number++)); do
    [[ -e $run ]] || break
    run=runs/demo-$number
done

printf '== environment\n'
enter_environment "${venv:-$PWD/.venv}" mpi,demo,plot

printf '\n== events\n'
if [[ -f $events ]]; then
    printf '%s is there\n' "$events"
else
    mkdir -p "${events%/*}"
    disttgl prepare flights "$events"
fi

printf '\n== training, into %s\n' "$run"
mpiexec -n 2 disttgl train "$events" --run "$run" "${training[@]}" "$@"

printf '\n== done in %d s\n' "$SECONDS"
