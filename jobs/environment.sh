# shellcheck shell=bash
# Sourced by the scripts beside it: makes a virtual environment with this package and its pinned dependencies.

# enter_environment VENV EXTRAS [CONSTRAINTS]
#
# Makes the virtual environment VENV if need be, installs this repository into it (editable, with EXTRAS such as
# "test,mpi") at the versions of the file CONSTRAINTS beside this one (default constraints.txt), and puts its
# programs first on PATH. An environment that was made from the same constraints, metadata, extras and Python is
# used as it is. An environment that somebody else made is never emptied: pip brings it to those versions every time.
#
#   PYTHON=python3.12   the Python to make it with (default python3)
enter_environment() {
    local venv=$1 extras=$2 python=${PYTHON:-python3} repository constraints fingerprint stamp ours=yes
    repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    constraints=$repository/jobs/${3:-constraints.txt}
    stamp=$venv/disttgl-environment # holds the fingerprint of what was installed, once all of it was

    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        printf 'Python 3.11 or newer is needed, and %s is not: PYTHON=/path/to/python3.11 bash …\n' "$python" >&2
        return 1
    fi
    fingerprint=$(
        {
            "$python" -VV
            printf '%s\n' "$extras" "$repository"
            cat "$constraints" "$repository/setup.cfg"
            sed '/^\[tool\.\(ruff\|mypy\|pytest\|importlinter\)/,$d' "$repository/pyproject.toml" # not the checkers'
        } | sha256sum | cut -d ' ' -f 1
    )

    if [[ ! -f $stamp || $(<"$stamp") != "$fingerprint" ]]; then
        if [[ ! -f $stamp && -f $venv/bin/python ]]; then
            ours=no
        else
            [[ ! -f $stamp ]] || rm -rf "$venv" # made here, and out of date or half made
            mkdir -p "$venv"
            printf 'unfinished\n' >"$stamp"
            "$python" -m venv "$venv"
        fi
        printf 'installing into %s: a minute, or several where torch must be downloaded\n' "$venv"
        # setuptools first: building in the environment itself keeps the build pinned too.
        "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
            --constraint "$constraints" setuptools
        "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-build-isolation \
            --constraint "$constraints" --editable "${repository}[$extras]"
        [[ $ours == no ]] || printf '%s\n' "$fingerprint" >"$stamp"
    fi
    export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
    unset PYTHONHOME
}
