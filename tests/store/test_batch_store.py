"""Batch stores: whole or refused, and every byte checked before it is believed."""

import contextlib
import dataclasses
import json
import os
import resource

import h5py
import numpy as np
import pytest

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.batch_store import KIND, BatchKey, BatchStore, is_part, join_parts, write_part
from disttgl_hpc.store.files import is_kind

KEY = BatchKey(
    events="c" * 64,
    train_end=90,
    local_batch=10,
    minibatch=2,
    num_neighbors=4,
    negatives_per_event=1,
    negative_sets=3,
    negative_strategy="random",
    seed=0,
    sampling_version=1,
)
PARTS = [(0, 2), (2, 4), (4, 5)]


def records_of(batches):
    """Any bytes: of 2 slices × (1 + 3) records a batch, all different."""
    rng = np.random.default_rng(batches[0])
    count = (batches[1] - batches[0]) * KEY.records_per_batch
    return [rng.integers(0, 256, 8 * rng.integers(1, 40), np.uint8) for _ in range(count)]


def write_parts(folder):
    folder.mkdir()
    paths = [folder / f"{first}.h5" for first, _ in PARTS]
    for path, batches in zip(paths, PARTS, strict=True):
        write_part(path, KEY, batches, records_of(batches))
    return paths


@pytest.fixture
def path(tmp_path):
    join_parts(tmp_path / "x.batches.h5", write_parts(tmp_path / "parts"))
    return tmp_path / "x.batches.h5"


def test_parts_join_to_a_store_of_their_records(path):
    store = BatchStore.open(path)
    assert store.key == KEY
    assert KEY.num_batches == 5
    expected = [record for batches in PARTS for record in records_of(batches)]
    found = [
        store.record(batch, minibatch, index)
        for batch in range(5)
        for minibatch in range(2)
        for index in range(4)
    ]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
    assert is_kind(path, KIND)


def test_records_are_read_only_maps_in_one_piece(path):
    record = BatchStore.open(path).record(3, 1, 2)
    assert record.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        record[0] = 0


def flip(path, position):
    """Change one bit of the record bytes."""
    with h5py.File(path, "r") as file:
        offset = file["records"].id.get_offset()
    with path.open("r+b") as file:
        file.seek(offset + position)
        byte = file.read(1)[0]
        file.seek(offset + position)
        file.write(bytes([byte ^ 1]))


def test_a_flipped_bit_is_noticed_when_its_record_is_read(path):
    store = BatchStore.open(path)
    at = (3 * 2 + 1) * 4 + 2
    flip(path, int(store.offsets[at]))
    damaged = BatchStore.open(path)
    damaged.record(3, 1, 1)
    damaged.record(3, 1, 3)
    with pytest.raises(
        StoreError, match=r"x\.batches\.h5: global batch 3, slice 1, negative set 1: .* --force"
    ):
        damaged.record(3, 1, 2)
    with pytest.raises(StoreError, match="negative set 1"):
        damaged.verify()


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
def test_a_store_cut_short_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StoreError, match=r"x\.batches\.h5: cut short.* again"):
        BatchStore.open(path)


def test_foreign_and_missing_files_are_refused(tmp_path):
    with pytest.raises(StoreError, match="no such file"):
        BatchStore.open(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["kind"] = "disttgl-events"
    with pytest.raises(StoreError, match="must be of kind 'disttgl-batches', found 'disttgl-events'"):
        BatchStore.open(tmp_path / "other.h5")
    assert not is_kind(tmp_path / "other.h5", KIND)


def test_a_part_is_not_taken_for_a_store(tmp_path):
    part = write_parts(tmp_path / "parts")[0]
    with pytest.raises(StoreError, match="must be of kind 'disttgl-batches', found 'disttgl-batches-part'"):
        BatchStore.open(part)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("offsets", lambda rows: rows[:-1]),
        ("offsets", lambda rows: rows + 8),
        ("offsets", lambda rows: np.concatenate([rows[:5], [rows[3]], rows[6:]])),
        ("checksums", lambda rows: rows[:-1]),
        ("records", lambda rows: rows[:-8]),
    ],
)
def test_tables_that_do_not_fit_are_refused(path, name, change):
    with h5py.File(path, "r+") as file:
        rows = file[name][:]
        del file[name]
        file[name] = change(rows)
    with pytest.raises(StoreError, match=r"x\.batches\.h5: is damaged"):
        BatchStore.open(path)


def test_a_key_of_other_fields_is_refused(path):
    with h5py.File(path, "r+") as file:
        file.attrs["key"] = json.dumps({"seed": 0})
    with pytest.raises(StoreError, match="is damaged"):
        BatchStore.open(path)


def test_pitfall_16_any_other_key_is_refused_with_all_that_differs(path):
    store = BatchStore.open(path)
    store.check_key(KEY)
    for field in dataclasses.fields(BatchKey):
        value = getattr(KEY, field.name)
        other = value + "x" if isinstance(value, str) else value + 1
        with pytest.raises(StoreError, match=f"{field.name} {value!r} there, {other!r} here: give"):
            store.check_key(dataclasses.replace(KEY, **{field.name: other}))
    with pytest.raises(StoreError, match="local_batch 10 there, 20 here; seed 0 there, 5 here: give"):
        store.check_key(dataclasses.replace(KEY, seed=5, local_batch=20))


def test_only_a_whole_part_of_the_same_key_and_batches_is_kept(tmp_path):
    part = write_parts(tmp_path / "parts")[1]
    assert is_part(part, KEY, (2, 4))
    assert not is_part(part, KEY, (2, 5))
    assert not is_part(part, dataclasses.replace(KEY, seed=1), (2, 4))
    assert not is_part(tmp_path / "none.h5", KEY, (2, 4))
    flip(part, 20)
    assert not is_part(part, KEY, (2, 4))


def test_a_limit_on_files_is_told_and_leaves_no_store(tmp_path):
    parts, output = write_parts(tmp_path / "parts"), tmp_path / "x.batches.h5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(
            StoreError, match=r"x\.batches\.h5: cannot be written \(File too large\): make room"
        ):
            join_parts(output, parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not output.exists()
    assert sorted((tmp_path / "parts").iterdir()) == sorted(parts)
    join_parts(output, parts)
    assert BatchStore.open(output).key == KEY


def test_many_parts_are_joined_with_few_open_files(tmp_path):
    parts = write_parts(tmp_path / "parts") * 30
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the numbers of open files: those free below the last one open count as well.
    last = max(int(number) for number in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 16, hard))
        join_parts(tmp_path / "x.batches.h5", parts)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


def test_a_full_disk_is_told_and_leaves_no_store(tmp_path, small_disk, capfd):
    parts = write_parts(tmp_path / "parts")
    (small_disk / "filling").write_bytes(bytes(115_500))
    few, many = records_of(PARTS[0]), [np.zeros(8_000, np.uint8)] * 16
    for records in (few, many):
        with pytest.raises(
            StoreError, match=r"0\.h5: cannot be written \(No space left on device\): make room"
        ):
            write_part(small_disk / "0.h5", KEY, PARTS[0], records)
        (small_disk / "filling").unlink(missing_ok=True)
    assert list(small_disk.iterdir()) == []
    write_part(small_disk / "0.h5", KEY, PARTS[0], few)
    assert (small_disk / "0.h5").read_bytes() == parts[0].read_bytes()
    assert capfd.readouterr().err == ""
