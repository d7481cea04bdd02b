"""Static stores: whole and of the right events, or refused."""

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
)  # as much of an event store as is asked for
ROWS = np.arange(51, dtype=np.float32).reshape(17, 3)


@pytest.fixture
def path(tmp_path):
    write_static_store(tmp_path / "x.static.h5", ROWS, origin())
    return tmp_path / "x.static.h5"


def test_what_was_written_is_read(path):
    store = StaticStore.open(path)
    assert np.array_equal(store.rows, ROWS)
    assert not store.rows.flags.writeable
    assert store.origin == origin()
    store.verify()


def test_the_checksum_is_of_rows_and_origin(path):
    first = StaticStore.open(path).checksum
    assert write_static_store(path, ROWS, origin()) == first
    assert write_static_store(path, ROWS + 1, origin()) != first
    assert write_static_store(path, ROWS, origin(learned_end=80)) != first


def test_other_events_are_refused(path):
    with pytest.raises(
        StoreError, match=r"learned of the events in random.events.h5, .*: disttgl pretrain random"
    ):
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
    with pytest.raises(StoreError, match=r"must have the checksum .* found"):
        store.verify()


def test_what_is_no_static_store_is_refused(tmp_path, path):
    with pytest.raises(StoreError, match="no such file"):
        StaticStore.open(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["kind"] = "disttgl-events"
    with pytest.raises(StoreError, match="must be of kind 'disttgl-static', found 'disttgl-events'"):
        StaticStore.open(tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(StoreError, match="schema version 1 is read here, found 99"):
        StaticStore.open(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"x\.static\.h5: "):
        StaticStore.open(path)


def test_rows_of_another_shape_or_type_are_refused(path):
    for wrong in (ROWS.astype(np.float64), ROWS[0]):
        write_static_store(path, wrong, origin())
        with pytest.raises(StoreError, match="rows must have 2 dimensions of float32"):
            StaticStore.open(path)


def test_a_disk_without_room_is_told():
    with pytest.raises(StoreError, match=r"x\.static\.h5: cannot be written"):
        write_static_store(Path("/proc/x.static.h5"), ROWS, origin())
