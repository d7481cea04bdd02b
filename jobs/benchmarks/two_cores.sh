#!/bin/bash
# Two trainers on two cores against PyTorch Geometric's TGN with two threads, in turns; see README.md beside it.
#
#   bash jobs/benchmarks/two_cores.sh EVENTS.events.h5 [OPTIONS OF disttgl bench]
#
# Each round trains the same events in the same global batches with both, and with one trainer of two threads. Needs the
# extra "bench", two cores and a machine that does nothing else. Prints events a second of each, and the median of the
# rounds' ratios.
#
#   DISTTGL_VENV=PATH   the environment with disttgl (default .venv, which jobs/demo.sh makes)
#   ROUNDS=5            rounds; STEPS=40: measured steps of each, after 20
#   BATCH=600           events of a trainer; a global batch has as many for each of a grid's i
#   GRID=2x1x1          the two trainers' grid
set -euo pipefail

(($# > 0)) || { printf 'no events: bash jobs/benchmarks/two_cores.sh EVENTS.events.h5 [OPTIONS]\n' >&2 && exit 2; }
export PATH=${DISTTGL_VENV:-$PWD/.venv}/bin:$PATH
grid=${GRID:-2x1x1} batch=${BATCH:-600} steps=${STEPS:-40} folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for ((round = 1; round <= ${ROUNDS:-5}; round++)); do
    mpiexec -n 3 disttgl bench scaling "$@" --local-batch "$batch" --grids "$grid" --steps "$steps" --rounds 1 \
        --json "$folder/two.$round.json" >/dev/null
    disttgl bench train "$@" --local-batch "$((${grid%%x*} * batch))" --threads 2 --against pyg --steps "$steps" --rounds 1 \
        --json "$folder/pyg.$round.json" >/dev/null
done
python - "$folder" "$grid" <<'PYTHON'
import json
import sys
from pathlib import Path
from statistics import median

folder, grid = Path(sys.argv[1]), sys.argv[2]
two = [json.loads(path.read_text())["grids"][0]["events_per_s"] for path in sorted(folder.glob("two.*"))]
alone = [json.loads(path.read_text()) for path in sorted(folder.glob("pyg.*"))]
pyg = [record["pyg"]["events_per_s"] for record in alone]
threads = [record["own"]["events_per_s"] for record in alone]
print(f"events/s, medians of {len(two)} rounds")
print(f"  {grid}, a core each                 {median(two):9,.0f}")
print(f"  one trainer with two threads         {median(threads):9,.0f}")
print(f"  PyTorch Geometric with two threads   {median(pyg):9,.0f}")
print(f"two trainers are {median(a / b for a, b in zip(two, pyg)):.2f} times as fast, round by round")
PYTHON
