"""Sampling beforehand: the same store however it came about, and the same batches as live sampling."""

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.grid.schedule import Coordinates, GridShape, assignment
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling import presample as sampling
from disttgl_hpc.sampling.local_batch import BatchSampler, StoredGraphs
from disttgl_hpc.sampling.presample import sample
from disttgl_hpc.store.batch_store import BatchStore

SETS = {**SMALL, "negative_sets": 3, "negatives_per_event": 2}


@pytest.fixture
def events(tmp_path):
    return make_store(tmp_path)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts for a few hundred events."""
    monkeypatch.setattr(sampling, "_PART_SLOTS", 1_600)


def sampled(events, output, minibatch=1, *, force=False, **settings):
    return sample(events, TrainConfig(**{**SETS, **settings}), minibatch, output, MPI.COMM_SELF, force=force)


def flat(value):
    """All arrays of a local batch, in order, with the names of their places."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple):
        return [array for item in value for array in flat(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [array for name in value.__dataclass_fields__ for array in flat(getattr(value, name))]
    return [np.array([repr(value)])]


@pytest.mark.parametrize("grid", ["1x1x1", "2x1x1", "1x2x1", "3x2x2"])
@pytest.mark.parametrize("strategy", ["random", "historical"])
def test_stored_batches_are_the_live_ones(tmp_path, events, grid, strategy):
    """For every trainer, in steps of more than a sweep; 3 slices leave slices of the last batch empty."""
    shape, settings = GridShape.parse(grid), {**SETS, "negative_strategy": strategy}
    if grid == "3x2x2":
        settings |= {"local_batch": 17, "pair_features": True, "comb": "mean"}  # 154 events: 51 + 51 + 51 + 1
    config = TrainConfig(**settings)
    output = tmp_path / "x.batches.h5"
    sampled(events, output, shape.minibatch, **settings)
    plan = RunPlan.of(events.stream, config, shape)
    graphs = StoredGraphs.open(output, events, config, shape.minibatch)
    places = [
        Coordinates(minibatch, epoch, memory)
        for minibatch in range(shape.minibatch)
        for epoch in range(shape.epoch)
        for memory in range(shape.memory)
    ]
    for place in places:
        live = BatchSampler(events.stream, config, plan.shape, plan.batching, place)
        stored = BatchSampler(events.stream, config, plan.shape, plan.batching, place, graphs=graphs)
        for step in range(2 * plan.num_batches):
            work = assignment(step, place, shape, plan.num_batches)
            if work is None:
                continue
            pairs = zip(flat(live.sample(work)), flat(stored.sample(work)), strict=True)
            for one, other in pairs:
                assert one.dtype == other.dtype
                assert np.array_equal(one, other)


def test_positions_lead_from_the_batch_to_the_nodes_of_each_pass(events):
    shape, config = GridShape(1, 3, 1), TrainConfig(**SETS)
    plan = RunPlan.of(events.stream, config, shape)
    place = Coordinates(0, 0, 0)
    sampler = BatchSampler(events.stream, config, plan.shape, plan.batching, place)
    for step in range(0, plan.num_batches, 3):
        batch = sampler.sample(assignment(step, place, shape, plan.num_batches))
        assert len(np.unique(batch.nodes)) == len(batch.nodes)
        assert len(batch.passes) == 3
        for one in batch.passes:
            assert np.array_equal(batch.nodes[one.positions], one.mfg.nodes)


def test_passes_take_fixed_sets_in_turn_but_share_no_dropout(events):
    """One event batch in four sweeps: sets 0, 1, 2, 0; every mask is another."""
    config, shape = TrainConfig(**{**SETS, "dropout": 0.5}), GridShape(1, 1, 1)
    plan = RunPlan.of(events.stream, config, shape)
    place = Coordinates(0, 0, 0)
    sampler = BatchSampler(events.stream, config, plan.shape, plan.batching, place)
    passes = [
        sampler.sample(assignment(sweep * plan.num_batches + 1, place, shape, plan.num_batches)).passes[0]
        for sweep in range(4)
    ]
    nodes = [one.mfg.nodes[one.mfg.roots].tolist() for one in passes]
    assert nodes[0] == nodes[3]
    assert nodes[0] != nodes[1] != nodes[2] != nodes[0]
    assert (passes[0].keep != passes[3].keep).any()


def killed_after(folder, parts):
    """Start ``sample`` in a process that kills itself when it has written so many parts."""
    program = f"""
import os, signal
from pathlib import Path
from mpi4py import MPI
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.sampling import presample as sampling
from disttgl_hpc.store.event_store import EventStore

sampling._PART_SLOTS = 1_600
write, written = sampling.write_part, []

def count(*arguments):
    if len(written) == {parts}:
        arguments[0].with_name(f".{{arguments[0].name}}.0123abcd.1.partial").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(write(*arguments))

sampling.write_part = count
events = EventStore.open(Path("random.events.h5"))
sampling.sample(events, TrainConfig(**{SETS!r}), 1, Path("x.batches.h5"), MPI.COMM_SELF)
"""
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, check=False)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, events, monkeypatch):
    whole = tmp_path / "whole.batches.h5"
    sampled(events, whole)
    assert killed_after(tmp_path, 2).returncode == -9
    output, folder = tmp_path / "x.batches.h5", tmp_path / ".x.batches.h5.parts"
    assert not output.exists()
    assert len(list(folder.glob("part-*.h5"))) == 2
    written = []
    write = sampling.write_part
    monkeypatch.setattr(sampling, "write_part", lambda *a: written.append(write(*a)))
    store = sampled(events, output)
    assert output.read_bytes() == whole.read_bytes()
    assert not folder.exists()
    config = TrainConfig(**SETS)
    maker = sampling._Maker(events.stream, store.key, sampling.LiveGraphs(events.stream, config))
    assert len(written) == len(maker.part_bounds()) - 2 > 0


def test_files_of_others_in_the_folder_of_parts_stay(tmp_path, events):
    folder, outside = tmp_path / ".x.batches.h5.parts", tmp_path / "outside"
    folder.mkdir()
    (folder / "diary.txt").write_text("mine")
    sampled(events, tmp_path / "x.batches.h5")
    assert [path.name for path in folder.iterdir()] == ["diary.txt"]
    folder.rename(outside)
    folder.symlink_to(outside)
    with pytest.raises(StoreError, match="symbolic link"):
        sampled(events, tmp_path / "x.batches.h5", force=True)
    assert [path.name for path in outside.iterdir()] == ["diary.txt"]


def test_parts_of_other_settings_or_damaged_ones_are_made_anew(tmp_path, events):
    whole, output = tmp_path / "whole.batches.h5", tmp_path / "x.batches.h5"
    sampled(events, whole)
    assert killed_after(tmp_path, 3).returncode == -9
    part = sorted((tmp_path / ".x.batches.h5.parts").glob("part-*.h5"))[1]
    content = bytearray(part.read_bytes())
    content[-100] ^= 1
    part.write_bytes(content)
    sampled(events, output)
    assert output.read_bytes() == whole.read_bytes()
    output.unlink()
    assert killed_after(tmp_path, 3).returncode == -9
    assert sampled(events, output, seed=5).key.seed == 5
    assert output.read_bytes() != whole.read_bytes()


def test_a_store_of_other_events_is_refused(tmp_path, events):
    output = tmp_path / "x.batches.h5"
    sampled(events, output)
    (tmp_path / "other").mkdir()
    other = make_store(tmp_path / "other", seed=1)
    with pytest.raises(StoreError, match=r"x\.batches\.h5: .*events"):
        StoredGraphs.open(output, other, TrainConfig(**SETS), 1)


def test_an_output_is_not_replaced_unasked(tmp_path, events):
    output = tmp_path / "x.batches.h5"
    sampled(events, output)
    with pytest.raises(ConfigError, match=r"already exists.*--force"):
        sampled(events, output)
    assert sampled(events, output, force=True, seed=3).key.seed == 3
    with pytest.raises(ConfigError, match="batch store"):
        sampled(events, events.path, force=True)
    with pytest.raises(ConfigError, match="folder"):
        sampled(events, tmp_path / "none" / "x.batches.h5")


def test_fresh_sets_cannot_be_sampled_beforehand(tmp_path, events):
    with pytest.raises(ConfigError, match="--negative-sets"):
        sampled(events, tmp_path / "x.batches.h5", negative_sets=0)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, events, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(sampling.shutil, "disk_usage", lambda _: usage(1_000))
    with pytest.raises(StoreError, match=r"are free"):
        sampled(events, tmp_path / "x.batches.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["random.events.h5"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, events):
    (tmp_path / ".x.batches.h5.parts").write_text("a file in the way")
    with pytest.raises(StoreError, match=r"\.parts: .*File exists"):
        sampled(events, tmp_path / "x.batches.h5")


def test_the_estimate_is_near_the_store(tmp_path, events):
    store = sampled(events, tmp_path / "x.batches.h5")
    config = TrainConfig(**SETS)
    maker = sampling._Maker(events.stream, store.key, sampling.LiveGraphs(events.stream, config))
    size, seconds = maker.estimate()
    assert size == pytest.approx(len(store.records), rel=0.2)
    assert seconds > 0


PROGRAM = """
import sys
from pathlib import Path
from mpi4py import MPI
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.sampling import presample as sampling
from disttgl_hpc.store.event_store import EventStore

sampling._PART_SLOTS = 1_600
events = EventStore.open(Path("random.events.h5"))
sampling.sample(events, TrainConfig(**{settings!r}), 2, Path(sys.argv[1]), MPI.COMM_WORLD)
"""


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_makes_the_same_store(tmp_path, events, ranks):
    alone = sampled(events, tmp_path / "alone.batches.h5", 2)
    command = ["timeout", "100", "mpiexec", "-n", f"{ranks}", sys.executable, "-m", "mpi4py", "-c"]
    program = PROGRAM.format(settings=SETS)
    done = subprocess.run(
        [*command, program, "together.batches.h5"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    together = Path(tmp_path / "together.batches.h5")
    assert together.read_bytes() == alone.path.read_bytes()
    BatchStore.open(together).verify()
