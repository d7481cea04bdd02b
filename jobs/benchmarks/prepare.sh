#!/bin/bash
# Rate and peak memory of disttgl prepare over the size of the stream; data/README.md has results.
#
#   bash jobs/benchmarks/prepare.sh                       # 1, 10 and 30 million events
#   bash jobs/benchmarks/prepare.sh 1e6 1e7 3e7 1e8       # sizes as arguments: 100 million take some 12 GB of disk
#
# Generates a csv file of each size (src,dst,time; 20 events a node), prepares it, and prints a line of figures.
#
#   DISTTGL_VENV=PATH   the environment with disttgl (default .venv, which jobs/demo.sh makes)
#   FOLDER=PATH         where files of some 100 bytes an event go meanwhile (default runs/prepare)
#   KEEP=1              keep the event stores
set -euo pipefail

export PATH=${DISTTGL_VENV:-$PWD/.venv}/bin:$PATH
folder=${FOLDER:-runs/prepare}
(($# > 0)) || set -- 1e6 1e7 3e7
mkdir -p "$folder"

measured() { # runs a command; prints wall-clock and CPU seconds and the peak of resident memory, MiB
    python - "$@" <<'PYTHON'
import resource, subprocess, sys, time

began = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
PYTHON
}

printf '%12s %9s %9s %14s %16s %10s\n' events wall-s CPU-s 'events/s wall' 'events/s of CPU' 'peak MiB'
for size in "$@"; do
    raw=$folder/$size.csv
    [[ -f $raw ]] || disttgl generate "$raw" --events "$size" >/dev/null
    figures=$(measured disttgl prepare "$raw" "$folder/$size.events.h5" --force)
    awk -v events="$size" '{
        printf "%12d %9.1f %9.1f %14d %16d %10d\n", events, $1, $2, events / $1, events / $2, $3
    }' <<<"$figures"
    rm -f "$raw"
    [[ -n ${KEEP:-} ]] || rm -f "$folder/$size.events.h5"
done
