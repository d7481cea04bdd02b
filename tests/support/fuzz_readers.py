"""Fuzzing: readers of damaged and absurd files refuse them with a DisttglError, or return valid contents.

Run by test_fuzzing.py in a process of its own, because a reader may crash or eat all memory; or by hand for longer:

    DISTTGL_FUZZ_CASES=20000 python -m pytest tests/support/fuzz_readers.py -q -p no:cacheprovider
"""

import faulthandler
import io
import json
import os
import resource
import shutil
import signal
import sys
import zlib
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from complete_inputs import ARRAYS, ROWS, complete_inputs
from damages import change_bytes, change_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig, read_toml, train_config
from disttgl_hpc.errors import ConfigError, DisttglError, InputError, StoreError
from disttgl_hpc.events.statistics import describe
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.sampling.local_batch import Slice, StoredGraphs
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors
from disttgl_hpc.sampling.presample import sample
from disttgl_hpc.store.checkpoint_files import (
    _digest,
    checkpoint_folder,
    part_path,
    read_array,
    read_checkpoint,
    write_checkpoint,
    write_manifest,
)
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import KeptMemory, MemoryOrigin, write_memory
from disttgl_hpc.training.resume import find_start, resumed_config
from disttgl_hpc.training.run_directory import RunDirectory, run_settings, saved_config

CASES = int(os.environ.get("DISTTGL_FUZZ_CASES", "40"))
ROOM_BYTES = 2 << 30  # of address space beyond that of the process at its start
CASE_S = 60  # may include compiling
COUNT = {"cases": 0, "refused": 0}

fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    derandomize="DISTTGL_FUZZ_CASES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="session", autouse=True)
def _bounds():
    """Limit memory to what readers of these small files may use; print the counts at the end."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    most = int(status["VmSize"].split()[0]) * 1024 + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    yield
    sys.__stdout__.write(f"\nfuzzed: {COUNT['cases']} cases, {COUNT['refused']} refused\n")


@contextmanager
def case():
    """One case: it ends in time, without an error or with one of ours that has a remedy."""

    def give_up(*_):
        raise TimeoutError(f"a reader took more than {CASE_S} s")

    COUNT["cases"] += 1
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(CASE_S)
    # For a library that does not return to the interpreter.
    faulthandler.dump_traceback_later(2 * CASE_S, exit=True)
    try:
        yield
    except (StoreError, InputError, ConfigError) as error:
        COUNT["refused"] += 1
        if ": " not in str(error):
            raise AssertionError(f"no remedy: {error}") from error
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def originals(folder):
    """A valid file of each kind, by kind."""
    store = make_store(folder, dim_edge=3)
    config = TrainConfig(**SMALL, negative_sets=1)
    sample(store, config, 1, folder / "x.batches.h5", MPI.COMM_SELF)
    arrays = {"weights/a": np.eye(3, dtype=np.float32), "memory/0": np.ones((17, 16), np.float32)}
    arrays["optimiser/a/step"] = np.array(3.0)
    write_checkpoint(folder / "part.h5", arrays, {"step": 3})
    names = ("position", "run_events", "train_end", "validation_end")
    origin = MemoryOrigin(
        weights="w", events="e", events_path="x", **dict(zip(names, (9, 9, 3, 6), strict=True))
    )
    write_memory(folder / "memory.h5", np.ones((17, 16), np.float32), origin)
    files = {"batches": "x.batches.h5", "part": "part.h5", "memory": "memory.h5"}
    return {"events": store.path} | {kind: folder / name for kind, name in files.items()}


draws_of_damage = st.randoms(use_true_random=False)


def damaged(original, path, draws):
    """Write a copy with other bytes, or cut."""
    path.write_bytes(change_bytes(original.read_bytes(), draws))


def use_events(path):
    """Open, check and walk an event store as training would; an accepted one must be valid."""
    store = EventStore.open(path)
    store.check_contents()
    stream = store.stream
    walk(stream)
    return stream


def walk(stream):
    num_events = stream.num_events
    bounds = event_bounds(stream.time, 0, num_events)
    for roots in (stream.src, stream.dst):
        found = recent_neighbors(stream.tcsr, np.asarray(roots), stream.time, bounds, 3)
        assert found.neighbors.min() >= 0
        assert found.neighbors.max() < stream.num_nodes
        assert found.event_ids.max() < num_events
    describe(stream)


@fuzzed
@given(draws_of_damage)
def test_bytes_of_an_event_store(originals, folder, damage):
    path = folder / "damaged.events.h5"
    damaged(originals["events"], path, damage)
    with case():
        use_events(path)
    with case():
        EventStore.open(path).node_ids()


NAMES = ["events/src", "events/dst", "events/time", "tcsr/indptr", "tcsr/neighbors", "tcsr/event_ids"]
NAMES += ["tcsr/times", "nodes/id", "features/edge"]
NUMBERS = [
    "num_nodes",
    "num_src",
    "num_events",
    "train_end",
    "validation_end",
    "dropped_rows",
    "schema_version",
]
ABSURD = st.sampled_from([-1, 0, 1, 16, 18, 2**31, 10**15, 2**62]) | st.text(max_size=3) | st.floats()


@fuzzed
@given(st.data())
def test_structure_of_an_event_store(originals, folder, data):
    path = folder / "absurd.events.h5"
    shutil.copyfile(originals["events"], path)
    with h5py.File(path, "r+") as file:
        for name in data.draw(st.lists(st.sampled_from(NUMBERS), max_size=2)):
            value = data.draw(ABSURD)
            file.attrs[name] = value.replace("\0", "") if isinstance(value, str) else value
        for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True)):
            change_dataset(file, name, data.draw(draws_of_damage))
    with case():
        use_events(path)


def use_batches(path, store):
    graphs = StoredGraphs.open(path, store, TrainConfig(**SMALL, negative_sets=1), 1)
    size, train_end = SMALL["local_batch"], store.stream.split.train_end
    for batch in range(-(-train_end // size)):
        part = Slice(batch, 0, batch * size, min(train_end, (batch + 1) * size))
        mfg = graphs.graph(part, 0)
        assert mfg.nodes.max() < store.stream.num_nodes
        assert mfg.neighbors.max() < len(mfg.nodes)
        assert mfg.event_ids.max() < store.stream.num_events


@fuzzed
@given(draws_of_damage)
def test_bytes_of_a_batch_store(originals, folder, damage):
    path = folder / "damaged.batches.h5"
    damaged(originals["batches"], path, damage)
    with case():
        use_batches(path, EventStore.open(originals["events"]))


@fuzzed
@given(st.data())
def test_structure_of_a_batch_store(originals, folder, data):
    """Includes records with correct checksums and invalid contents."""
    path = folder / "absurd.batches.h5"
    shutil.copyfile(originals["batches"], path)
    with h5py.File(path, "r+") as file:
        if data.draw(st.booleans()):
            key = json.loads(file.attrs["key"])
            key[data.draw(st.sampled_from(sorted(key)))] = data.draw(
                st.sampled_from([0, -1, 10**15, 1.5, None, "x", [], True, 10**400])
            )
            file.attrs["key"] = json.dumps(key)
        for name in data.draw(st.lists(st.sampled_from(["first_batch", "last_batch"]), max_size=1)):
            file.attrs[name] = data.draw(st.sampled_from([-1, 0, 3, 10**15]))
        for name in data.draw(st.lists(st.sampled_from(["offsets", "checksums"]), max_size=1)):
            change_dataset(file, name, data.draw(draws_of_damage))
            break
        else:
            records, offsets = file["records"][:], file["offsets"]
            for at in data.draw(st.lists(st.integers(0, len(records) - 1), max_size=3)):
                records[at] = data.draw(st.sampled_from([0, 1, 255]))
            file["records"][:] = records
            ends = pairwise(offsets[:])
            file["checksums"][:] = [zlib.crc32(records[a:b].tobytes()) for a, b in ends]
    with case():
        use_batches(path, EventStore.open(originals["events"]))


@fuzzed
@given(draws_of_damage)
def test_bytes_of_a_checkpoint(originals, folder, damage):
    path = folder / "damaged.h5"
    damaged(originals["part"], path, damage)
    with case():
        part = read_checkpoint(path)
        assert sum(array.nbytes for array in part.arrays.values()) <= path.stat().st_size
    with case():
        read_array(path, "memory/0", np.empty((17, 16), np.float32))


@fuzzed
@given(st.data())
def test_structure_of_a_checkpoint(originals, folder, data):
    path = folder / "absurd.h5"
    shutil.copyfile(originals["part"], path)
    with h5py.File(path, "r+") as file:
        change_dataset(
            file, data.draw(st.sampled_from(["weights/a", "memory/0"])), data.draw(draws_of_damage)
        )
        if data.draw(st.booleans()):
            file.attrs["attributes"] = data.draw(st.sampled_from(["", "[]", "{", "[" * 50_000, "3", "{}"]))
    with case():
        read_checkpoint(path)
    with case():
        read_array(path, "memory/0", np.empty((17, 16), np.float32))


@fuzzed
@given(st.data(), draws_of_damage)
def test_kept_memory(originals, folder, data, damage):
    path = folder / "damaged-memory.h5"
    if data.draw(st.booleans()):
        damaged(originals["memory"], path, damage)
    else:
        shutil.copyfile(originals["memory"], path)
        with h5py.File(path, "r+") as file:
            if data.draw(st.booleans()):
                change_dataset(file, "memory", data.draw(draws_of_damage))
            else:
                origin = json.loads(file.attrs["origin"])
                origin[data.draw(st.sampled_from(sorted(origin)))] = data.draw(ABSURD)
                file.attrs["origin"] = json.dumps(origin)
    with case():
        kept = KeptMemory.open(path)
        kept.verify()
        assert kept.rows.nbytes <= path.stat().st_size
        assert 0 <= kept.origin.train_end <= kept.origin.run_events


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def run(originals, folder):
    """A run directory with a checkpoint, its events, and the checkpoint's folder."""
    store = EventStore.open(originals["events"])
    made = run_settings(store, TrainConfig(**SMALL, grid="1x1x1"))
    directory = RunDirectory(folder / "run")
    directory.checkpoints.mkdir(parents=True)
    directory.config_file.write_text(json.dumps(made))
    attributes = {"step": 7, "sweep": 1, "ends_sweep": True, "epochs": 1, "grid": "1x1x1", "settings": made}
    attributes["before"] = {"epochs": 0, "sweeps": 0, "steps": 0}
    step = checkpoint_folder(directory.checkpoints, 7)
    checksum = write_checkpoint(part_path(step, 0), {"weights/a": np.eye(2)}, attributes)
    write_manifest(step, [checksum], attributes)
    best = {"step": 7, "sweep": 1, "score": 0.5}
    directory.record("sweep", {"sweep": 1, "step": 7, "loss": 0.1, "validation": {"mrr": 0.5}, "best": best})
    return directory, store, step


SHARE = st.floats(0, 1, exclude_max=True)
OTHER_BYTES = st.tuples(SHARE, st.integers(0, 9), st.binary(max_size=6) | st.just(b"[" * 50_000))
OTHER_VALUE = st.tuples(SHARE, SHARE, JSON)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # it would hide the failure itself
@fuzzed
@given(st.integers(0, 2), OTHER_BYTES | OTHER_VALUE)
def test_files_of_a_run(run, number, change):
    directory, store, step = run
    file = (directory.config_file, directory.metrics_file, step / "manifest.json")[number]
    whole = file.read_bytes()
    try:
        file.write_bytes(changed_json(whole, *change))
        for read in (
            lambda: saved_config(directory.read_config()),
            lambda: resumed_config(directory, {}),
            directory.records,
            directory.read_best,
            lambda: find_start(directory, TrainConfig(**SMALL, grid="1x1x1"), store),
            lambda: find_start(directory, TrainConfig(**SMALL, grid="1x1x2"), store),
        ):
            with case():
                read()
    finally:
        file.write_bytes(whole)


def changed_json(whole, share, size, other):
    """Other bytes at a share of the file; or another value in one of its objects, with the checksum of a manifest."""
    if isinstance(other, bytes):
        at = int(share * len(whole))
        return whole[:at] + other + whole[at + size :]
    values = json.loads(whole)
    objects = [values, *(one for one in values.values() if isinstance(one, dict))]
    inner = objects[int(share * len(objects))]
    names = sorted(inner)
    inner[names[int(size * len(names))]] = other
    if "attributes" in values and isinstance(values.get("sha256"), str):
        values["sha256"] = _digest({key: values[key] for key in ("checksums", "attributes")})
    return json.dumps(values).encode() + b"\n"


@fuzzed
@given(
    st.dictionaries(
        st.sampled_from([*SMALL, "lr", "grid", "seed", "timeout_s", "threads", "device", "zzz"]),
        st.integers() | st.floats() | st.text(max_size=4) | st.booleans() | st.just(10**5000),
        max_size=3,
    )
)
def test_settings(values):
    with case():
        train_config(values).as_dict()


@fuzzed
@given(
    st.binary(max_size=60)
    | st.text(max_size=40).map(str.encode)
    | st.sampled_from(
        [b"lr = 1979-05-27", b"a" * 70_000, b"lr = " + b"9" * 5000, b"x=" + b"[" * 9999, b"lr=nan"]
    )
)
def test_toml(folder, content):
    (folder / "x.toml").write_bytes(content)
    with case():
        train_config(read_toml(folder / "x.toml"))


CELL = st.sampled_from(
    ["0", "1", "-1", "a", '"a,b"', '"', "", " ", "nan", "inf", "1e400", "1" * 30, "0x1", "1.5", "\0"]
)
CELL |= st.text(max_size=3)


@fuzzed
@given(
    st.lists(st.lists(CELL, min_size=1, max_size=5), max_size=6),
    st.sampled_from(["src,dst,time\n", "src,dst,time,f\n", "", "\ufeffsrc,dst,time\n", "src\tdst\ttime\n"]),
    st.sampled_from([",", " ", "\t"]),
    st.sampled_from(["csv", "snap", "jodie", "kg"]),
    st.sampled_from(["\n", "\r\n", "\n\n", "\r", ""]),
    st.booleans(),
)
def test_raw_text(folder, rows, header, delimiter, kind, line_end, bipartite):
    text = header + "".join(delimiter.join(row) + line_end for row in rows)
    prepared(folder, "in.csv", text.encode("utf-8", "surrogatepass"), format=kind, bipartite=bipartite)


@fuzzed
@given(
    st.binary(max_size=200), st.sampled_from(["in.csv", "in.csv.gz", "in.txt", "in.csv.zst", "in.csv.zip"])
)
def test_raw_bytes(folder, content, name):
    prepared(folder, name, content)


@fuzzed
@given(
    st.lists(st.integers(0, 5) | st.integers(), min_size=1, max_size=8),
    st.lists(st.integers(-5, 2**40) | st.floats(), min_size=1, max_size=8),
    st.lists(st.floats(), min_size=1, max_size=8),
    st.sampled_from(["float32", "float16", "int8"]),
)
def test_raw_numbers(folder, ids, times, features, dtype):
    rows = zip(ids, reversed(ids), times, features, strict=False)
    text = "src,dst,time,f\n" + "".join(f"{a},{b},{c!r},{d!r}\n" for a, b, c, d in rows)
    columns = parse_columns("src=src,dst=dst,time=time,features=f")
    prepared(folder, "in.csv", text.encode(), columns=columns, feature_dtype=dtype)


COMPLETE = complete_inputs()
VALUE = st.sampled_from([-1, 0, 1, 2, 7, 2**31, 2**62, np.nan, np.inf, 1e300])
DTYPE = st.sampled_from(["i8", "f4", "f8", ">i4", "u8", "?", "S3", "U3", "c8", "f2", "M8[s]", "m8[s]", "V4"])


def absurd_array(values, data):
    """An array with other values, another type or another shape."""
    changed = np.array(values)
    what = data.draw(st.sampled_from(["values", "type", "shape"]))
    with np.errstate(all="ignore"):
        if what == "values":
            changed = changed.astype(data.draw(st.sampled_from(["f8", "i8"])))
            value = np.array(data.draw(VALUE))
            changed.flat[data.draw(st.integers(0, changed.size - 1))] = value.astype(changed.dtype)
        elif what == "type":
            dtype = np.dtype(data.draw(DTYPE))
            changed = changed.astype(str).astype(dtype) if dtype.kind == "V" else changed.astype(dtype)
        else:
            shape = data.draw(st.sampled_from([(), (0,), (1,), (ROWS, 1), (ROWS, 2, 1), (ROWS, 0), (ROWS,)]))
            changed = np.resize(changed, shape)
    return changed


@fuzzed
@given(st.data(), st.booleans())
def test_arrays(folder, data, bipartite):
    names = data.draw(st.lists(st.sampled_from(sorted(ARRAYS)), max_size=3, unique=True))
    left_out = data.draw(st.lists(st.sampled_from(sorted(ARRAYS)), max_size=3, unique=True))
    arrays = ARRAYS | {name: absurd_array(ARRAYS[name], data) for name in names}
    content = io.BytesIO()
    np.savez(content, **{name: values for name, values in arrays.items() if name not in left_out})
    prepared(folder, "in.npz", content.getvalue(), bipartite=bipartite)


@fuzzed
@given(st.data(), draws_of_damage)
def test_bytes_of_all_formats(folder, data, damage):
    kind = data.draw(st.sampled_from(sorted(COMPLETE)))
    files = dict(COMPLETE[kind])
    name = data.draw(st.sampled_from(sorted(files)))
    original, path = folder / "whole", folder / "damaged"
    original.write_bytes(files[name])
    damaged(original, path, damage)
    files[name] = path.read_bytes()
    content = files if len(files) > 1 else files[name]
    prepared(folder, "in" if len(files) > 1 else name, content, format=kind)


def prepared(folder, name, content, **options):
    """Prepare raw input, a file or a folder: a store must be valid, and refused input must leave no files."""
    inputs, made = folder / "raw", folder / "made"
    for place in (inputs, made):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    if isinstance(content, dict):
        (inputs / name).mkdir()
        for file, text in content.items():
            (inputs / name / file).write_bytes(text)
    else:
        (inputs / name).write_bytes(content)
    try:
        with case():
            options = {"inputs": (inputs / name,), "output": made / "out.events.h5", **options}
            prepare(PrepareSettings(**options)).verify()
            use_events(made / "out.events.h5")
            return
    except DisttglError:
        raise AssertionError("an error of ours that is not about input") from None
    assert not list(made.iterdir())
