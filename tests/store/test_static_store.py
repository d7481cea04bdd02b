"""Static stores: damaged ones, and ones of other events, are rejected."""

from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.node_rows import StaticOrigin, StaticStore, write_static_store


def origin(**changes):
    fields = {
        "method": "static-gnn",
        "events": "c" * 64,
        "name": "random",
        "train_end": 100,
        "learned_end": 90,
        "settings": {"lr": 0.01},
        "report": {"best_mrr": 0.5, "epochs": [{"loss": 1.0, "mrr": 0.5}]},
    }
    return StaticOrigin(**{**fields, **changes})


EVENTS = SimpleNamespace(
    path=Path("random.events.h5"), checksum="e" * 64, stream=SimpleNamespace(num_nodes=17)
)  # the part of an event store that is used
ROWS = np.arange(51, dtype=np.float32).reshape(17, 3)


@pytest.fixture
def path(tmp_path):
    write_static_store(tmp_path / "x.static.h5", ROWS, origin())
    return tmp_path / "x.static.h5"


def test_round_trip(path):
    store = StaticStore.open(path)
    assert np.array_equal(store.rows, ROWS)
    assert not store.rows.flags.writeable
    assert store.origin == origin()
    store.verify()


def test_the_checksum_covers_rows_and_origin(path):
    first = StaticStore.open(path).checksum
    assert write_static_store(path, ROWS, origin()) == first
    assert write_static_store(path, ROWS + 1, origin()) != first
    assert write_static_store(path, ROWS, origin(learned_end=80)) != first


def test_other_events_are_rejected(path):
    with pytest.raises(StoreError, match=r"disttgl pretrain random"):
        StaticStore.open(path).check_events(EVENTS)
    write_static_store(path, ROWS, origin(events=EVENTS.checksum))
    StaticStore.open(path).check_events(EVENTS)
    write_static_store(path, ROWS[1:], origin(events=EVENTS.checksum))
    with pytest.raises(StoreError, match="a row for each of 17 nodes, found 16"):
        StaticStore.open(path).check_events(EVENTS)


def test_a_changed_byte_is_found(path):
    with h5py.File(path, "r+") as file:
        file["rows"][3, 1] += 1
    store = StaticStore.open(path)
    with pytest.raises(StoreError, match="checksum"):
        store.verify()


def test_other_files_are_rejected(tmp_path, path):
    with pytest.raises(StoreError, match="no such file"):
        StaticStore.open(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["kind"] = "disttgl-events"
    with pytest.raises(StoreError, match="found 'disttgl-events'"):
        StaticStore.open(tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(StoreError, match="version 1, found 99"):
        StaticStore.open(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"x\.static\.h5: "):
        StaticStore.open(path)


def test_rows_of_another_shape_or_dtype_are_rejected(path):
    for wrong in (ROWS.astype(np.float64), ROWS[0]):
        write_static_store(path, wrong, origin())
        with pytest.raises(StoreError, match="rows must have 2 dimensions of float32"):
            StaticStore.open(path)


def test_an_unwritable_path_is_an_error():
    with pytest.raises(StoreError, match=r"x\.static\.h5: cannot be written"):
        write_static_store(Path("/proc/x.static.h5"), ROWS, origin())
