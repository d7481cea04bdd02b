"""Small inputs of the kinds that people have: ids, times, classes and features of the store are those that were meant.

READ lists inputs that must be read, with what they mean; REFUSED those that cannot be, with words of the message.
"""

import bz2
import gzip
import io
import logging
import re
import zipfile
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from prepare_inputs import JODIE, run

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.append import AppendSettings, append
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare, prepare_frame
from disttgl_hpc.ingest.split import parse_split, parse_split_times

H = "src,dst,time\n"
LABELLED = "src,dst,time,kind\n"
WITH_CLASS = {"columns": "src=src,dst=dst,time=time,label=kind"}
LARGE = {"chunk_events": 50_000}
PLAIN = H + "1,2,10\n2,3,20\n"
NANOSECONDS = 1_600_000_000_123_456_790
LONG = 1582218195625938945
FIELDS = ("src", "dst", "time", "classes", "node_labels", "features")
OPTIONS = {
    "columns": parse_columns,
    "split": parse_split,
    "split_times": parse_split_times,
    "log_features": lambda text: (text,),
}


@dataclass(frozen=True)
class Read:
    """An input and what its events mean; ``warning`` is a word of the one warning, or empty for none."""

    name: str
    content: str | bytes
    src: list[Any] = field(default_factory=lambda: [1, 2])
    dst: list[Any] = field(default_factory=lambda: [2, 3])
    time: list[Any] = field(default_factory=lambda: [10, 20])
    classes: list[str | None] | None = None
    node_labels: list[int] | None = None
    features: list[list[float]] | None = None
    warning: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """An input that must be refused, and words of the message."""

    name: str
    content: str | bytes
    words: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def facts(store):
    """The events of a store in the user's ids and class names."""
    stream, ids = store.stream, store.node_ids()
    labels, node_labels = stream.edge_labels, store.node_labels
    names = store.class_names
    return {
        "src": ids[stream.src].tolist(),
        "dst": ids[stream.dst].tolist(),
        "time": stream.time.tolist(),
        "classes": None if labels is None else [names[one] if one >= 0 else None for one in labels],
        "node_labels": None if node_labels is None else node_labels.tolist(),
        "features": None if stream.edge_features is None else stream.edge_features.tolist(),
    }


def prepared(folder, name, content, options):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    parsed = {key: OPTIONS[key](value) if key in OPTIONS else value for key, value in options.items()}
    return run(folder, path, **parsed)


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def patched(archive, *patches):
    """A zip of one file with bytes replaced at offsets of its local and its central header."""
    content = bytearray(archive)
    central = content.index(b"PK\x01\x02")
    for local_offset, central_offset, value in patches:
        content[local_offset] = content[central + central_offset] = value
    return bytes(content)


ENCRYPTED = patched(zipped(("x.csv", PLAIN)), (6, 8, 1))
OF_UNKNOWN_METHOD = patched(zipped(("x.csv", PLAIN)), (8, 10, 97))
WITHOUT_A_NAME = patched(zipped(("abc", PLAIN)), (26, 28, 0), (28, 30, 3))
CUT_INSIDE = zipped(("x.csv", PLAIN))[:45] + bytes(8) + zipped(("x.csv", PLAIN))[53:]
NUM_MESSAGES = 90_000
MESSAGES = "".join(f'{k},{k + 1},{k},"one,\n\n""two""\n"\n' for k in range(NUM_MESSAGES))  # more than a block
STRAY = "".join(f"{k},{k + 1},{k}\n" for k in range(40))

READ = {
    # quotes and line breaks
    "quoted values": Read("x.csv", H + '"1","2","10"\n"2","3","20"\n'),
    "line breaks in a text that is not read": Read(
        "x.csv", 'src,dst,time,text\n1,2,10,"a\nb"\n2,3,20,"""c"", d\n\n"\n'
    ),
    "a quote inside a value": Read("x.csv", 'src,dst,time,text\n1,2,10,5" disk\n2,3,20,x"y\n'),
    "a blank first line": Read("x.csv", "\n\r\n" + PLAIN),
    "blank lines between": Read("x.csv", H + "\n1,2,10\n\n\n2,3,20\n\n"),
    "Windows line ends": Read("x.csv", PLAIN.replace("\n", "\r\n")),
    "a byte order mark": Read("x.csv", "\ufeff" + PLAIN),
    "blanks around values": Read("x.csv", "src , dst, time\n 1, 2 ,10 \n2 ,3, 20\n"),
    "an unbalanced quote in a text": Read(
        "x.csv",
        "src,dst,time,text\n1,2,10,a\n" + '2,3,20,"b\n3,4,30,c\n4,5,40,d\n5,6,50,"e\n',
        [1, 2],
        [2, 3],
        warning="line 3",
    ),
    # ids
    "ids of 19 digits": Read("x.csv", H + f"{LONG},7,10\n7,{2**63 - 1},20\n", [LONG, 7], [7, 2**63 - 1]),
    "ids beyond int64": Read("x.csv", H + f"{2**63},7,10\n7,8,20\n", [str(2**63), "7"], ["7", "8"]),
    "ids with a decimal point in one column": Read("x.csv", H + "12,7.0,10\n7,12.0,20\n", [12, 7], [7, 12]),
    "long ids with a decimal point": Read("x.csv", H + f"{LONG},7,10\n7,{LONG}.0,20\n", [LONG, 7], [7, LONG]),
    "ids with a decimal point in two kinds of nodes": Read(
        "x.csv", H + "1,5.0,10\n2,6,20\n", [1, 2], [5, 6], options={"bipartite": True}
    ),
    "jodie ids with a decimal point": Read(
        "x.csv",
        JODIE + "0.0,0.0,0.0,0,0.5\n5.0,0.0,36.0,1,0.25\n",
        [0, 5],
        [0, 0],
        [0, 36],
        node_labels=[0, 1],
        features=[[0.5], [0.25]],
        options={"format": "jodie"},
    ),
    "versions are text": Read("x.csv", H + "1.0,1.1,10\n1.1,2.0,20\n", ["1.0", "1.1"], ["1.1", "2.0"]),
    "numbers with and without a point among words": Read(
        "x.csv", H + "12,a,10\na,12.0,20\n", ["12", "a"], ["a", "12.0"], warning="'12.0'"
    ),
    "leading zeros are text": Read("x.csv", H + "007,7,10\n7,8,20\n", ["007", "7"], ["7", "8"]),
    "text that looks missing": Read("x.csv", H + "nan,NA,10\nann,nan,20\n", ["nan", "ann"], ["NA", "nan"]),
    "unicode": Read("x.csv", H + "é,日本,10\n日本,é,20\n", ["é", "日本"], ["日本", "é"]),
    # times
    "nanoseconds": Read(
        "x.csv", H + f"1,2,{NANOSECONDS}\n2,3,{NANOSECONDS + 1}\n", time=[NANOSECONDS, NANOSECONDS + 1]
    ),
    "nanoseconds, one with a decimal point": Read(
        "x.csv", H + f"1,2,{NANOSECONDS}.0\n2,3,{NANOSECONDS + 1}\n", time=[NANOSECONDS, NANOSECONDS + 1]
    ),
    "nanoseconds, one without digits after the point": Read(
        "x.csv", H + f"1,2,{NANOSECONDS}.\n2,3,{NANOSECONDS + 1}.00\n", time=[NANOSECONDS, NANOSECONDS + 1]
    ),
    "the largest integer": Read(
        "x.csv", H + f"1,2,{2**63 - 2}.0\n2,3,{2**63 - 1}\n", time=[2**63 - 2, 2**63 - 1]
    ),
    "times with an exponent": Read("x.csv", H + "1,2,1e1\n2,3,2.0E+1\n"),
    "times with fractions": Read("x.csv", H + "1,2,10\n2,3,20.25\n", time=[10.0, 20.25]),
    "negative times": Read("x.csv", H + "1,2,-10.0\n2,3,-5\n", time=[-10, -5]),
    "nanoseconds as fractions of seconds": Read(
        "x.csv",
        H + "1,2,1600000000.123456789\n2,3,1600000000.5\n",
        time=[1600000000.123456789, 1600000000.5],
        warning="rounded",
    ),
    "times far apart": Read("x.csv", H + "1,2,0\n2,3,1e29\n", time=[0, 1e29]),
    "one time": Read("x.csv", H + "1,2,10\n2,3,10\n", time=[10, 10]),
    # classes
    "classes with a decimal point": Read(
        "x.csv", LABELLED + "1,2,10,1.0\n2,3,20,1\n", classes=["1", "1"], options=WITH_CLASS
    ),
    "negative classes are unknown": Read(
        "x.csv",
        LABELLED + "1,2,10,-1\n2,3,20,10\n3,4,30,9\n",
        [1, 2, 3],
        [2, 3, 4],
        [10, 20, 30],
        [None, "10", "9"],
        warning="unknown",
        options=WITH_CLASS,
    ),
    "minus one among words is a class": Read(
        "x.csv", LABELLED + "1,2,10,-1\n2,3,20,up\n", classes=["-1", "up"], options=WITH_CLASS
    ),
    "one large class number": Read(
        "x.csv", LABELLED + "1,2,10,100000\n2,3,20,2\n", classes=["100000", "2"], options=WITH_CLASS
    ),
    "the largest class number": Read(
        "x.csv",
        LABELLED + f"1,2,10,{2**63 - 1}\n2,3,20,2\n",
        classes=[str(2**63 - 1), "2"],
        options=WITH_CLASS,
    ),
    "several classes": Read(
        "x.csv",
        "src,dst,time,a,b\n1,2,10,1,0\n2,3,20,0.0,1.0\n",
        options={"columns": "src=src,dst=dst,time=time,labels=a+b"},
    ),
    "node labels with a decimal point": Read(
        "x.csv",
        "src,dst,time,state\n1,2,10,1.0\n2,3,20,-1\n",
        node_labels=[1, -1],
        options={"columns": "src=src,dst=dst,time=time,node_label=state"},
    ),
    # features
    "features": Read(
        "x.csv",
        "src,dst,time,f0,f1\n1,2,10,0.5,1e-3\n2,3,20,-1,2\n",
        features=[[0.5, np.float32(1e-3)], [-1.0, 2.0]],
        options={"columns": "src=src,dst=dst,time=time,features=f0:f1"},
    ),
    "huge features": Read(
        "x.csv",
        "src,dst,time,f0\n1,2,10,1e38\n2,3,20,-1\n",
        features=[[np.float32(1e38)], [-1.0]],
        warning="--log-features",
        options={"columns": "src=src,dst=dst,time=time,features=f0"},
    ),
    # files
    "capital suffix": Read("X.CSV", PLAIN),
    "capital suffixes": Read("X.CSV.GZ", gzip.compress(PLAIN.encode())),
    "gzip without its suffix": Read("x.csv", gzip.compress(PLAIN.encode())),
    "gzip under the suffix of another compression": Read("x.csv.bz2", gzip.compress(PLAIN.encode())),
    "a plain file under a compression's suffix": Read("x.csv.gz", PLAIN),
    "gzip with zeros behind it": Read("x.csv.gz", gzip.compress(PLAIN.encode()) + bytes(700)),
    "gzip in two members": Read(
        "x.csv.gz", gzip.compress(PLAIN[:20].encode()) + gzip.compress(PLAIN[20:].encode())
    ),
    "bz2": Read("x.csv.bz2", bz2.compress(PLAIN.encode())),
    "a zip from macOS": Read(
        "x.csv.zip",
        zipped(
            ("data/", ""), ("data/x.csv", PLAIN), ("__MACOSX/data/._x.csv", b"\0\5"), (".DS_Store", b"\0")
        ),
    ),
    "a zip whose file has no name": Read("x.csv.zip", WITHOUT_A_NAME),
    "a zip named after nothing": Read("x.zip", zipped(("data/Events.CSV", PLAIN))),
    "a zip of a compressed file": Read("x.zip", zipped(("x.csv.gz", gzip.compress(PLAIN.encode())))),
    "a stored zip": Read("x.csv.zip", zipped(("x.csv", PLAIN), method=zipfile.ZIP_STORED)),
    "tabs": Read("x.tsv", PLAIN.replace(",", "\t")),
    "snap": Read("x.txt", "# src dst time\n\n1 2 10\n 2\t3  20 \n"),
    # what docs/data.md says
    "unsorted times": Read("x.csv", H + "2,3,20\n1,2,10\n"),
    "events of one time keep their order": Read(
        "x.csv", H + "3,1,5\n1,2,10\n2,3,5\n2,1,10\n", [3, 2, 1, 2], [1, 3, 2, 1], [5, 5, 10, 10]
    ),
    "named columns": Read(
        "x.csv",
        "when,item,user,kind\n20,3,2,b\n10,2,1,a\n",
        classes=["a", "b"],
        options={"columns": "src=user,dst=item,time=when,label=kind"},
    ),
    "snap columns": Read(
        "x.txt",
        "1 2 10 RT\n2 3 20 MT\n",
        classes=["RT", "MT"],
        options={"columns": "src=src,dst=dst,time=time,label=4"},
    ),
    "logarithms": Read(
        "x.csv",
        "src,dst,time,f0\n1,2,10,-999\n2,3,20,0\n",
        features=[[-np.log1p(np.float32(999))], [0.0]],
        options={"columns": "src=src,dst=dst,time=time,features=f0", "log_features": "all"},
    ),
    "float16": Read(
        "x.csv",
        "src,dst,time,f0\n1,2,10,0.1\n2,3,20,0\n",
        features=[[np.float16(0.1)], [0.0]],
        options={"columns": "src=src,dst=dst,time=time,features=f0", "feature_dtype": "float16"},
    ),
    "a knowledge graph": Read(
        "x.txt", "1\tr\t2\t10\t-1\n2\ts\t3\t20\t-1\n", classes=["r", "s"], options={"format": "kg"}
    ),
}

REFUSED = {
    # quotes
    "an unbalanced quote in ids": Refused(
        "x.csv", H + "0,1,2\n" + STRAY + '5,"6,7\n' + STRAY + '"8,9,10\n', ("line 43", "quote")
    ),
    "an unbalanced quote in the last column": Refused(
        "x.csv", H + '0,1,2\n1,2,"3\n' + STRAY, ("line 3", "quote")
    ),
    "an unbalanced quote in a class": Refused(
        "x.csv", LABELLED + '0,1,2,a\n1,2,3,"b\n2,3,4,c\n3,4,5,"d\n', ("line 3", "quote"), WITH_CLASS
    ),
    "an unbalanced quote in the first column": Refused(
        "x.csv", H + '0,1,2\n"5,6,7\n' + STRAY + '"8,9,10\n', ("line 3", "quote")
    ),
    "a quote that is never closed": Refused(
        "x.csv", "src,dst,time,text\n1,2,10,a\n" + '2,3,20,"b\n3,4,30,c\n', ("line 3", "quote")
    ),
    "a quote that is not closed for megabytes": Refused(
        "x.csv",
        "src,dst,time,text\n1,2,10,a\n" + '2,3,20,"b\n' + "3,4,30,c\n" * 600_000,
        ("line 3", "quote"),
        LARGE,
    ),
    "a row longer than a block": Refused(
        "x.csv", H + "1,2,10\n1," + "2" * (5 << 20) + ",20\n", ("2 MiB",), LARGE
    ),
    "a quote in the header": Refused("x.csv", '"src,dst,time\n1,2,10\n', ("line 1", "quote")),
    "a wrong row behind texts with line breaks": Refused(
        "x.csv",
        "\nsrc,dst,time,text\n" + MESSAGES + "1,2,3\n",
        (f"line {4 * NUM_MESSAGES + 3}", "4 columns"),
        LARGE,
    ),
    "a wrong time behind texts with line breaks": Refused(
        "x.csv",
        "src,dst,time,text\n" + MESSAGES + "1,2,noon,\n",
        (f"line {4 * NUM_MESSAGES + 2}", "noon"),
        LARGE,
    ),
    "line ends of old Macs": Refused("x.csv", PLAIN.replace("\n", "\r"), ("line 1", "new-line")),
    "a wrong time behind a blank first line": Refused("x.csv", "\n" + H + "1,2,noon\n", ("line 3", "noon")),
    # ids
    "NUL in an id": Refused("x.csv", H + "1,2,10\na\0,b,20\n", ("line 3", "'src'")),
    "ids as spreadsheets write them": Refused(
        "x.csv", H + "1,2,10\n1.58222E+18,3,20\n", ("line 3", "1.58222E+18")
    ),
    "a missing id among numbers": Refused("x.csv", H + "1,2,10\n1,nan,20\n", ("line 3", "nan")),
    "a negative id with a decimal point": Refused("x.csv", H + "1,2,10\n1,-1.0,20\n", ("line 3", "negative")),
    # times
    "integers from 2^63 on": Refused("x.csv", H + f"1,2,10\n1,2,{2**63}\n", ("line 3", "2^63")),
    "long integers and fractions": Refused("x.csv", H + f"1,2,{NANOSECONDS}\n2,3,20.5\n", ("line 3", "2^53")),
    "a hexadecimal time": Refused("x.csv", H + "1,2,10\n1,2,0x10\n", ("line 3", "0x10")),
    "infinite times": Refused("x.csv", H + "1,2,10\n1,2,1e400\n", ("line 3", "finite")),
    "times beyond any clock": Refused("x.csv", H + "1,2,-1e308\n1,2,1e308\n", ("line 2", "10^30")),
    "times closer than any clock": Refused("x.csv", H + "1,2,1e-300\n1,2,2e-300\n", ("10^-30",)),
    "integers whose differences overflow": Refused(
        "x.csv", H + f"1,2,{-(2**62) - 1}\n1,2,{2**62}\n", ("2^63",)
    ),
    # classes
    "a missing class": Refused("x.csv", LABELLED + "1,2,10,1\n2,3,20,nan\n", ("line 3", "nan"), WITH_CLASS),
    "a missing class among words": Refused(
        "x.csv", LABELLED + "1,2,10,a\n2,3,20,NaN\n", ("line 3", "NaN"), WITH_CLASS
    ),
    "NUL in a class": Refused(
        "x.csv", LABELLED + "1,2,10,a\0b\n2,3,20,a\n", ("line 2", "'kind'"), WITH_CLASS
    ),
    "node labels beyond integers": Refused(
        "x.csv",
        "src,dst,time,state\n1,2,10,0\n2,3,20,1e18\n",
        ("line 3", "'state'"),
        {"columns": "src=src,dst=dst,time=time,node_label=state"},
    ),
    # files
    "an encrypted zip": Refused("x.csv.zip", ENCRYPTED, ("x.csv.zip", "encrypted", "unpack")),
    "a zip of an unknown method": Refused("x.csv.zip", OF_UNKNOWN_METHOD, ("x.csv.zip", "unpack")),
    "a damaged zip": Refused("x.csv.zip", CUT_INSIDE, ("x.csv.zip", "complete copy")),
    "a zip of two files": Refused(
        "x.csv.zip", zipped(("a.csv", PLAIN), ("b.csv", PLAIN)), ("2 found", "unpack")
    ),
    "an empty zip": Refused("x.csv.zip", zipped(), ("0 found",)),
    "a zip of a knowledge graph": Refused(
        "x.zip",
        zipped(*((f"kg/{part}.txt", "") for part in ("train", "valid", "test"))),
        ("unpack", "folder"),
    ),
    "gzip with other bytes behind it": Refused(
        "x.csv.gz", gzip.compress(PLAIN.encode()) + b"rest", ("complete copy",)
    ),
    "a cut gzip": Refused("x.csv.gz", gzip.compress(PLAIN.encode())[:-4], ("complete copy",)),
    "UTF-16": Refused("x.csv", PLAIN.encode("utf-16"), ("UTF-8",)),
    "xz": Refused("x.csv.xz", b"\xfd7zXZ\0" + bytes(40), ("xz", "unpack")),
}


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("disttgl_hpc"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return lambda: [
        one.getMessage()
        for one in caplog.records
        if "both source and destination" not in one.getMessage()
        and "the split leaves" not in one.getMessage()
    ]


def in_chunks(cases):
    """Each case in one chunk and, if chunks may matter, in chunks of one event."""
    return [
        pytest.param(case, chunk_events, id=f"{name}-{chunk_events}")
        for name, case in cases.items()
        for chunk_events in (
            (1000,) if case.options is LARGE or isinstance(case.content, bytes) else (1, 1000)
        )
    ]


@pytest.mark.parametrize(("case", "chunk_events"), in_chunks(READ))
def test_an_input_is_read_as_it_is_meant(tmp_path, warnings, case, chunk_events):
    found = facts(prepared(tmp_path, case.name, case.content, {"chunk_events": chunk_events} | case.options))
    assert found == {name: getattr(case, name) for name in FIELDS}
    assert [type(time) for time in found["time"]] == [type(case.time[-1])] * len(case.time)
    if case.warning:
        (message,) = warnings()
        assert case.warning in message
    else:
        assert not warnings()


@pytest.mark.parametrize(("case", "chunk_events"), in_chunks(REFUSED))
def test_an_input_is_refused_with_place_and_remedy(tmp_path, case, chunk_events):
    with pytest.raises(InputError) as refused:
        prepared(tmp_path, case.name, case.content, {"chunk_events": chunk_events} | case.options)
    message = str(refused.value)
    assert str(tmp_path / case.name) in message
    assert "\n" not in message
    for word in case.words:
        assert word in message
    assert [path.name for path in tmp_path.iterdir()] == [case.name]


def table(src, dst, time):
    return {"src": src, "dst": dst, "time": time}


def write_text(path, rows, header="", separator=","):
    path.write_text(header + "".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path


def write_parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


def in_folder(folder):
    folder.mkdir()
    return folder


def saved(path, columns, save):
    save(path, columns)
    return path


LONG_IDS = ([LONG, 7, 2**63 - 1], [7, 2**53 + 1, LONG], [10, 20, 30])
ROWS = list(zip(*LONG_IDS, strict=True))
TEXTS = [[str(one) for one in column] for column in LONG_IDS]
TENSORS = {name: torch.tensor(values) for name, values in zip(("src", "dst", "t"), LONG_IDS, strict=True)}
WRITERS = {
    "csv": lambda to: (write_text(to / "x.csv", ROWS, H), {}),
    "tsv": lambda to: (write_text(to / "x.tsv", ROWS, "src\tdst\ttime\n", "\t"), {}),
    "snap": lambda to: (write_text(to / "x.txt", ROWS, "", " "), {}),
    "jodie": lambda to: (write_text(to / "x.csv", [(*row, 0) for row in ROWS], JODIE), {"format": "jodie"}),
    "parquet": lambda to: (write_parquet(to / "x.parquet", table(*LONG_IDS)), {}),
    "parquet of text": lambda to: (write_parquet(to / "x.parquet", table(*TEXTS)), {}),
    "parquet of uint64": lambda to: (
        write_parquet(to / "x.parquet", table(*(np.array(column, np.uint64) for column in LONG_IDS))),
        {},
    ),
    "parquet of dictionaries": lambda to: (
        write_parquet(
            to / "x.parquet", table(*(pa.array(one).dictionary_encode() for one in TEXTS[:2]), LONG_IDS[2])
        ),
        {},
    ),
    "npz": lambda to: (saved(to / "x.npz", table(*LONG_IDS), lambda path, one: np.savez(path, **one)), {}),
    "npz of text": lambda to: (
        saved(to / "x.npz", table(*TEXTS), lambda path, one: np.savez(path, **one)),
        {},
    ),
    "pyg": lambda to: (saved(to / "x.pt", TENSORS, lambda path, one: torch.save(one, path)), {}),
    "tgl": lambda to: (write_text(in_folder(to / "tgl") / "edges.csv", ROWS, H).parent, {}),
    "dyglib": lambda to: (
        write_text(
            in_folder(to / "dyglib") / "ml_x.csv",
            [(*row, 0, k) for k, row in enumerate(ROWS)],
            "u,i,ts,label,idx\n",
        ).parent,
        {},
    ),
    "kg": lambda to: (
        write_text(to / "x.txt", [(src, 0, dst, time) for src, dst, time in ROWS], "", "\t"),
        {"format": "kg"},
    ),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_ids_of_19_digits_are_the_same_from_every_input(tmp_path, write):
    path, options = write(tmp_path)
    store = run(tmp_path, path, **options)
    assert store.node_ids().dtype == np.int64
    found = facts(store)
    assert [found[name] for name in ("src", "dst", "time")] == list(LONG_IDS)


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.str_])
def test_ids_of_19_digits_are_the_same_from_a_frame(tmp_path, kind):
    src, dst, time = LONG_IDS
    store = prepare_frame(table(np.array(src, kind), np.array(dst, kind), time), tmp_path / "out.events.h5")
    assert [facts(store)[name] for name in ("src", "dst", "time")] == list(LONG_IDS)


def test_labels_of_a_tgl_folder_find_nodes_written_with_a_point(tmp_path):
    folder = in_folder(tmp_path / "tgl")
    write_text(folder / "edges.csv", [(1, 2, 10), ("2.0", 3, 20)], H)
    write_text(folder / "labels.csv", [("1.0", "10.0", "7.0"), (2, 20, 8)], "node,time,label\n")
    assert facts(run(tmp_path, folder)) == {
        "src": [1, 2],
        "dst": [2, 3],
        "time": [10, 20],
        "classes": None,
        "node_labels": [7, 8],
        "features": None,
    }


FLOAT32 = np.array([1_600_000_000, 1_600_000_100], np.float32)


@pytest.mark.parametrize("chunk_events", [1, 1000])
@pytest.mark.parametrize(
    ("times", "step"),
    [(FLOAT32, "128"), (FLOAT32 / 1e5, "0.000977"), (FLOAT32 // 200, ""), (FLOAT32.astype(np.float64), "")],
)
@pytest.mark.parametrize("kind", ["npz", "pyg", "parquet"])
def test_times_that_were_rounded_to_float32_are_warned_of(
    tmp_path, warnings, kind, times, step, chunk_events
):
    path = tmp_path / {"npz": "x.npz", "pyg": "x.pt", "parquet": "x.parquet"}[kind]
    src, dst = np.array([1, 2]), np.array([2, 3])
    if kind == "npz":
        np.savez(path, src=src, dst=dst, time=times)
    elif kind == "pyg":
        torch.save({"src": torch.tensor(src), "dst": torch.tensor(dst), "t": torch.tensor(times)}, path)
    else:
        write_parquet(path, table(src, dst, times))
    assert facts(run(tmp_path, path, chunk_events=chunk_events))["time"] == times.tolist()
    assert [f"steps of {step}" in message for message in warnings()] == [True] * bool(step)


@pytest.mark.parametrize("kind", ["frame", "parquet"])
@pytest.mark.parametrize(
    ("column", "values", "word"),
    [
        ("src", ["a\nb", "c"], "line break"),
        ("src", ["a\0", "a"], "NUL"),
        ("kind", ["a\rb", "c"], "line break"),
        ("src", [1.5, 2.0], "integers"),
        ("src", [1.0, float("nan")], "row 2"),
        ("src", [2.0**60, 1.0], "2^53"),
        ("src", np.array([1, 2**24 + 2], np.float32), "2^24"),
        ("time", np.array([1, 2**63], np.uint64), "2^63"),
    ],
)
def test_typed_columns_are_refused_like_text(tmp_path, kind, column, values, word):
    columns = table([1, 2], [2, 3], [10, 20]) | {"kind": [0, 1], column: values}
    roles = parse_columns(WITH_CLASS["columns"])
    output = tmp_path / "out.events.h5"
    if kind == "frame":
        given = partial(prepare_frame, columns, output)
    else:
        given = partial(run, tmp_path, write_parquet(tmp_path / "x.parquet", columns))
    with pytest.raises(InputError, match=re.escape(word)) as refused:
        given(columns=roles)
    assert column in str(refused.value)


def test_columns_of_floats_are_ids_and_classes_if_all_are_integers(tmp_path):
    columns = table([1.0, 2.0], [2.0, 3.0], [10.0, 20.0]) | {"kind": [1.0, -1.0]}
    store = prepare_frame(columns, tmp_path / "out.events.h5", columns=WITH_CLASS["columns"])
    assert [facts(store)[name] for name in FIELDS[:4]] == [[1, 2], [2, 3], [10, 20], ["1", None]]


def test_later_events_keep_unknown_classes(tmp_path):
    """A store that grows equals one of all input, also where a class is unknown or becomes a word."""
    for name, rows in (("a", "1,2,10,-1\n2,3,20,5\n"), ("b", "3,4,30,7\n"), ("c", "4,5,40,up\n")):
        (tmp_path / f"{name}.csv").write_text(LABELLED + rows)
    columns = parse_columns(WITH_CLASS["columns"])
    run(tmp_path, tmp_path / "a.csv", columns=columns)
    for names in ("ab", "abc"):
        grown = append(
            AppendSettings(store=tmp_path / "out.events.h5", inputs=(tmp_path / f"{names[-1]}.csv",))
        )
        whole = prepare(
            PrepareSettings(
                inputs=tuple(tmp_path / f"{name}.csv" for name in names),
                output=tmp_path / "whole.events.h5",
                columns=columns,
                split_times=(20, 20),
                force=True,
            )
        )
        assert facts(grown) == facts(whole)
    assert facts(whole)["classes"] == ["-1", "5", "7", "up"]


def test_the_unit_of_typed_timestamps_is_kept(tmp_path):
    times = pa.array([NANOSECONDS, NANOSECONDS + 1], pa.timestamp("ns"))
    store = run(tmp_path, write_parquet(tmp_path / "x.parquet", table([1, 2], [2, 3], times)))
    assert facts(store)["time"] == [NANOSECONDS, NANOSECONDS + 1]
    assert store.stream.time_unit == "ns"


@pytest.mark.parametrize(
    ("option", "ends"),
    [({}, (7, 8)), ({"split": "0.5/0.3/0.2"}, (5, 8)), ({"split_times": "2,5"}, (2, 5))],
)
def test_events_are_split_by_time(tmp_path, option, ends):
    store = prepared(tmp_path, "x.csv", H + "".join(f"1,2,{time}\n" for time in range(9, -1, -1)), option)
    assert (store.stream.split.train_end, store.stream.split.validation_end) == ends
