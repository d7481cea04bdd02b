# shellcheck shell=bash
# What the experiments share, to be sourced: the environment with disttgl, and runs that are complete or go on.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=${DISTTGL_VENV:-$here/../../.venv}/bin:$PATH
export OMP_NUM_THREADS=1

declare -A checksums=() # of event stores that have been asked for

train() { # RUN RANKS EVENTS [OPTIONS]: a run that is complete when this returns; RANKS 0: without mpiexec
    local run=$1 launch=()
    (($2 == 0)) || launch=(mpiexec -n "$2")
    if [[ -d $run/checkpoints && ! -s $run/metrics.jsonl ]]; then
        rm -r "$run" # it was stopped before its first sweep's end
    fi
    [[ ! -d $run ]] || check_events "$run" "$3"
    if is_new "$run" "${@:4}"; then
        "${launch[@]}" disttgl train "$3" --run "$run" "${@:4}"
    elif ! is_finished "$run"; then
        "${launch[@]}" disttgl train --resume "$run"
    fi
}

is_finished() { # RUN
    grep -qs '"record": "test"' "$1/metrics.jsonl"
}

is_new() { # FILE-OR-FOLDER [OPTIONS]: it is to be made; FILE-OR-FOLDER.command keeps the options it is made with
    local made=$1 options
    options=$(printf '%q ' "${@:2}")
    if [[ ! -e $made ]]; then
        mkdir -p "$(dirname "$made")"
        printf '%s\n' "$options" >"$made.command"
    elif [[ -e $made.command && $(<"$made.command") != "$options" ]]; then
        printf '%s: was made with other options than now:\n  %s\n  %s\nmove or remove it, or give the same options\n' \
            "$made" "$(<"$made.command")" "$options" >&2
        exit 1
    else
        return 1
    fi
}

check_events() { # RUN EVENTS: stops unless the run is of these events
    if [[ -z ${checksums[$2]-} ]]; then
        checksums[$2]=$(disttgl inspect "$2" --json | sed -n 's/.*"checksum": "\([0-9a-f]*\)".*/\1/p')
    fi
    if ! grep -qs "\"checksum\": \"${checksums[$2]}\"" "$1/config.json"; then
        printf '%s: is a run of other events than %s: move or remove it, or give its events\n' "$1" "$2" >&2
        exit 1
    fi
}
