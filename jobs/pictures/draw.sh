#!/usr/bin/env bash
# Makes the pictures of the README and of docs/: grid.svg, schedule.svg; from runs, report.png and results.svg.
#
#   bash jobs/pictures/draw.sh                  grid.svg and schedule.svg
#   bash jobs/pictures/draw.sh runs/links       report.png and results.svg, too, from the runs of jobs/experiments/links.sh
#
# The screenshot needs chromium, results.svg the extra "plot".
#
#   DISTTGL_VENV=PATH   the environment with disttgl (default .venv, which jobs/demo.sh makes)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=${DISTTGL_VENV:-$here/../../.venv}/bin:$PATH

disttgl schedule 1x2x2 --batches 6 --steps 7 -o "$here/schedule.svg" >/dev/null
disttgl schedule 2x2x2 --grid-picture "$here/grid.svg" >/dev/null
(($# > 0)) || exit 0

runs=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python "$here/../experiments/plot_links.py" "$work" "$runs"/{wikipedia,collegemsg,mathoverflow,flights}/{plain,pairs}-s*
mv "$work/links.svg" "$here/results.svg"
disttgl report "$runs"/wikipedia/{plain,pairs}-s0 -o "$work/report.html"
# The page without the tables before its charts, as far as fits a small picture.
printf '<style>section:nth-of-type(-n+2) { display: none }</style>\n' >>"$work/report.html"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=900,760 \
    --screenshot="$here/report.png" "file://$work/report.html" 2>/dev/null
