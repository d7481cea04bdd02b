"""Train for hours and watch whether memory grows or events get dearer; README.md beside it says what is measured.

python soak.py EVENTS.events.h5                                      two hours of a trainer and a daemon
python soak.py EVENTS.events.h5 --ranks 3 --hours 8 -- --grid 1x1x2  with options of disttgl train
python soak.py --judge runs/soak/soak.jsonl                          what has been recorded so far

Needs Linux and mpiexec, with all ranks on this machine. Exits with 1 if something grows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

RANK = re.compile(r"rank (\d+): (\w+).*, process (\d+) on ")
MEMORY = ("VmRSS", "RssAnon", "RssFile", "RssShmem")
RECORD_EVERY_S, LOOK_EVERY_S = 30.0, 0.5
MAX_GROWTH, MAX_DRIFT = 0.01, 0.05
EPOCHS = 100_000  # more than any time holds: a signal ends the run


def main() -> int:
    """Soak and judge, or only judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    parser.add_argument("--judge", type=Path, metavar="RECORD")
    parser.add_argument("options", nargs="*", help="of disttgl train, behind --")
    given = parser.parse_args()
    if given.judge is None:
        if given.events is None:
            parser.error("give EVENTS, or --judge with a record")
        soak(given.events, given.folder, given.ranks, given.hours, given.options)
    return judge(given.judge or given.folder / "soak.jsonl")


def soak(events: Path, folder: Path, num_ranks: int, hours: float, options: list[str]) -> None:
    """Train for ``hours``; memory and CPU time of all ranks go to soak.jsonl, at sweep ends and in between."""
    folder.mkdir(parents=True)
    run, log_file = folder / "run", folder / "train.log"
    command = ["mpiexec", "-n", f"{num_ranks}", "disttgl", "train", f"{events}", "--run", f"{run}"]
    command += ["--epochs", f"{EPOCHS}", "--evaluation-events", "300", *options]
    started_s, due_s, seen = time.monotonic(), 0.0, 0
    with log_file.open("w") as log, (folder / "soak.jsonl").open("w") as record:
        job = subprocess.Popen(command, stdout=log, stderr=log)
        while job.poll() is None and (elapsed_s := time.monotonic() - started_s) < hours * 3600:
            time.sleep(LOOK_EVERY_S)
            ranks = {int(rank): (role, process) for rank, role, process in RANK.findall(log_file.read_text())}
            sweeps = finished_sweeps(run / "metrics.jsonl")
            if len(ranks) < num_ranks or (len(sweeps) == seen and elapsed_s < due_s):
                continue
            sample = {
                "elapsed_s": round(elapsed_s, 1),
                "is_sweep_end": len(sweeps) > seen,
                "sweeps": len(sweeps),
                "events": round(sum(one["train_s"] * one["events_per_s"] for one in sweeps)),
                "ranks": [usage(*ranks[rank]) for rank in sorted(ranks)],
            }
            record.write(json.dumps(sample) + "\n")
            record.flush()
            seen, due_s = len(sweeps), elapsed_s + RECORD_EVERY_S
        if job.poll() is None:
            job.terminate()
        sys.stdout.write(f"status of the job: {job.wait(120)} (75: stopped after a checkpoint, as asked)\n")


def finished_sweeps(metrics: Path) -> list[dict[str, float]]:
    """Timing of the sweeps in metrics.jsonl."""
    lines = metrics.read_text().splitlines(keepends=True) if metrics.is_file() else []
    return [json.loads(line)["timing"] for line in lines if '"record": "sweep"' in line and line[-1] == "\n"]


def usage(role: str, process: str) -> dict[str, Any]:
    """Memory (KiB) and CPU seconds of a process so far; no figures once it has ended."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return {"role": role}
    cpu_s = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return {"role": role, "cpu_s": cpu_s, **{name: int(status[name].split()[0]) for name in MEMORY}}


def judge(record: Path) -> int:
    """Print growth and drift from the second sweep on; returns the exit status."""
    samples = [json.loads(line) for line in record.read_text().splitlines()]
    settled = [sample for sample in samples if sample["sweeps"] > 0 and "cpu_s" in sample["ranks"][-1]]
    ends = [sample for sample in settled if sample["is_sweep_end"]]
    if len(ends) < 9:
        sys.stdout.write(f"{len(ends)} sweeps are too few for a verdict\n")
        return 1
    out = sys.stdout.write
    last = settled[-1]
    out(f"{last['elapsed_s'] / 3600:.2f} h, {last['sweeps']} sweeps, {last['events']:,} events\n")
    out(f"{'':24}{'first eighth':>14}{'middle':>14}{'last eighth':>14}{'change':>9}{'since middle':>14}\n")
    is_good = True
    for rank, role in enumerate(one["role"] for one in last["ranks"]):
        for name in MEMORY[:2]:
            change = compare(f"{role} {name}, KiB", [sample["ranks"][rank][name] for sample in settled])
            is_good &= change <= MAX_GROWTH
    spent = [(sum(rank["cpu_s"] for rank in sample["ranks"]), sample["events"]) for sample in ends]
    costs = [1e6 * (after[0] - before[0]) / (after[1] - before[1]) for before, after in pairwise(spent)]
    is_good &= abs(compare("CPU-µs an event", costs)) <= MAX_DRIFT
    out(
        f"no memory grows by over {MAX_GROWTH:.0%}, no cost by {MAX_DRIFT:.0%}: {'yes' if is_good else 'NO'}\n"
    )
    return 0 if is_good else 1


def compare(what: str, values: list[float]) -> float:
    """Print medians of the first, a middle and the last eighth of a series; returns the change over all of it.

    What has changed since the middle tells a leak from a heap that has come to its size.
    """
    part, half = max(1, len(values) // 8), len(values) // 2
    first, middle, last = (
        median(values[begin : begin + part]) for begin in (0, half - part // 2, len(values) - part)
    )
    change = last / first - 1
    sys.stdout.write(
        f"{what:24}{first:14,.1f}{middle:14,.1f}{last:14,.1f}{change:9.1%}{last / middle - 1:14.2%}\n"
    )
    return change


if __name__ == "__main__":
    sys.exit(main())
