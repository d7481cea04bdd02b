#!/usr/bin/env bash
# Everything that must pass before a change goes in: environment, linters, tests, tests under MPI.
#
#   bash jobs/test.sh [PYTEST OPTIONS]
#
# From nothing: a virtual environment is made first, and kept for the next time. Options such as -x or -k NAME
# go to every run of pytest; no paths. Stops at the first failure. Some 20 minutes on 2 cores, installation
# included; most of it goes to the tests, of which each core runs a part.
#
#   DISTTGL_VENV=PATH   the environment to use or make (default .venv-test)
set -euo pipefail
venv=${DISTTGL_VENV:+$(realpath -m "$DISTTGL_VENV")} # relative to where the caller is
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/environment.sh
source jobs/environment.sh

export OMP_NUM_THREADS=1 # ranks and tests are the parallelism here
mpi_limit_s=300          # for one mpiexec: a hang is a failure
mpi_test_limit_s=120     # for one test, so that a hang is told with its stack first

logs=$(mktemp -d)
section=""
section_start=0
trap 'finish $?' EXIT

finish() { # STATUS: the last words
    if (($1 == 0)); then
        printf '\n== passed: %d s in all\n' "$SECONDS"
    else
        printf '\n== FAILED in "%s" after %d s (exit status %d)\n' \
            "$section" "$((SECONDS - section_start))" "$1"
    fi
    rm -rf "$logs"
}

begin() { # TITLE
    [[ -z $section ]] || printf -- '-- %s: %d s\n' "$section" "$((SECONDS - section_start))"
    section=$1
    section_start=$SECONDS
    printf '\n== %s\n' "$section"
}

# Runs pytest; that nothing was selected (status 5) is no failure when the caller did the selecting.
selected=$#
pytest_passes() { # COMMAND...
    local status=0
    "$@" || status=$?
    ((status == 0 || (status == 5 && selected > 0)))
}

# All ranks run the tests; rank 0 alone speaks, the others when something went wrong.
run_mpi_tests() { # RANKS [PYTEST OPTIONS]
    local ranks=$1 log
    shift
    rm -f "$logs"/*
    # shellcheck disable=SC2016 # expanded on each rank
    if ! pytest_passes timeout --kill-after 10 "$mpi_limit_s" mpiexec -n "$ranks" bash -c '
        logs=$1; shift
        ((${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-0}} == 0)) || exec >"$logs/rank-${PMI_RANK:-$OMPI_COMM_WORLD_RANK}" 2>&1
        exec python -m pytest "$@"' rank "$logs" \
        --with-mpi tests/parallel -p no:cacheprovider \
        --timeout "$mpi_test_limit_s" --timeout-method thread "$@"; then
        for log in "$logs"/*; do
            [[ ! -f $log ]] || { printf '\n-- %s\n' "${log##*/}" && tail -n 60 "$log"; }
        done
        return 1
    fi
}

begin "environment"
enter_environment "${venv:-$PWD/.venv-test}" test,mpi,demo,plot,bench,tensorboard
printf '%s, %s\n' "$(python --version)" "$(command -v python)"

begin "dependencies"
python -m pip check # what is known to be vulnerable only an index on the network can tell
begin "ruff check"
ruff check
begin "ruff format"
ruff format --check
begin "mypy"
mypy
begin "import-linter"
lint-imports --no-logo

begin "tests"
pytest_passes python -m pytest --ignore tests/parallel --numprocesses auto --maxprocesses 4 --dist worksteal "$@"

for ranks in 1 2 4 10; do # 10: 2x2x2 on two nodes, the largest case
    begin "MPI tests, $ranks rank(s)"
    run_mpi_tests "$ranks" "$@"
done
printf -- '-- %s: %d s\n' "$section" "$((SECONDS - section_start))"
