"""Features and T-CSR are maps of the store, shared by the processes of a node and never loaded as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from disttgl_hpc.events.synthetic import Recipe
from disttgl_hpc.ingest.generate import GenerateSettings, generate

MIB = 1 << 20
pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc"),
    pytest.mark.slow,
]

_READ_ALL = """
import sys
from disttgl_hpc.store.event_store import EventStore

stream = EventStore.open(sys.argv[1]).stream
tcsr = stream.tcsr
arrays = (stream.edge_features, tcsr.neighbors, tcsr.event_ids, tcsr.times)
print(sum(int(array.sum(dtype=int)) for array in arrays), flush=True)
sys.stdin.read()  # hold the maps until the parent closes the pipe
"""

_GATHER_WITH_LITTLE_MEMORY = """
import resource, sys
import numpy as np
import torch
from disttgl_hpc.sampling.mfg import Mfg
from disttgl_hpc.model.input_builder import InputBuilder
from disttgl_hpc.store.event_store import EventStore

torch.set_num_threads(1)
stream = EventStore.open(sys.argv[1]).stream
inputs = InputBuilder(stream, torch.device("cpu"))
rng = np.random.default_rng(0)


def gather(num_roots):
    rows = np.zeros((num_roots, 10), np.int64)
    event_ids = rng.integers(0, stream.num_events, rows.shape)
    mfg = Mfg(np.arange(2), rows[:, 0], rows, event_ids, rows.astype(np.float32), rows[:, 0])
    return inputs.graph(mfg).edges.gather(torch.float32).shape


gather(100)
in_use = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (in_use + int(sys.argv[2]), -1))
for _ in range(500):
    gather(100)
try:
    np.array(stream.edge_features)
except MemoryError:
    print("gathered, but not loaded")
"""


def make(path, num_events, dim_edge, dtype="float32"):
    recipe = Recipe(num_events=num_events, num_src=100, dim_edge=dim_edge, feature_dtype=dtype)
    generate(GenerateSettings(recipe=recipe, output=path))
    return path


def proportional_bytes(pid, path):
    """Memory of a process's maps of a file, each page divided by the processes that share it."""
    total, of_the_file = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            of_the_file = line.endswith(f" {path}")
        elif of_the_file and name == "Pss:":
            total += int(values[0]) << 10
    return total


def reader(path):
    """A process that has read all features and the whole T-CSR, and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", _READ_ALL, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return process, process.stdout.readline()


def test_pitfall_26_two_processes_hold_one_copy(tmp_path):
    path = make(tmp_path / "shared.events.h5", 20_000, 64)
    size = 20_000 * (64 * 4 + 2 * 16)
    first, said = reader(path)
    alone = proportional_bytes(first.pid, path)
    second, said_too = reader(path)
    shared = [proportional_bytes(process.pid, path) for process in (first, second)]
    for process in (first, second):
        process.communicate()
        assert process.returncode == 0
    assert said == said_too
    assert alone > 0.95 * size
    np.testing.assert_allclose(shared, alone / 2, rtol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_features_are_gathered_with_less_memory_than_they_take(tmp_path, dtype):
    path = make(tmp_path / "wide.events.h5", {"float32": 25_000, "int8": 100_000}[dtype], 320, dtype)
    assert path.stat().st_size > 30 * MIB
    done = subprocess.run(
        [sys.executable, "-c", _GATHER_WITH_LITTLE_MEMORY, str(path), str(16 * MIB)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "gathered, but not loaded\n", done.stderr
