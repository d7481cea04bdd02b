"""Fuzzing: every command, given damaged stores, runs and inputs, works or ends with a line that says what is wrong.

    python tests/support/fuzz_commands.py --cases 10000                      # a tenth of a second each, then the faults
    python tests/support/fuzz_commands.py --first 4711 --keep FOLDER         # one case again; keeps its files

One process makes a folder of stores, runs and inputs and runs every command on them once. For each case it restores
the folder and forks; the child damages one thing and runs one command. That may not end by a signal, print a
traceback or a warning of Python's, or need more than ROOM_BYTES of address space or CASE_S seconds. A case depends
on its number and on --seed only.
"""

import argparse
import bz2
import gzip
import io
import itertools
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
from collections import Counter, defaultdict
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pyarrow as pa

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from complete_inputs import complete_inputs  # noqa: E402
from damages import (  # noqa: E402
    change_bytes,
    change_json,
    change_structure,
    change_text,
    rearrange,
    replace_file,
)
from run_helpers import small_options  # noqa: E402

from disttgl_hpc import cli  # noqa: E402
from disttgl_hpc.grid.job import StopRequest  # noqa: E402
from disttgl_hpc.store.checkpoint_files import write_manifest  # noqa: E402
from disttgl_hpc.store.files import sha256_of  # noqa: E402
from disttgl_hpc.store.node_rows import _checksum  # noqa: E402

ROOM_BYTES = 1 << 30  # of address space beyond that of the warm process
FILE_BYTES = 1 << 26
CASE_S = 60  # may include compiling
EVENTS = "s.events.h5"
RUNS = ("static", "stopped")
START_S = 1_200_000_000  # time of the first event
TRAIN = [f"{word}" for word in small_options(epochs=1, evaluation_negatives=3)]
CLASSES = "--columns src=src,dst=dst,time=time,label=label,node_label=state,features=f+g"

ON_EVENTS = [
    f"inspect {EVENTS}",
    f"inspect {EVENTS} --verify",
    f"train {EVENTS} --run new --task link+edge TRAIN",
    f"train {EVENTS} --run new --batches s.batches.h5 --negative-sets 1 TRAIN",
    f"train {EVENTS} --run new --pair-features --evaluation-strategy historical TRAIN",
    f"train {EVENTS} --resume stopped",
    f"sample {EVENTS} new.batches.h5 --negative-sets 1 --local-batch 25 --num-neighbors 4",
    f"pretrain {EVENTS} new.static.h5 --kind static-gnn --epochs 1 --dim-memory 8",
    f"plan {EVENTS} --captured",
    f"plan {EVENTS} --no-calibration",
    f"doctor {EVENTS}",
    f"append {EVENTS} later.csv {CLASSES}",
]
ON_RUNS = [
    "train --resume RUN",
    "train --resume RUN --epochs 3",
    "embed RUN out.h5",
    "embed RUN out.npy --at 1200000100 --nodes nodes.txt",
    "report RUN",
    "report static stopped -o page.html",
    f"doctor --run RUN {EVENTS}",
    "score RUN pairs.csv",
    "recommend RUN --top 2 --nodes nodes.txt",
    "evaluate RUN",
    "classify RUN --seeds 1 --epochs 2",
    "update RUN",
    "config RUN",
    f"train {EVENTS} --run RUN TRAIN",
]
AFTER = [
    " && inspect new.events.h5 --verify",
    " && doctor new.events.h5",
    " && train new.events.h5 --run new TRAIN",
    " && train new.events.h5 --run new --task edge --class-features TRAIN",
]
COMMANDS = {
    EVENTS: [*ON_EVENTS, *ON_RUNS],
    "s.batches.h5": [
        "inspect s.batches.h5",
        "inspect s.batches.h5 --verify",
        f"train {EVENTS} --run new --batches s.batches.h5 --negative-sets 1 TRAIN",
        "train --resume stopped",
        f"sample {EVENTS} s.batches.h5 --negative-sets 1 --local-batch 25 --num-neighbors 4",
    ],
    "s.static.h5": [
        "inspect s.static.h5",
        "inspect s.static.h5 --verify",
        f"train {EVENTS} --run new --static s.static.h5 TRAIN",
        "train --resume static --epochs 3",
        "embed static out.h5",
        "evaluate static",
        f"doctor {EVENTS} --static s.static.h5",
    ],
    "static/memory.h5": ["inspect static/memory.h5", "inspect static/memory.h5 --verify", *ON_RUNS],
    "runs": ON_RUNS,
    "inputs": [],
    "pairs.csv": ["score RUN pairs.csv", "score RUN pairs.csv -o out.parquet --skip-unknown"],
    "nodes.txt": ["recommend RUN --top 2 --nodes nodes.txt", "embed RUN out.npy --nodes nodes.txt"],
    "settings.toml": [f"train {EVENTS} --run new --config settings.toml", "config --config settings.toml"],
    "in.csv": [
        f"prepare in.csv new.events.h5 {CLASSES}{options}{after}"
        for options in ("", " --bipartite", " --log-features all", " --feature-dtype int8")
        for after in ("", *AFTER)
    ],
    "later.csv": [f"append {EVENTS} later.csv {CLASSES}"],
    "nodes.npy": ["prepare inputs/csv/in.csv new.events.h5 --node-features nodes.npy"],
}
SHARES = {EVENTS: 5, "runs": 10, "inputs": 4, "s.static.h5": 2}  # of the cases, where more than one


def _zip(content):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("in.csv", content)
    return made.getvalue()


def _zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": _zstd, ".zip": _zip}


def run_command(line):
    """Run a command line in this process; returns its exit status."""
    words = line.replace("TRAIN", " ".join(TRAIN)).split()
    with mock.patch.object(sys, "argv", ["disttgl", *words]):
        try:
            cli.main()
        except SystemExit as left:
            return left.code or 0


def run_commands(text):
    """Run command lines joined by && until one fails; returns the exit status of the last."""
    return next(filter(None, map(run_command, text.split(" && "))), 0)


def make_files():
    """Make the stores, runs and inputs of all cases in the working directory, by the commands themselves."""
    draws = random.Random(0)
    rows = [
        f"u{min(draws.randrange(12), k // 8)},v{draws.randrange(9)},{START_S + k},{'abc'[k % 3]},{k % 2},0.5,{k}\n"
        for k in range(160)
    ]
    for name, part in (("in.csv", rows[:150]), ("later.csv", rows[150:])):
        Path(name).write_text("src,dst,time,label,state,f,g\n" + "".join(part))
    Path("pairs.csv").write_text(f"src,dst,time\nu1,v1,{START_S + 200}\nu2,v3,{START_S + 100}\n")
    Path("nodes.txt").write_text("u1\nv2\nu3\n")
    Path("settings.toml").write_text("epochs = 1\nlocal_batch = 25\ndim_memory = 8\ntask = 'link'\n")
    np.save("nodes.npy", np.ones((4, 2), np.float32))
    inputs = complete_inputs()
    text = inputs["csv"]["in.csv"]
    for suffix, compress in COMPRESSIONS.items():
        inputs[f"csv{suffix}"] = {f"in.csv{suffix}": compress(text)}
    for kind, files in inputs.items():
        Path("inputs", kind).mkdir(parents=True)
        for name, content in files.items():
            Path("inputs", kind, name).write_bytes(content)
    calls = itertools.count()
    for line in (
        f"prepare in.csv {EVENTS} {CLASSES}",
        f"pretrain {EVENTS} s.static.h5 --kind static-gnn --epochs 1 --dim-memory 8",
        f"sample {EVENTS} s.batches.h5 --negative-sets 1 --local-batch 25 --num-neighbors 4",
        f"train {EVENTS} --run static --static s.static.h5 --task link+edge --trace-steps 3 TRAIN --epochs 2",
        "update static",
        f"train {EVENTS} --run stopped --batches s.batches.h5 --negative-sets 1 --checkpoint-steps 1 TRAIN --epochs 2",
    ):
        stops = "stopped" in line
        with mock.patch.object(StopRequest, "is_made", lambda _, stops=stops: stops and next(calls) > 6):
            status = run_command(line)
        assert status == (75 if stops else 0), line


def damage(draws):
    """Damage one thing in the working directory; returns what was done, and the command line that meets it."""
    target = draws.choices(list(COMMANDS), [SHARES.get(name, 1) for name in COMMANDS])[0]
    if target == "inputs":
        kind = draws.choice(sorted(path.name for path in Path("inputs").iterdir()))
        folder = Path("inputs", kind)
        path = draws.choice(sorted(folder.iterdir()))
        given = folder if kind in ("tgl", "dyglib", "kg") else path
        command = f"prepare {given} new.events.h5" + draws.choice(["", f" --format {kind.partition('.')[0]}"])
        command += draws.choice(["", *AFTER])
    else:
        run = draws.choice(RUNS)
        below = sorted(Path(run).rglob("*"))
        path = draws.choice(below) if target == "runs" else Path(target)
        command = draws.choice(COMMANDS[target]).replace("RUN", run)
    if path.is_dir():
        how = "rearranged"
        rearrange(path, draws)
    else:
        how = draws.choices(["contents", "bytes", "contents and bytes", "file"], [5, 4, 2, 1])[0]
        if "contents" in how:
            change_contents(path, draws)
        if how == "contents" and draws.random() < 0.5:
            seal(path)
        if "bytes" in how:
            path.write_bytes(change_bytes(path.read_bytes(), draws))
        if "file" in how:
            others = [Path(name) for name in COMMANDS if Path(name).is_file() and name != target]
            replace_file(path, others, draws)
    return f"{path}: {how}", command


def seal(path):
    """Make the checksums of a checkpoint, a static memory or a kept memory fit what has been changed in it."""
    with suppress(LookupError, TypeError, ValueError, AttributeError, MemoryError):  # changed beyond that
        if path.parent.name.startswith("step-"):
            attributes = json.loads((path.parent / "manifest.json").read_bytes())["attributes"]
            parts = sorted(path.parent.glob("node-*.h5"))
            write_manifest(path.parent, [sha256_of(part) for part in parts], attributes)
        elif path.name in {"s.static.h5", "memory.h5"}:
            with h5py.File(path, "r+") as file:
                rows, origin = file[min(file)][()], json.loads(file.attrs["origin"])
                file.attrs["checksum"] = _checksum(rows, origin)


def change_contents(path, draws):
    """Change a file by what it holds."""
    if path.suffix == ".h5":
        change_structure(path, draws)
    else:
        changes = {".json": change_json, ".jsonl": change_json, ".csv": change_text, ".txt": change_text}
        for _ in range(draws.choice([1, 1, 2, 3])):
            path.write_bytes(changes.get(path.suffix, change_bytes)(path.read_bytes(), draws))


def run_case(key, output):
    """Fork; damage and run in the child. Returns its wait status, whether it hung, and its peak memory in MiB."""
    pid = os.fork()
    if pid == 0:
        _be_the_child(key, output)
    child = os.pidfd_open(pid)
    hangs = not select.select([child], [], [], CASE_S)[0]
    if hangs:
        os.kill(pid, signal.SIGABRT)  # Python then prints where every thread is
        if not select.select([child], [], [], 5)[0]:
            os.kill(pid, signal.SIGKILL)
    os.close(child)
    _, status, used = os.wait4(pid, 0)
    return status, hangs, used.ru_maxrss // 1024


def _be_the_child(key, output):
    status = 3
    try:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        what, command = damage(random.Random(key))
        sys.stdout.write(f"{what}; disttgl {command}\n")
        sys.stdout.flush()
        size_kib = re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]
        most = int(size_kib) * 1024 + ROOM_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = run_commands(command)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fault(status, hangs, output):
    """What a user should not have seen, in words that are the same for the same fault; "" if there is nothing."""
    frames = re.findall(r'File "[^"]*/disttgl_hpc/([^"]+)", line (\d+)', output)
    if hangs or os.WIFSIGNALED(status):
        what = "hangs" if hangs else signal.Signals(os.WTERMSIG(status)).name
        return f"{what} in {':'.join(frames[0])}" if frames else what
    if "Traceback (most recent call last)" in output:
        kind, where = re.search(r"unexpected (\w+)", output), frames[-1] if frames else ["a test"]
        return f"{kind[1] if kind else output.split()[-1]} in {':'.join(where)}"
    if "not enough memory" in output:
        return "takes more memory than there is"
    warning = re.search(r"^(\S+:\d+): (\w*Warning): ", output, re.MULTILINE)
    if warning:
        return f"{warning[2]} in {warning[1].partition('disttgl_hpc/')[2] or warning[1]}"
    if "HDF5-DIAG" in output:
        return "HDF5's own messages"
    number = os.waitstatus_to_exitcode(status)
    is_told = "Error: " in output or "disttgl doctor" in output
    return "" if number == 0 or (number in (1, 2) and is_told) else f"status {number}"


def main():
    """Run the cases and print the faults found, the most frequent first; exit with 1 if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the last case's files and output")
    given = parser.parse_args()
    found, statuses, most_mib = defaultdict(list), Counter(), 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        whole, place, output = base / "whole", base / "place", base / "output"
        place.mkdir()
        os.chdir(place)
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            make_files()
            shutil.copytree(place, whole)
            warm_up(whole, place)
        for number in range(given.first, given.first + given.cases):
            restore(whole, place)
            status, hangs, mib = run_case(f"{given.seed}/{number}", output)
            told = output.read_text(encoding="utf-8", errors="replace")
            most_mib = max(most_mib, mib)
            statuses[os.waitstatus_to_exitcode(status)] += 1
            what = fault(status, hangs, told)
            if what:
                found[what].append(number)
                tell(f"{number}: {what}: {told.splitlines()[0]}")
        if given.keep:
            shutil.copytree(place, given.keep, symlinks=True)
            shutil.copyfile(output, given.keep / "output.txt")
        os.chdir(HERE)
    tell(
        f"{given.cases} cases by status: {dict(statuses)}; at most {most_mib} MiB; {len(found)} kinds of faults"
    )
    for what, numbers in sorted(found.items(), key=lambda item: -len(item[1])):
        tell(f"{len(numbers):5} × {what}: {numbers[:5]}")
    sys.exit(1 if found else 0)


def warm_up(whole, place):
    """Run every command once on whole files: cases then start with everything imported and compiled."""
    commands = {line.replace("RUN", run) for lines in COMMANDS.values() for line in lines for run in RUNS}
    for line in sorted(commands):
        restore(whole, place)
        assert run_commands(line) in (0, 2), line  # 2: what it would write is there


def restore(whole, place):
    """Make the working directory what it was before the first case."""
    os.chdir(whole)
    shutil.rmtree(place)
    shutil.copytree(whole, place)
    os.chdir(place)


def tell(line):
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
