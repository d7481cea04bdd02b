"""Ids and pairs as users write them: lists, text files, tables; what cannot be read is refused."""

import os
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from disttgl_hpc.errors import DisttglError, InputError
from disttgl_hpc.inference.answers import read_ids, read_pairs, write_table_file
from disttgl_hpc.inference.trained_run import NodeIds
from disttgl_hpc.ingest.columns import Columns, parse_columns

SPECIAL = [0, 7, 2**53 + 1, 10**18 - 1, 10**18, 1582218195625938945, 2**63 - 1, -1, -(10**18), -(2**63)]


@pytest.fixture
def ids():
    """Nodes with ids at the bounds of int64."""
    return NodeIds(np.array(sorted(SPECIAL)), 0)


def write_ids(folder, kind, values):
    path = folder / f"ids.{kind.partition(' ')[0]}"
    lines = "".join(f"{value}\n" for value in values)
    if kind == "parquet text":
        pq.write_table(pa.table({"id": [str(value) for value in values]}), path)
    elif kind == "parquet":
        pq.write_table(pa.table({"id": values}), path)
    elif kind == "csv own":
        write_table_file(path, {"id": np.array(values), "kind": np.array(["source"] * len(values))})
    else:
        path.write_text("id\n" + lines if kind == "csv" else lines)
    return path


@pytest.mark.parametrize("kind", ["txt", "csv", "csv own", "parquet", "parquet text"])
def test_every_int64_is_found_from_every_kind_of_file(tmp_path, ids, kind):
    nodes = ids.nodes(read_ids(f"{write_ids(tmp_path, kind, SPECIAL)}"))
    assert ids.all[nodes].tolist() == SPECIAL


def test_every_int64_is_found_from_a_list_and_from_arrays(ids):
    for values in (
        read_ids(",".join(map(str, SPECIAL))),
        SPECIAL,
        np.array(SPECIAL),
        np.array(SPECIAL, object),
        np.array(list(map(str, SPECIAL))),
    ):
        assert ids.all[ids.nodes(values)].tolist() == SPECIAL


@pytest.mark.parametrize(
    "value",
    ["9223372036854775808", "-9223372036854775809", "1" * 40, "7.0", "1e18", "-", "--1", "+7", "", "٧"],
)
def test_what_is_no_int64_is_unknown(ids, value):
    assert ids.sources([value]).tolist() == [-1]


def test_unsigned_integers_do_not_wrap(ids):
    assert ids.sources(np.array([7, 2**64 - 1, 2**63], np.uint64)).tolist() == [
        *ids.sources([7]).tolist(),
        -1,
        -1,
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "parquet text"])
def test_every_int64_is_found_in_pairs(tmp_path, ids, kind):
    path = tmp_path / f"pairs.{kind.partition(' ')[0]}"
    values = [str(value) for value in SPECIAL] if kind == "parquet text" else SPECIAL
    if kind == "csv":
        path.write_text("src,dst\n" + "".join(f"{value},{value}\n" for value in values))
    else:
        pq.write_table(pa.table({"src": values, "dst": values}), path)
    pairs = read_pairs(path, Columns())
    assert ids.all[ids.sources(pairs.src)].tolist() == ids.all[ids.targets(pairs.dst)].tolist() == SPECIAL


TEXTS = ["N 1", "a,b", 'say "x"', "é"]


@pytest.mark.parametrize(
    "content",
    [
        b'N 1\na,b\nsay "x"\n\xc3\xa9\n',
        b'\xef\xbb\xbfN 1\r\n\r\na,b\r\n say "x" \r\n\xc3\xa9',
        b'"N 1"\n"a,b"\n"say ""x"""\n"\xc3\xa9"\n',
        b'id\nN 1\n"a,b"\n"say ""x"""\n\xc3\xa9\n',
        b'\xef\xbb\xbf"id","kind"\n"N 1","source"\n"a,b","source"\n"say ""x""","source"\n"\xc3\xa9","source"\n',
        b'kind\tid\nsource\tN 1\nsource\ta,b\nsource\t"say ""x"""\nsource\t\xc3\xa9\n',
    ],
    ids=["lines", "bom and crlf", "quotes", "header", "table", "tabs"],
)
@pytest.mark.parametrize("name", ["ids.txt", "ids.csv", "@ids"])
def test_a_file_of_ids_may_have_bom_quotes_and_a_header(tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name.removeprefix("@")).write_bytes(content)
    assert read_ids(name) == TEXTS


def test_a_file_named_like_an_id_is_read_only_if_that_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").write_text("8\n9\n")
    assert read_ids("7") == ["7"]
    assert "@7" in caplog.text
    assert read_ids("@7") == ["8", "9"]
    assert read_ids("7,") == ["7"]
    assert read_ids("@nobody") == ["@nobody"]


def test_a_list_of_ids_may_be_longer_than_a_file_name():
    assert len(read_ids(",".join(map(str, range(5000))))) == 5000


@pytest.mark.parametrize("content", [b"\xff\xfeN\x001\x00", b"\n \n", b"id\n", b""])
def test_files_without_ids_are_refused(tmp_path, content):
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"ids"):
        read_ids(f"{tmp_path / 'ids.txt'}")


@pytest.mark.parametrize("reads", [read_ids, lambda path: read_pairs(path, Columns())], ids=["ids", "pairs"])
@pytest.mark.parametrize("kind", ["folder", "FIFO", "socket"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, reads, kind, suffix):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = tmp_path / f"x.{suffix}"
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    with pytest.raises(DisttglError, match=kind):
        reads(path if reads is not read_ids else f"{path}")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_doubled_column_is_refused_unless_it_is_not_needed(tmp_path, suffix):
    path = tmp_path / f"pairs.{suffix}"

    def write(names):
        if suffix == "csv":
            path.write_text(",".join(names) + "\n" + ",".join(map(str, range(len(names)))) + "\n")
        else:
            pq.write_table(pa.Table.from_arrays([pa.array([k]) for k in range(len(names))], names), path)

    write(["src", "dst", "src"])
    with pytest.raises(InputError, match="src"):
        read_pairs(path, Columns())
    write(["src", "dst", "time", "time"])
    with pytest.raises(InputError, match="time"):
        read_pairs(path, Columns())
    write(["note", "src", "note", "dst"])
    pairs = read_pairs(path, Columns())
    assert [f"{pairs.src[0]}", f"{pairs.dst[0]}", pairs.time] == ["1", "3", None]
    pairs = read_pairs(path, parse_columns("src=dst,dst=dst,time=when"))
    assert f"{pairs.src[0]}" == f"{pairs.dst[0]}" == "3"
