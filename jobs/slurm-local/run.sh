#!/usr/bin/env bash
# Runs one Slurm job on a real two-node Slurm that lives on this machine for as long as the job does.
#
#   bash jobs/slurm-local/run.sh [SBATCH OPTIONS] SBATCH_FILE [ARGUMENTS]
#
# The arguments are sbatch's. The job's output appears here as it is written, and the exit status is the job's; one that
# requeues itself starts again after seconds.
# Two nodes, n0 and n1, are two slurmd daemons on this machine: MPI ranks on different ones share no memory
# (Split_type(SHARED) separates them) and talk over sockets, as on a cluster.
#
# Needs Debian's slurmctld, slurmd, slurm-client and munge (or slurm-wlm and munge), installed but not
# configured: their services need not run and /etc is not read. Runs as root or as any user; the job runs as
# the caller. Everything is kept in a temporary folder, on free ports, and is gone afterwards.
#
#   UCX_TLS=tcp,self      transports between nodes; MPICH's UCX would notice that both are one machine and share
#                         memory between them
#   SLURM_LOCAL_CPUS=32   processor slots per node; more than there are cores is fine (default 32)
#   SLURM_LOCAL_KEEP=1    keep the temporary folder with the daemons' logs, and say where it is
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin # where the daemons are, and not every user's PATH
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cpus=${SLURM_LOCAL_CPUS:-32}
start_deadline_s=30
end_deadline_s=20
export UCX_TLS=${UCX_TLS:-tcp,self} # sbatch hands it to the job

fail() {
    printf 'slurm-local: %s\n' "$*" >&2
    exit 1
}

(($# > 0)) || fail "no job: bash jobs/slurm-local/run.sh [SBATCH OPTIONS] SBATCH_FILE [ARGUMENTS]"
for program in munged slurmctld slurmd sbatch scontrol scancel sinfo setsid python3; do
    command -v "$program" >/dev/null ||
        fail "$program not found: apt-get install slurmctld slurmd slurm-client munge"
done

# ---- A folder of its own, and the way back -----------------------------------------------------------------
# Short, since a socket's path may have at most 107 characters.
dir=$(mktemp -d /tmp/slurm-local.XXXXXX)
daemons=()   # process ids, in the order of their start
job=""       # the job's id, from its submission to its end
viewers=()   # processes that show the job's output

job_field() { # NAME: one field of the job's record, such as JobState
    scontrol --oneliner show job "$job" | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# shellcheck disable=SC2317 # called by the trap below
tear_down() {
    local status=$? pid attempt
    trap - EXIT
    trap '' INT TERM HUP # a second Ctrl-C must not leave daemons behind
    set +e
    if [[ -n $job ]]; then
        scancel "$job" 2>/dev/null
        for ((attempt = 0; attempt < end_deadline_s * 5; attempt++)); do
            [[ $(job_field JobState 2>/dev/null) =~ ^(PENDING|RUNNING|COMPLETING)$ ]] || break
            sleep 0.2
        done
    fi
    ((${#viewers[@]} == 0)) || kill "${viewers[@]}" 2>/dev/null
    # Last started, first stopped: munge serves the others to the end.
    for ((attempt = ${#daemons[@]} - 1; attempt >= 0; attempt--)); do
        pid=${daemons[attempt]}
        kill -TERM "$pid" 2>/dev/null
        timeout "$end_deadline_s" tail --pid="$pid" -s 0.1 -f /dev/null || kill -KILL "$pid"
    done
    wait
    if [[ -n ${SLURM_LOCAL_KEEP:-} ]]; then
        printf 'slurm-local: logs kept in %s\n' "$dir" >&2
    else
        rm -rf "$dir"
    fi
    exit "$status"
}
trap tear_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

start_daemon() { # ERRORS COMMAND...: in a session of its own, so that Ctrl-C reaches this script only
    local errors=$1
    shift
    setsid "$@" >>"$errors" 2>&1 </dev/null &
    daemons+=($!)
}

fail_with_logs() { # REASON: what the daemons said, then the end
    tail -n 20 "$dir"/*.err >&2 || true
    fail "$1; the daemons' last words are above"
}

check_daemons() { # WHAT we are waiting for
    local pid
    for pid in "${daemons[@]}"; do
        kill -0 "$pid" 2>/dev/null || fail_with_logs "a daemon ended while waiting for $1"
    done
}

wait_for() { # WHAT COMMAND...: until the command succeeds
    local what=$1 end=$((SECONDS + start_deadline_s))
    shift
    until "$@" >/dev/null 2>&1; do
        check_daemons "$what"
        ((SECONDS < end)) || fail_with_logs "no $what after $start_deadline_s s"
        sleep 0.1
    done
}

# shellcheck disable=SC2317 # called by wait_for
nodes_idle() {
    [[ $(sinfo --noheader --Node --format %T | sort | uniq -c | tr -s ' ') == " 2 idle" ]]
}

# ---- Configuration ---------------------------------------------------------------------------------------
# munged wants its socket's folder open to all (x only) and everything else closed.
chmod 711 "$dir"
mkdir "$dir/state" "$dir/spool-n0" "$dir/spool-n1"
(umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")

read -r ctld_port n0_port n1_port < <(python3 - <<'PYTHON'
import socket

sockets = [socket.socket() for _ in range(3)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)
sed -e "s|@DIR@|$dir|g" -e "s|@USER@|$(id -un)|g" -e "s|@HOST@|$(hostname -s)|g" \
    -e "s|@CTLD_PORT@|$ctld_port|g" -e "s|@N0_PORT@|$n0_port|g" -e "s|@N1_PORT@|$n1_port|g" \
    -e "s|@CPUS@|$cpus|g" -e "s|@MEMORY_MB@|$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)|g" \
    -e "s|@FIRST_JOB@|$(($(date +%s) % 60000000 + 1))|g" \
    "$here/slurm.conf.in" >"$dir/slurm.conf"
export SLURM_CONF=$dir/slurm.conf

# ---- Up ----------------------------------------------------------------------------------------------------
start_daemon "$dir/munged.err" munged --foreground --key-file "$dir/munge.key" --socket "$dir/munge.socket" \
    --pid-file "$dir/munged.pid" --seed-file "$dir/munge.seed" --log-file "$dir/munged.log"
wait_for "munge socket" test -S "$dir/munge.socket"
start_daemon "$dir/slurmctld.err" slurmctld -D
start_daemon "$dir/slurmd-n0.err" slurmd -D -N n0
start_daemon "$dir/slurmd-n1.err" slurmd -D -N n1
wait_for "two idle nodes" nodes_idle

# ---- The job ------------------------------------------------------------------------------------------------
job=$(sbatch --parsable --output="$dir/job-%j.out" "$@")
output=$(job_field StdOut)
touch "$output"
# tail reads once more after the process it watches has ended: so the last line is never lost.
sleep infinity &
viewers=($!)
tail -n +1 -s 0.2 --pid="${viewers[0]}" -f "$output" &
viewers+=($!)

state=PENDING
restarts=0
while [[ $state =~ ^(|PENDING|CONFIGURING|RUNNING|SIGNALING|COMPLETING|REQUEUED)$ ]]; do
    sleep 0.3
    check_daemons "the job's end"
    state=$(job_field JobState) || true # no answer from a busy slurmctld: ask again
    if [[ $state == PENDING && $(job_field Restarts) != "$restarts" ]]; then
        # Usual are two minutes; below a few seconds the nodes take it for the job that has just ended.
        scontrol update "JobId=$job" StartTime=now+5 && restarts=$(job_field Restarts)
    fi
done
IFS=: read -r exit_code signal < <(job_field ExitCode)
job=""
kill "${viewers[0]}"
wait "${viewers[1]}"
viewers=()
printf 'slurm-local: job %s, exit code %s, signal %s\n' "$state" "$exit_code" "$signal" >&2

if ((signal > 0)); then
    exit $((128 + signal))
elif [[ $state != COMPLETED && $exit_code == 0 ]]; then
    exit 1 # cancelled, out of time, or lost with its node
fi
exit "$exit_code"
