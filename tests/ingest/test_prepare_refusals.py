"""Invalid input is refused with file, row, rule and remedy, and leaves no files behind."""

import bz2
import gzip
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_inputs import HEADER, JODIE, refusal, run, run_text

from disttgl_hpc.errors import ConfigError, InputError, StoreError
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.ingest.split import parse_split


def test_times_that_cannot_be_exact_are_refused(tmp_path):
    message = refusal(tmp_path, HEADER + "0,1,9007199254740993\n0,1,2.5\n", chunk_events=1)
    assert "in.csv, line 3" in message
    assert "2^53" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("src,when\n1,2\n", ["line 1", "dst, time", "src, when", "--columns"]),
        (HEADER + "0,1,5\n0,1,noon\n", ["line 3", "'time'", "found 'noon'", "Unix seconds"]),
        (HEADER + "0,1,5\n\n0,1,nan\n", ["line 4", "finite", "found 'nan'", "drop"]),
        (HEADER + "0,1,inf\n", ["line 2", "finite", "found 'inf'"]),
        (HEADER + "0,1,\n", ["line 2", "finite", "found ''"]),
        (HEADER + "0,1,5\n0,-4,6\n", ["line 3", "must not be negative", "found -4", "renumber"]),
        (HEADER + "0,1,5\n,4,6\n", ["line 3", "'src'", "found none", "drop the row"]),
        (HEADER, ["no events found", "--format"]),
        ("", ["is empty", "--format"]),
        (HEADER + "0,1,5\n0,1\n", ["line 3", "3 columns", "this one has 2", "complete copy"]),
        (HEADER + "0,1,5\n0,1,6,7\n", ["line 3", "3 columns", "this one has 4"]),
        ("src,src,dst,time\n0,1,2,3\n", ["unique", "src"]),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_refusals_name_file_line_rule_and_remedy(tmp_path, text, parts, chunk):
    message = refusal(tmp_path, text, chunk_events=chunk)
    assert str(tmp_path / "in.csv") in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("value", "found"), [("nan", "finite"), ("1e39", "finite"), ("x", "'x'"), ("", "finite")]
)
def test_non_finite_features_are_refused(tmp_path, value, found):
    message = refusal(
        tmp_path,
        f"src,dst,time,f0,f1\n0,1,2,3,4\n0,1,2,{value},4\n",
        columns=parse_columns("src=src,dst=dst,time=time,features=f0:f1"),
    )
    assert "line 3" in message
    assert "'f0'" in message
    assert found in message


def test_features_too_large_for_float16_are_refused(tmp_path):
    columns = parse_columns("src=src,dst=dst,time=time,features=f")
    text = "src,dst,time,f\n0,1,2,0.5\n0,1,2,70000\n"
    message = refusal(tmp_path, text, columns=columns, feature_dtype="float16")
    assert "line 3" in message
    assert "--feature-dtype float32" in message
    assert run_text(tmp_path, text, columns=columns).stream.edge_features.dtype == np.float32


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "npz", "txt"])
def test_a_fifo_is_refused(tmp_path, suffix):
    path = tmp_path / f"in.{suffix}"
    os.mkfifo(path)
    with pytest.raises(StoreError, match="FIFO"):
        prepare(PrepareSettings(inputs=(path,), output=tmp_path / "x.events.h5"))


def test_missing_file_and_unknown_suffix_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent.csv: no such file"):
        run(tmp_path, tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"--format csv\|parquet"):
        run_text(tmp_path, "", name="what.bin")


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstd)]
)
def test_compressed_input_is_read_and_a_cut_one_refused(tmp_path, suffix, compress):
    data = compress((HEADER + "".join(f"{k},{k + 1},{k}\n" for k in range(5000))).encode())
    path = tmp_path / f"in.csv.{suffix}"
    path.write_bytes(data)
    assert run(tmp_path, path).stream.num_events == 5000
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=rf"in\.csv\.{suffix}.*cut short.*complete copy"):
        run(tmp_path, path)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("time", [1.0, float("nan")], r"row 2.*'time'.*finite"),
        ("time", [1, None], r"row 2.*'time'.*finite"),
        ("src", [1, -2], r"row 2.*negative, found -2"),
        ("src", [1, None], r"row 2.*'src', found none"),
        ("src", [1.5, 2.0], r"'src' must hold integers or text, found double"),
        ("time", [[1], [2]], r"row 1.*'time'"),
    ],
)
def test_parquet_refusals_name_the_row(tmp_path, column, values, expected):
    table = {"src": [1, 2], "dst": [2, 3], "time": [1, 2]} | {column: values}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=expected):
        run(tmp_path, tmp_path / "in.parquet")


def test_cut_parquet_is_refused(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"src": [1], "dst": [2], "time": [3]}), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"in\.parquet.*cut short.*complete copy"):
        run(tmp_path, path)


def test_jodie_rows_of_different_widths_are_refused(tmp_path):
    message = refusal(tmp_path, JODIE + "0,0,0.0,0,1,2\n1,0,36.0,1,1\n", format="jodie")
    assert "line 3: every row must have 6 columns, this one has 5" in message
    assert "in.csv, line 2" in refusal(tmp_path, JODIE + "0,0,0.0\n", format="jodie")


def test_inputs_of_different_kinds_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text(JODIE + "0,0,1,0,1\n")
    (tmp_path / "b.csv").write_text(JODIE + "0,0,1,0,1,2\n")
    with pytest.raises(InputError, match=r"b\.csv, line 2: .*features"):
        run(tmp_path, tmp_path / "a.csv", tmp_path / "b.csv", format="jodie")
    with pytest.raises(InputError, match="csv, snap"):
        run(tmp_path, tmp_path / "a.csv", tmp_path / "c.txt")


@pytest.mark.parametrize("text", ["0.7/0.3", "a/b/c", "0.7/0.2/0.2", "1.2/-0.1/-0.1"])
def test_invalid_shares_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="three shares"):
        PrepareSettings(inputs=(Path("a.csv"),), output=tmp_path / "x.h5", split=parse_split(text))


def test_a_missing_last_newline_is_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("disttgl_hpc"), "propagate", True)
    run_text(tmp_path, HEADER + "0,1,12\n0,1,1")
    assert "newline" in caplog.text
    caplog.clear()
    run_text(tmp_path, HEADER + "0,1,12\n0,1,1\n")
    assert "newline" not in caplog.text


def test_ids_beyond_int64_are_refused(tmp_path):
    table = {"src": np.array([2**63], np.uint64), "dst": [1], "time": [1]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"row 1: column 'src'.*2\^63"):
        run(tmp_path, tmp_path / "in.parquet")
