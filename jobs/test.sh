#!/usr/bin/env bash
# Everything that must pass before a change goes in: environment, linters, tests, tests under MPI.
#
#   bash jobs/test.sh [--quick | --lowest] [PYTEST OPTIONS]
#
#   (nothing)   linters, all tests, tests under MPI on 1, 2, 4 and 10 ranks
#   --quick     linters, tests that are not marked slow, and those under MPI on 2 ranks.
#               It leaves out what needs a job of its own: grids against their emulation, resuming, killed ranks,
#               signals, full disks, commands under mpiexec, the commands of the README, fuzzing, MPI on 1, 4 and
#               10 ranks. Enough while a change is made, not before it is merged.
#   --lowest    the same tests without the linters, on the lowest version of every dependency
#               (constraints-lowest.txt)
#
# A virtual environment is made first, and kept for the next time. Options such as -x or -k NAME go to every run of
# pytest; paths are not possible. Stops at the first failure. Each core runs a part of the tests.
#
#   DISTTGL_VENV=PATH   the environment to use or make (default .venv-test; with --lowest .venv-lowest)
set -euo pipefail
suite=all
case ${1:-} in
    --quick | --lowest) suite=${1#--} && shift ;;
esac
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
extras=test,mpi,demo,plot,bench,tensorboard
if [[ $suite == lowest ]]; then
    enter_environment "${venv:-$PWD/.venv-lowest}" "$extras" constraints-lowest.txt
    export NUMBA_CACHE_DIR=$VIRTUAL_ENV/numba-cache # machine code of another numba than that of other environments
else
    enter_environment "${venv:-$PWD/.venv-test}" "$extras"
fi
printf '%s, %s\n' "$(python --version)" "$(command -v python)"

begin "dependencies"
python -m pip check # what is known to be vulnerable only an index on the network can tell
if [[ $suite != lowest ]]; then
    begin "ruff check"
    ruff check
    begin "ruff format"
    ruff format --check
    begin "mypy"
    mypy
    begin "import-linter"
    lint-imports --no-logo
fi

which=() all_ranks=(1 2 4 10) # 10: 2x2x2 on two nodes, the largest case
[[ $suite == all ]] || which=(-m "not slow") all_ranks=(2)

begin "tests"
pytest_passes python -m pytest --ignore tests/parallel \
    --numprocesses auto --maxprocesses 4 --dist worksteal "${which[@]}" "$@"

for ranks in "${all_ranks[@]}"; do
    begin "MPI tests, $ranks rank(s)"
    run_mpi_tests "$ranks" "${which[@]}" "$@"
done
printf -- '-- %s: %d s\n' "$section" "$((SECONDS - section_start))"
