"""Appending events equals preparing all of them at once, bit for bit."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_inputs import HEADER

from disttgl_hpc.errors import ConfigError, InputError, StoreError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.ingest.append import AppendSettings, append
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.ingest.split import parse_split
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.resume import find_prefix, prefix_of

COLUMNS = parse_columns("src=a,dst=b,time=t,label=kind,node_label=state,features=x+y")
ids = st.sampled_from(["3", "12", "007", "x", "10", "9", "0", "é"])
events = st.lists(
    st.tuples(ids, ids, st.integers(0, 3), st.sampled_from(["7", "10", "b"])), min_size=3, max_size=12
)


def write_rows(path, rows):
    """A csv file; times ascend by the third entry of each row."""
    times = np.cumsum([gap for _, _, gap, _ in rows])
    lines = [
        f"{u},{v},{t},{kind},{k % 3},{k}.5,{len(u)}"
        for k, ((u, v, _, kind), t) in enumerate(zip(rows, times, strict=True))
    ]
    path.write_text("a,b,t,kind,state,x,y\n" + "\n".join(lines) + "\n")
    return path


def prepared(output, *inputs, **options):
    return prepare(PrepareSettings(inputs=inputs, output=output, force=True, **options))


def appended(store, *inputs, **options):
    return append(AppendSettings(store=store.path, inputs=inputs, **options))


@given(
    rows=events,
    cut=st.floats(0.1, 0.9),
    bipartite=st.booleans(),
    dtype=st.sampled_from(["float32", "float16"]),
    log_features=st.sampled_from([(), ("x",)]),
)
@settings(max_examples=8, deadline=None)
def test_equals_preparing_all_events_at_once(tmp_path_factory, rows, cut, bipartite, dtype, log_features):
    """Numeric and text ids and classes, ties, both kinds of streams, all optional columns; cut twice."""
    folder = tmp_path_factory.mktemp("append")
    whole = write_rows(folder / "whole.csv", rows)
    header, *lines = whole.read_text().splitlines(keepends=True)
    first, second = max(1, int(len(rows) * cut)), max(2, int(len(rows) * (1 + cut) / 2))
    parts = {"one": lines[:first], "two": lines[first:second], "three": lines[second:]}
    for name, part in parts.items():
        (folder / f"{name}.csv").write_text(header + "".join(part))
    options = {"columns": COLUMNS, "bipartite": bipartite, "feature_dtype": dtype}
    options["log_features"] = log_features
    options["split_times"] = (rows[0][2], sum(gap for _, _, gap, _ in rows[:first]))
    short = store = prepared(folder / "short.events.h5", folder / "one.csv", **options)
    shorter = []
    for name in ("two", "three"):
        if parts[name]:
            shorter.append(store.checksum)
            store = appended(store, folder / f"{name}.csv", output=folder / f"{name}.events.h5")
    expected = prepared(folder / "whole.events.h5", whole, **options)
    assert_equal(store, expected)
    assert [one.checksum for one in store.grown_from] == shorter
    for longer in (store, expected):  # one records its prefix, the other is compared with it
        found = find_prefix(longer, short.checksum, short.path)
        assert (found.num_events, found.split) == (first, short.stream.split)
        np.testing.assert_array_equal(
            longer.node_ids()[found.nodes].astype(np.str_), short.node_ids().astype(np.str_)
        )


def assert_equal(one, other):
    """Every array and name of two stores is equal, bit for bit."""
    assert one.checksum == other.checksum
    for name in ("src", "dst", "time", "edge_features", "edge_labels"):
        mine, theirs = getattr(one.stream, name), getattr(other.stream, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(one.stream.tcsr.arrays, other.stream.tcsr.arrays, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(one.node_ids(), other.node_ids())
    np.testing.assert_array_equal(one.node_labels, other.node_labels)
    assert one.class_names == other.class_names


def csv(path, *rows):
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_the_store_is_replaced_or_another_written(tmp_path):
    store = prepared(tmp_path / "s.events.h5", csv(tmp_path / "a.csv", "5,9,1", "9,5,2", "7,9,4"))
    new = csv(tmp_path / "b.csv", "8,5,4", "8,1,9")
    other = appended(store, new, output=tmp_path / "longer.events.h5")
    assert EventStore.open(store.path).checksum == store.checksum
    assert appended(store, new).checksum == other.checksum
    assert EventStore.open(store.path).checksum == other.checksum
    assert other.node_ids().tolist() == [1, 5, 7, 8, 9]
    assert [name for name, _ in other.sources] == ["a.csv", "b.csv"]
    with pytest.raises(ConfigError, match="exists"):
        appended(other, csv(tmp_path / "c.csv", "1,2,9"), output=store.path)


def test_the_split_stays_or_is_replaced(tmp_path):
    rows = [f"{k % 3},{3 + k % 2},{k}" for k in range(20)]
    store = prepared(tmp_path / "s.events.h5", csv(tmp_path / "a.csv", *rows))
    new = csv(tmp_path / "b.csv", *(f"1,4,{k}" for k in range(20, 40)))
    kept = appended(store, new, output=tmp_path / "kept.events.h5")
    assert kept.stream.split == store.stream.split == Split(14, 17)
    moved = appended(store, new, output=tmp_path / "moved.events.h5", split=parse_split("0.5/0.25/0.25"))
    assert moved.stream.split == Split(20, 30)
    timed = appended(store, new, output=tmp_path / "timed.events.h5", split_times=(25, 35))
    assert timed.stream.split == Split(25, 35)


def test_parquet_after_csv_and_times_with_fractions(tmp_path):
    first = csv(tmp_path / "a.csv", "1,2,1", "2,3,5")
    store = prepared(tmp_path / "s.events.h5", first)
    table = {"src": ["2", "4"], "dst": ["1", "2"], "time": [5.25, 6.0]}
    pq.write_table(pa.table(table), tmp_path / "b.parquet")
    found = appended(store, tmp_path / "b.parquet")
    assert found.stream.time.tolist() == [1, 5, 5.25, 6]
    whole = csv(tmp_path / "c.csv", "1,2,1", "2,3,5", "2,1,5.25", "4,2,6")
    expected = prepared(tmp_path / "w.events.h5", whole)
    np.testing.assert_array_equal(found.stream.src, expected.stream.src)
    assert found.stream.time.dtype == expected.stream.time.dtype


def test_files_that_are_classes(tmp_path):
    for name, text in {"up": "1 2 5\n1 2 7\n", "down": "1 2 6\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    store = prepared(tmp_path / "s.events.h5", tmp_path / "up.txt", tmp_path / "down.txt", label_by_file=True)
    (tmp_path / "new").mkdir()
    for name, text in {"aside": "3 2 9\n", "up": "1 3 8\n"}.items():
        (tmp_path / "new" / f"{name}.txt").write_text(text)
    found = appended(store, tmp_path / "new" / "aside.txt", tmp_path / "new" / "up.txt")
    assert found.class_names == ("up", "down", "aside")
    assert found.stream.edge_labels.tolist() == [0, 1, 0, 0, 2]


def test_input_that_cannot_follow_is_refused(tmp_path):
    store = prepared(tmp_path / "s.events.h5", csv(tmp_path / "a.csv", "1,2,1", "2,3,5"))
    checksum = store.checksum
    with pytest.raises(InputError, match=r"b\.csv, line 3: .* at 5; .* 4"):
        appended(store, csv(tmp_path / "b.csv", "1,2,5", "1,2,4"))
    with pytest.raises(InputError, match="jodie"):
        appended(store, tmp_path / "b.csv", format="jodie")
    (tmp_path / "c.csv").write_text("src,dst,time,label\n1,2,9,x\n")
    columns = parse_columns("src=src,dst=dst,time=time,label=label")
    with pytest.raises(InputError, match=r"c\.csv, line 2: .* edge_label"):
        appended(store, tmp_path / "c.csv", columns=columns)
    assert EventStore.open(store.path).checksum == checksum
    (tmp_path / "d.csv").write_text("src,dst,time,x\n1,2,9,0.5\n")
    columns = parse_columns("src=src,dst=dst,time=time,features=x")
    small = prepared(tmp_path / "d.events.h5", tmp_path / "d.csv", columns=columns, feature_dtype="int8")
    with pytest.raises(InputError, match="int8"):
        appended(small, tmp_path / "d.csv")


def test_a_damaged_store_is_refused(tmp_path):
    store = prepared(tmp_path / "s.events.h5", csv(tmp_path / "a.csv", "1,2,1", "2,3,5"))
    data = bytearray(store.path.read_bytes())
    where = data.index(np.array([1, 5], np.int64).tobytes())
    data[where] ^= 2
    store.path.write_bytes(data)
    with pytest.raises(StoreError, match="checksum"):
        appended(store, csv(tmp_path / "b.csv", "1,2,9"))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (["1,2,1", "2,3,6", "3,1,9"], "times"),
        (["1,2,1", "3,2,5", "3,1,9"], "sources"),
        (["1,2,1", "2,4,5", "3,1,9"], "nodes"),
        (["1,2,1"], "1 of 2"),
    ],
)
def test_other_events_are_no_prefix(tmp_path, changed, complaint):
    store = prepared(tmp_path / "s.events.h5", csv(tmp_path / "a.csv", "1,2,1", "2,3,5"))
    other = prepared(tmp_path / "o.events.h5", csv(tmp_path / "b.csv", *changed))
    with pytest.raises(StoreError, match=complaint):
        find_prefix(other, store.checksum, store.path)
    store.path.unlink()
    with pytest.raises(StoreError, match="disttgl append"):
        find_prefix(other, store.checksum, store.path)


def test_numeric_ids_keep_their_nodes_when_text_ids_follow(tmp_path):
    """Ids 9 and 10 are sorted as numbers, and as text once there is an id x."""
    store = prepared(tmp_path / "s.events.h5", csv(tmp_path / "a.csv", "9,10,1", "10,9,2"))
    longer = appended(store, csv(tmp_path / "b.csv", "x,9,3"))
    assert longer.node_ids().tolist() == ["10", "9", "x"]
    assert prefix_of(longer, 2, store.stream.split).nodes.tolist() == [1, 0]
