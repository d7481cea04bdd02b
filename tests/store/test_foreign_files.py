"""Damaged and hostile stores: invalid values, wrong sizes, data outside the file."""

import os
import shutil

import h5py
import numpy as np
import pytest
from small_store import NUM_EVENTS, NUM_NODES, write_small_store

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store import event_store as contents
from disttgl_hpc.store.checkpoint_files import read_array, read_checkpoint, write_checkpoint
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import is_kind


@pytest.fixture
def path(tmp_path):
    return write_small_store(tmp_path / "small.events.h5")


def test_a_written_store_passes_the_checks(path, monkeypatch):
    EventStore.open(path).check_contents()
    monkeypatch.setattr(contents, "_PIECE", 7)
    EventStore.open(path).check_contents()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(tmp_path, make):
    """Opening a FIFO would wait for somebody who writes to it."""
    make(tmp_path / "x.events.h5")
    assert not is_kind(tmp_path / "x.events.h5", "disttgl-events")
    with pytest.raises(StoreError, match="must be a file, found a"):
        EventStore.open(tmp_path / "x.events.h5")


@pytest.mark.parametrize("piece", [1 << 18, 7])
@pytest.mark.parametrize(
    ("name", "at", "value", "rule"),
    [
        ("events/src", 3, 5, "ids of sources"),
        ("events/src", 3, -1, "ids of sources"),
        ("events/dst", 39, 4, "ids of destinations"),
        ("events/dst", 0, NUM_NODES, "ids of destinations"),
        ("events/time", 20, 0, "ascending order"),
        ("tcsr/indptr", 4, 10**6, "positions in ascending order"),
        ("tcsr/neighbors", 7, NUM_NODES, "ids of nodes"),
        ("tcsr/event_ids", 7, NUM_EVENTS, "ids of events"),
        ("tcsr/event_ids", 1, 0, "each node's events in ascending order"),
    ],
)
def test_invalid_values_are_rejected(path, monkeypatch, piece, name, at, value, rule):
    monkeypatch.setattr(contents, "_PIECE", piece)
    with h5py.File(path, "r+") as file:
        file[name][at] = value
    store = EventStore.open(path)
    with pytest.raises(StoreError, match=rf"small\.events\.h5: .*{name}: .*{rule}"):
        store.check_contents()


@pytest.mark.parametrize(
    ("name", "at", "value"), [("validation", 1, NUM_NODES), ("validation", 2, -2), ("test", 0, -1)]
)
def test_given_negatives_must_be_destinations(tmp_path, name, at, value):
    path = write_small_store(tmp_path / "x.events.h5", negatives=True)
    with h5py.File(path, "r+") as file:
        file[f"negatives/{name}"][3, at] = value
    with pytest.raises(StoreError, match=f"negatives/{name}: ids of destinations"):
        EventStore.open(path).check_contents()


def test_nan_times_are_rejected(tmp_path):
    times = np.arange(NUM_EVENTS, dtype=np.float64)
    times[17] = np.nan
    store = EventStore.open(write_small_store(tmp_path / "x.events.h5", time=times))
    with pytest.raises(StoreError, match="finite times"):
        store.check_contents()


@pytest.mark.parametrize("number", [10**15, -1, 0])
def test_a_wrong_number_of_nodes_is_rejected(path, number):
    with h5py.File(path, "r+") as file:
        file.attrs["num_nodes"] = number
    with pytest.raises(StoreError, match="small"):
        EventStore.open(path)


def replace(path, name, make):
    """Replace a dataset."""
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        del file[name]
        make(file, name, values)


def elsewhere(folder):
    """Functions that make a dataset refer to data outside its file, by name."""
    other = folder / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros(4)
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(other, "x", (4,))
    (folder / "bytes").write_bytes(bytes(10_000))
    return {
        "external link": lambda file, name, _: file.__setitem__(name, h5py.ExternalLink(other, "x")),
        "soft link": lambda file, name, _: file.__setitem__(name, h5py.SoftLink("/elsewhere")),
        "virtual": lambda file, name, _: file.create_virtual_dataset(name, layout),
        "external storage": lambda file, name, values: file.create_dataset(
            name, values.shape, values.dtype, external=[(folder / "bytes", 0, h5py.h5f.UNLIMITED)]
        ),
        "size beyond the file": lambda file, name, values: file.create_dataset(
            name, (10**15, *values.shape[1:]), values.dtype, chunks=(1024, *values.shape[1:])
        ),
    }


@pytest.mark.parametrize(
    "way", ["external link", "soft link", "virtual", "external storage", "size beyond the file"]
)
def test_data_outside_the_file_is_rejected(tmp_path, path, way):
    make = elsewhere(tmp_path)[way]
    for name in ("events/src", "tcsr/neighbors", "nodes/id", "features/edge"):
        copy = tmp_path / "copy.events.h5"
        shutil.copyfile(path, copy)
        replace(copy, name, make)
        with pytest.raises(StoreError, match=rf"copy\.events\.h5: .*{name} must be"):
            EventStore.open(copy)
    part = tmp_path / "part.h5"
    write_checkpoint(part, {"memory/0": np.ones((3, 4), np.float32)}, {})
    replace(part, "memory/0", make)
    with pytest.raises(StoreError, match="memory/0 must be"):
        read_array(part, "memory/0", np.empty((3, 4), np.float32))
    if "link" in way:  # reading all arrays skips links
        assert not read_checkpoint(part).arrays
    else:
        with pytest.raises(StoreError, match="memory/0 must be"):
            read_checkpoint(part)


def test_a_full_disk_is_a_one_line_error_and_leaves_the_old_file(small_disk, capfd):
    path, free = small_disk / "x.events.h5", small_disk / "filling"
    write_small_store(path)
    whole = path.read_bytes()
    for kilobytes in range(0, len(whole) // 1024 + 8, 4):
        free.write_bytes(bytes(shutil.disk_usage(small_disk).free - 1024 * kilobytes))
        with pytest.raises(StoreError, match=r"x\.events\.h5: .*No space left on device"):
            write_small_store(path)
        assert path.read_bytes() == whole
        free.unlink()
        assert [place.name for place in small_disk.iterdir()] == [path.name]
    assert capfd.readouterr().err == ""


def test_texts_are_not_stored_in_a_heap(path, tmp_path):
    """The HDF5 library may loop forever if a heap is damaged."""
    part = tmp_path / "part.h5"
    write_checkpoint(part, {"memory/0": np.ones((3, 4), np.float32)}, {"step": 3, "name": "ü"})
    assert read_checkpoint(part).attributes == {"step": 3, "name": "ü"}
    for file in (path, part):
        assert b"GCOL" not in file.read_bytes()


@pytest.mark.parametrize("kind", [b"\xff", 3, np.zeros(2), None])
def test_an_invalid_kind_matches_no_kind(tmp_path, kind):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if kind is not None:
            file.attrs["kind"] = np.bytes_(kind) if isinstance(kind, bytes) else kind
    assert not is_kind(tmp_path / "x.h5", "disttgl-events")
    with pytest.raises(StoreError, match=r"x\.h5: "):
        EventStore.open(tmp_path / "x.h5")


def test_texts_in_a_heap_are_still_read(path):
    """Earlier versions wrote them."""
    before = EventStore.open(path)
    with h5py.File(path, "r+") as file:
        for name in ("kind", "name", "checksum", "time_unit"):
            file.attrs[name] = file.attrs[name].decode()
    assert b"GCOL" in path.read_bytes()
    after = EventStore.open(path)
    after.verify()
    assert (after.stream.name, after.checksum, after.stream.time_unit) == ("small", before.checksum, "s")
