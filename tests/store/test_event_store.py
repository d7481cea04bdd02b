import json
import shutil

import h5py
import numpy as np
import pytest

from disttgl_hpc.errors import StoreError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.log import progress
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import Contents, EventPart, write_event_store

NUM_EVENTS, NUM_NODES = 40, 9


def columns():
    rng = np.random.default_rng(3)
    return {
        "src": rng.integers(0, 5, NUM_EVENTS),
        "dst": rng.integers(5, NUM_NODES, NUM_EVENTS),
        "time": np.sort(rng.integers(0, 30, NUM_EVENTS)) + 2**40,
        "edge_features": rng.random((NUM_EVENTS, 3)).astype(np.float16),
        "edge_labels": rng.integers(0, 2, NUM_EVENTS),
        "node_labels": rng.integers(0, 2, NUM_EVENTS),
    }


def write(path, *, part_events=7, name="small", node_ids=None, edge_scale=None, negatives=False, **changes):
    data = columns() | changes
    contents = Contents(
        name=name,
        num_events=NUM_EVENTS,
        num_nodes=NUM_NODES,
        num_src=5,
        split=Split(28, 34),
        node_ids=np.arange(NUM_NODES) * 10 if node_ids is None else node_ids,
        node_features=np.eye(NUM_NODES, 2, dtype=np.float32),
        validation_negatives=np.tile([5, 8, -1], (6, 1)) if negatives else None,
        test_negatives=np.full((6, 1), 7) if negatives else None,
        edge_scale=edge_scale,
        class_names=("a", "ü"),
        source_files=("in.csv",),
        source_sha256=("0" * 64,),
        time_unit="s",
    )
    parts = (
        EventPart(**{field: rows[start : start + part_events] for field, rows in data.items()})
        for start in range(0, NUM_EVENTS, part_events)
    )
    with progress(NUM_EVENTS, "writing", shown=False) as bar:
        write_event_store(path, contents, parts, chunk_events=4, progress=bar)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "small.events.h5")


def test_round_trip(path):
    store, expected = EventStore.open(path), columns()
    stream = store.stream
    for field in ("src", "dst", "time", "edge_features", "edge_labels"):
        np.testing.assert_array_equal(getattr(stream, field), expected[field])
    np.testing.assert_array_equal(store.node_labels, expected["node_labels"])
    np.testing.assert_array_equal(stream.node_features, np.eye(NUM_NODES, 2))
    assert (stream.name, stream.num_nodes, stream.num_src, stream.split) == ("small", 9, 5, Split(28, 34))
    assert stream.edge_features.dtype == np.float16
    assert store.node_ids().tolist() == list(range(0, 90, 10))
    assert store.class_names == ("a", "ü")
    assert store.sources == (("in.csv", "0" * 64),)
    assert store.stream.time_unit == "s"
    store.verify()


def test_given_negatives_are_part_of_a_store(tmp_path, path):
    store = EventStore.open(write(tmp_path / "given.events.h5", negatives=True))
    assert store.stream.validation_negatives.tolist() == [[5, 8, -1]] * 6
    assert store.stream.test_negatives.tolist() == [[7]] * 6
    store.verify()
    store.check_contents()
    assert EventStore.open(path).checksum != store.checksum
    assert EventStore.open(path).stream.test_negatives is None


def test_index_equals_the_one_built_in_memory(path):
    stream = EventStore.open(path).stream
    expected = build_tcsr(stream.src, stream.dst, stream.time, NUM_NODES)
    for field in ("indptr", "neighbors", "event_ids", "times"):
        np.testing.assert_array_equal(getattr(stream.tcsr, field), getattr(expected, field))
        assert getattr(stream.tcsr, field).dtype == getattr(expected, field).dtype


def test_arrays_are_read_only_aligned_maps(path):
    stream = EventStore.open(path).stream
    for array in (stream.src, stream.time, stream.edge_features, stream.tcsr.times):
        assert isinstance(array.base, np.memmap)
        assert type(array) is np.ndarray
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_text_ids_round_trip(tmp_path):
    ids = np.array([f"näme {index}" for index in range(NUM_NODES)])
    store = EventStore.open(write(tmp_path / "t.events.h5", node_ids=ids))
    np.testing.assert_array_equal(store.node_ids(), ids)


def test_int8_features_have_a_scale(tmp_path):
    stored, scale = np.arange(120, dtype=np.int8).reshape(40, 3), np.array([0.5, 1, 3], np.float32)
    store = EventStore.open(write(tmp_path / "a.h5", edge_features=stored, edge_scale=scale))
    np.testing.assert_array_equal(store.stream.edge_features, stored)
    np.testing.assert_array_equal(store.stream.edge_scale, scale)
    store.verify()
    other = EventStore.open(write(tmp_path / "b.h5", edge_features=stored, edge_scale=2 * scale))
    assert other.checksum != store.checksum


@pytest.mark.parametrize(
    ("dtype", "scale", "complaint"),
    [
        (np.int8, None, "features/edge_scale if and only if"),
        (np.float32, np.ones(3, np.float32), "features/edge_scale if and only if"),
        (np.int8, np.ones(2, np.float32), "dataset features/edge_scale must have 1 dimensions, 3 rows"),
        (np.int8, np.ones(3), "dtype of ('float32',)"),
        (np.uint8, None, "dtype of ('float16', 'float32', 'float64', 'int8')"),
    ],
)
def test_scale_and_dtype_of_features_go_together(tmp_path, dtype, scale, complaint):
    features = np.ones((NUM_EVENTS, 3), dtype)
    assert complaint in refusal(write(tmp_path / "a.h5", edge_features=features, edge_scale=scale))


def test_checksum_is_of_the_contents_alone(tmp_path, path):
    first = EventStore.open(path).checksum
    assert EventStore.open(write(tmp_path / "b.h5", part_events=40, name="other")).checksum == first
    times = columns()["time"]
    times[-1] += 1
    assert EventStore.open(write(tmp_path / "c.h5", time=times)).checksum != first


def test_optional_parts_may_be_absent(tmp_path):
    absent = dict.fromkeys(("edge_features", "edge_labels", "node_labels"))
    data = {field: rows for field, rows in columns().items() if field not in absent}
    contents = Contents(
        name="bare",
        num_events=NUM_EVENTS,
        num_nodes=NUM_NODES,
        num_src=0,
        split=Split(1, 2),
        node_ids=np.arange(NUM_NODES),
    )
    with progress(None, "writing", shown=False) as bar:
        write_event_store(tmp_path / "x.h5", contents, [EventPart(**data)], chunk_events=100, progress=bar)
    store = EventStore.open(tmp_path / "x.h5")
    assert store.stream.edge_features is None
    assert store.stream.edge_labels is None
    assert store.node_labels is None
    assert (store.class_names, store.sources) == ((), ())


def test_nothing_half_written_stays(tmp_path):
    with pytest.raises(ValueError, match="40 were announced"):
        write(tmp_path / "x.h5", **{field: rows[:-1] for field, rows in columns().items()})
    assert list(tmp_path.iterdir()) == []


def refusal(path):
    with pytest.raises(StoreError) as refused:
        EventStore.open(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_missing_and_foreign_files_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.h5")
    (tmp_path / "x.h5").write_text("src,dst,time\n" * 100)
    assert "must be an HDF5 file" in refusal(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["a"] = [1]
    assert "must be of kind 'disttgl-events', found 'None'" in refusal(tmp_path / "y.h5")


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1])
def test_truncated_file_is_refused(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message = refusal(path)
    assert "cut short" in message
    assert "again" in message


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "x.h5").touch()
    assert "must be an HDF5 file" in refusal(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("attribute", "value", "complaint"),
    [
        ("schema_version", 99, "schema version 1 is read here, found 99"),
        ("num_nodes", 10**15, "dataset tcsr/indptr must have 1 dimensions, 1,000,000,000,000,001 rows"),
        ("num_events", 41, "dataset events/src must have 1 dimensions, 41 rows"),
        ("train_end", 35, "train_end <= validation_end"),
        ("validation_end", 41, "validation_end <= num_events"),
        ("num_src", 10, "num_src <= num_nodes"),
    ],
)
def test_attributes_are_not_believed(path, attribute, value, complaint):
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value
    assert complaint in refusal(path)


def replace_dataset(path, name, rows, **options):
    with h5py.File(path, "r+") as file:
        del file[name]
        if rows is not None:
            file.create_dataset(name, data=rows, **options)


@pytest.mark.parametrize(
    ("name", "rows", "options", "complaint"),
    [
        ("events/src", None, {}, "is damaged"),
        ("events/time", np.zeros(NUM_EVENTS, np.float32), {}, "found (40,) float32"),
        ("features/edge", np.zeros(NUM_EVENTS), {}, "must have 2 dimensions"),
        ("events/dst", np.zeros(NUM_EVENTS, np.int32), {"chunks": (8,)}, "must lie in one piece"),
        ("tcsr/indptr", np.full(NUM_NODES + 1, 3), {}, "indptr from 0 to"),
        ("tcsr/times", np.zeros(3, np.int64), {}, "dataset tcsr/times must have"),
    ],
)
def test_datasets_must_be_of_the_schema(path, name, rows, options, complaint):
    replace_dataset(path, name, rows, **options)
    assert complaint in refusal(path)


def test_lost_attribute_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["checksum"]
    assert "checksum" in refusal(path)


def test_verify_notices_a_changed_number(path):
    with h5py.File(path, "r+") as file:
        file["features/edge"][3, 1] = 9
    store = EventStore.open(path)
    with pytest.raises(StoreError, match="must have the checksum"):
        store.verify()


def test_verify_notices_a_moved_split(path):
    with h5py.File(path, "r+") as file:
        file.attrs["train_end"] = 20
    with pytest.raises(StoreError, match="must have the checksum"):
        EventStore.open(path).verify()


def test_copied_store_is_the_same(tmp_path, path):
    shutil.copy(path, tmp_path / "copy.h5")
    assert EventStore.open(tmp_path / "copy.h5").checksum == EventStore.open(path).checksum
    assert json.dumps(EventStore.open(path).checksum)
