"""The same events become the same store in every format."""

import logging
import re
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from prepare_inputs import REAL, run

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import prepare_frame
from disttgl_hpc.ingest.split import parse_split

NUM_EVENTS, NUM_NODES = 40, 12
SHARES = parse_split("0.5/0.25/0.25")


@pytest.fixture
def events():
    """Arrays of a stream with self-loops, ties, and nodes that no event has."""
    rng = np.random.default_rng(3)
    src, dst = rng.integers(0, NUM_NODES - 2, (2, NUM_EVENTS))
    return {
        "src": src,
        "dst": dst,
        "time": 1_200_000_000 + np.sort(rng.integers(0, 20, NUM_EVENTS)),
        "edge_features": rng.integers(-9, 9, (NUM_EVENTS, 3)).astype(np.float32) / 8,
        "node_features": rng.integers(-9, 9, (NUM_NODES, 2)).astype(np.float32) / 4,
        "label": rng.integers(0, 4, NUM_EVENTS),
        "node_label": rng.integers(0, 2, NUM_EVENTS),
        "split": np.repeat([0, 1, 2], [20, 10, 10]),
    }


def from_csv(
    tmp_path, events, *, parts=("edge_features", "node_features", "label", "node_label"), first_id=0
):
    """The store prepared from a csv of the events; ids count from ``first_id``."""
    columns = {name: events[name] for name in ("src", "dst", "time")}
    columns |= {end: columns[end] + first_id for end in ("src", "dst")}
    text = "src=src,dst=dst,time=time"
    for name in ("label", "node_label"):
        if name in parts:
            columns[name], text = events[name], f"{text},{name}={name}"
    if "edge_features" in parts:
        columns |= {f"f{index}": column for index, column in enumerate(events["edge_features"].T)}
        text += ",features=f0:f2"
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(str(value) for value in row) for row in rows)]
    folder = tmp_path / "csv"
    folder.mkdir(exist_ok=True)
    (folder / "in.csv").write_text("\n".join(lines) + "\n")
    options = {}
    if "node_features" in parts:
        padding = np.zeros((first_id, 2), np.float32)
        np.save(folder / "nodes.npy", np.concatenate([padding, events["node_features"]]))
        options["node_features"] = folder / "nodes.npy"
    return run(folder, folder / "in.csv", columns=parse_columns(text), split=SHARES, **options)


def write_lines(path, header, *columns):
    rows = zip(*columns, strict=True)
    path.write_text(header + "\n" + "".join(",".join(str(value) for value in row) + "\n" for row in rows))


def write_tgl(folder, events, *, labels=True):
    folder.mkdir()
    index = np.arange(NUM_EVENTS)
    ends = events["src"], events["dst"], events["time"].astype(float)
    write_lines(
        folder / "edges.csv", ",src,dst,time,int_roll,ext_roll", index, *ends, index * 0, events["split"]
    )
    torch.save(torch.from_numpy(events["edge_features"]), folder / "edge_features.pt")
    torch.save(torch.from_numpy(events["node_features"]), folder / "node_features.pt")
    if labels:
        columns = events["src"], events["time"].astype(float), events["node_label"], events["split"]
        write_lines(folder / "labels.csv", ",node,time,label,ext_roll", index, *columns)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_tgl_equals_csv(tmp_path, events, chunk):
    expected = from_csv(tmp_path, events, parts=("edge_features", "node_features", "node_label"))
    write_tgl(tmp_path / "WIKI", events)
    store = run(tmp_path, tmp_path / "WIKI", chunk_events=chunk)
    assert store.checksum == expected.checksum
    assert [name for name, _ in store.sources] == [
        "edges.csv",
        "edge_features.pt",
        "node_features.pt",
        "labels.csv",
    ]


def test_tgl_of_events_and_their_split_alone(tmp_path, events):
    (tmp_path / "WIKI").mkdir()
    columns = (events[name] for name in ("src", "dst", "time", "split"))
    write_lines(tmp_path / "WIKI" / "edges.csv", "src,dst,time,ext_roll", *columns)
    assert run(tmp_path, tmp_path / "WIKI").checksum == from_csv(tmp_path, events, parts=()).checksum


def test_tgl_labels_find_the_event_of_their_node_and_time(tmp_path, events, caplog, monkeypatch):
    """Labels in any order; several of a node at a time label its events in turn; other events have none."""
    monkeypatch.setattr(logging.getLogger("disttgl_hpc"), "propagate", True)
    write_tgl(tmp_path / "WIKI", events, labels=False)
    (tmp_path / "WIKI" / "edges.csv").write_text(
        "src,dst,time\n" + "1,2,10\n1,3,10\n2,1,10\n1,4,10\n1,5,11\n"
    )
    for name in ("edge_features.pt", "node_features.pt"):
        (tmp_path / "WIKI" / name).unlink()
    (tmp_path / "WIKI" / "labels.csv").write_text("node,time,label\n1,11,7\n5,11,3\n1,10,4\n1,10,6\n9,10,1\n")
    store = run(tmp_path, tmp_path / "WIKI", chunk_events=2)
    assert store.node_labels.tolist() == [4, 6, -1, 6, 7]
    assert "2 of 5 labels" in caplog.text


def test_a_split_that_does_not_follow_the_times_is_refused(tmp_path, events):
    events["split"][5] = 2
    write_tgl(tmp_path / "WIKI", events)
    with pytest.raises(InputError, match=r"train comes after.* test"):
        run(tmp_path, tmp_path / "WIKI")
    split = run(tmp_path, tmp_path / "WIKI", split=SHARES).stream.split
    assert (split.train_end, split.validation_end) == (20, 30)


def test_features_of_fewer_or_more_events_are_refused(tmp_path, events):
    write_tgl(tmp_path / "WIKI", events)
    for rows, message in ((30, "every event"), (50, "every row")):
        torch.save(torch.zeros(rows, 3), tmp_path / "WIKI" / "edge_features.pt")
        with pytest.raises(InputError, match=message):
            run(tmp_path, tmp_path / "WIKI")


class Mischief:
    def __reduce__(self):
        return (open, ("taken.txt", "w"))


@pytest.mark.parametrize("name", ["edge_features.pt", "node_features.pt"])
def test_no_pickle_is_read(tmp_path, events, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tgl(tmp_path / "WIKI", events)
    torch.save({"rows": Mischief()}, tmp_path / "WIKI" / name)
    with pytest.raises(InputError, match=name):
        run(tmp_path, tmp_path / "WIKI")
    np.savez(tmp_path / "in.npz", src=np.array([Mischief()]), dst=[1], time=[1])
    with pytest.raises(InputError, match="pickled"):
        run(tmp_path, tmp_path / "in.npz")
    assert not (tmp_path / "taken.txt").exists()


def write_dyglib(folder, events, name="wikipedia"):
    folder.mkdir()
    index = np.arange(NUM_EVENTS)
    ends = events["src"] + 1, events["dst"] + 1, events["time"].astype(float)
    write_lines(folder / f"ml_{name}.csv", ",u,i,ts,label,idx", index, *ends, events["node_label"], index + 1)
    for ending, rows in (("", events["edge_features"]), ("_node", events["node_features"])):
        np.save(folder / f"ml_{name}{ending}.npy", np.concatenate([np.zeros_like(rows[:1]), rows]))


@pytest.mark.parametrize("chunk", [7, 1000])
def test_dyglib_equals_csv(tmp_path, events, chunk):
    parts = ("edge_features", "node_features", "node_label")
    expected = from_csv(tmp_path, events, parts=parts, first_id=1)
    write_dyglib(tmp_path / "wikipedia", events)
    for place in (tmp_path / "wikipedia", tmp_path / "wikipedia" / "ml_wikipedia.csv"):
        store = run(tmp_path, place, format="dyglib", split=SHARES, chunk_events=chunk)
        assert store.checksum == expected.checksum


def test_dyglib_arrays_of_zeros_are_ignored(tmp_path, events):
    events["node_features"][:] = 0
    write_dyglib(tmp_path / "wikipedia", events)
    expected = from_csv(tmp_path, events, parts=("edge_features", "node_label"), first_id=1)
    assert run(tmp_path, tmp_path / "wikipedia", split=SHARES).checksum == expected.checksum


@pytest.mark.parametrize("rows", [np.array(3.0), np.array([["a"]]), np.ones((2, 2, 2)), np.array([], "V4")])
def test_dyglib_arrays_of_other_things_are_refused(tmp_path, events, rows):
    write_dyglib(tmp_path / "wikipedia", events)
    np.save(tmp_path / "wikipedia" / "ml_wikipedia.npy", rows)
    with pytest.raises(InputError, match=r"ml_wikipedia\.npy: .*numbers"):
        run(tmp_path, tmp_path / "wikipedia")


def test_missing_dyglib_rows_are_refused(tmp_path, events):
    write_dyglib(tmp_path / "wikipedia", events)
    np.save(tmp_path / "wikipedia" / "ml_wikipedia.npy", np.ones((30, 2), np.float32))
    with pytest.raises(InputError, match=r"line 31: column 'idx'.* 30 rows"):
        run(tmp_path, tmp_path / "wikipedia")


@pytest.mark.parametrize("chunk", [7, 1000])
def test_npz_equals_csv(tmp_path, events, chunk):
    np.savez(tmp_path / "in.npz", **events)
    assert (
        run(tmp_path, tmp_path / "in.npz", chunk_events=chunk).checksum == from_csv(tmp_path, events).checksum
    )


def with_negatives(events):
    """The events with negatives of different numbers, some of nodes that no event has."""
    rng = np.random.default_rng(0)
    validation, test = rng.integers(0, NUM_NODES + 3, (10, 4)), rng.integers(0, NUM_NODES, (10, 3))
    validation[3, [0, 2]] = -1
    return events | {"validation_negatives": validation, "test_negatives": test}


def test_given_negatives_are_nodes_of_the_store(tmp_path, events):
    given = with_negatives(events)
    given["node_features"] = np.zeros((NUM_NODES + 3, 2))
    np.savez(tmp_path / "in.npz", **given)
    store = run(tmp_path, tmp_path / "in.npz")
    store.check_contents()
    ids, stream = store.node_ids(), store.stream
    found = np.where(stream.validation_negatives < 0, -1, ids[stream.validation_negatives])
    given["validation_negatives"][3] = [
        *given["validation_negatives"][3, [1, 3]],
        -1,
        -1,
    ]  # padding comes last
    assert found.tolist() == given["validation_negatives"].tolist()
    assert ids[stream.test_negatives[:, :3]].tolist() == given["test_negatives"].tolist()
    assert (stream.test_negatives[:, 3] == -1).all()
    assert stream.num_nodes == len(np.unique(np.concatenate([found[found >= 0], ids])))


@pytest.mark.parametrize("chunk", [7, 1000])
def test_split_and_negatives_stay_with_their_events_when_these_are_sorted(tmp_path, events, chunk):
    events = with_negatives(events) | {"time": np.arange(NUM_EVENTS)}
    del events["node_features"]
    np.savez(tmp_path / "in.npz", **events)
    expected = run(tmp_path, tmp_path / "in.npz")
    order = np.random.default_rng(1).permutation(NUM_EVENTS)
    shuffled = {name: rows[order] for name, rows in events.items() if len(rows) == NUM_EVENTS}
    for name, first in (("validation_negatives", 20), ("test_negatives", 30)):
        shuffled[name] = events[name][order[(order >= first) & (order < first + 10)] - first]
    np.savez(tmp_path / "in.npz", **shuffled)
    assert run(tmp_path, tmp_path / "in.npz", chunk_events=chunk).checksum == expected.checksum


def test_another_split_drops_given_negatives(tmp_path, events):
    events = with_negatives(events)
    del events["node_features"]
    np.savez(tmp_path / "in.npz", **events)
    stream = run(tmp_path, tmp_path / "in.npz", split=SHARES).stream
    assert stream.validation_negatives is None
    assert stream.test_negatives is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": np.arange(3)}, "src has 40 and time"),
        ({"src": np.ones((40, 2))}, "src must be a vector"),
        ({"src": np.linspace(0, 1, 40)}, "integers or text"),
        ({"split": np.full(40, 3)}, "row 1: the split"),
        ({"edge_features": np.full(40, np.nan)}, "row 1: .*finite"),
        ({"node_features": np.ones((5, 2))}, "5 rows .* 9"),
        ({"node_features": np.full((12, 2), np.inf)}, "row of node 0: .*finite"),
        ({"validation_negatives": np.ones((3, 2), int)}, "belong together"),
        (
            {"validation_negatives": np.ones((3, 2), int), "test_negatives": np.ones((10, 2), int)},
            "10 events",
        ),
        (
            {"validation_negatives": np.full((10, 2), -1), "test_negatives": np.ones((10, 2), int)},
            "a negative",
        ),
        (
            {
                "dst": np.full(40, "a"),
                "validation_negatives": np.ones((10, 2), int),
                "test_negatives": np.ones((10, 2), int),
            },
            "node numbers",
        ),
        ({"weight": np.ones(40)}, "weight"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, events, change, message):
    np.savez(tmp_path / "in.npz", **(events | change))
    with pytest.raises(InputError, match=message):
        run(tmp_path, tmp_path / "in.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def as_temporal_data(events):
    names = {"src": "src", "dst": "dst", "time": "t", "edge_features": "msg", "node_label": "y"}
    return {theirs: torch.from_numpy(events[ours]) for ours, theirs in names.items()}


def test_temporal_data_equals_csv(tmp_path, events):
    expected = from_csv(tmp_path, events, parts=("edge_features", "node_label"))
    torch.save(as_temporal_data(events), tmp_path / "data.pt")
    assert run(tmp_path, tmp_path / "data.pt", split=SHARES).checksum == expected.checksum
    data = SimpleNamespace(**as_temporal_data(events))
    store = prepare_frame(data, tmp_path / "api.events.h5", split=SHARES, chunk_events=7)
    assert store.checksum == expected.checksum


def test_temporal_data_of_pytorch_geometric_is_taken(tmp_path, events):
    pytest.importorskip("torch_geometric")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.data import TemporalData
    data = TemporalData(**as_temporal_data(events))
    torch.save(data.to_dict(), tmp_path / "data.pt")
    expected = from_csv(tmp_path, events, parts=("edge_features", "node_label")).checksum
    assert run(tmp_path, tmp_path / "data.pt", split=SHARES).checksum == expected
    assert prepare_frame(data, tmp_path / "api.events.h5", split=SHARES).checksum == expected


def test_frames_equal_csv(tmp_path, events):
    columns = {"who": events["src"], "whom": events["dst"], "t": events["time"], "kind": events["label"]}
    columns |= {f"f{index}": column for index, column in enumerate(events["edge_features"].T)}
    expected = from_csv(tmp_path, events, parts=("edge_features", "node_features", "label")).checksum
    table = pa.table(columns)
    for number, frame in enumerate((columns, table, table.to_reader(max_chunksize=9))):
        store = prepare_frame(
            frame,
            tmp_path / f"{number}.events.h5",
            columns="src=who,dst=whom,time=t,label=kind,features=f0:f2",
            node_features=events["node_features"],
            split=SHARES,
            chunk_events=13,
        )
        assert store.checksum == expected


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_a_library_equal_arrow(tmp_path, events, library):
    frames = pytest.importorskip(library)
    columns = {
        "src": [f"n{value}" for value in events["src"]],
        "dst": [f"n{value}" for value in events["dst"]],
    }
    columns["time"] = events["time"]
    expected = prepare_frame(columns, tmp_path / "arrow.events.h5").checksum
    store = prepare_frame(frames.DataFrame(columns), tmp_path / "frame.events.h5")
    assert store.checksum == expected


def test_text_views_are_texts(tmp_path, events):
    """Polars exports text as views."""
    columns = {end: pa.array([f"n{value}" for value in events[end]]) for end in ("src", "dst")}
    times = {"time": events["time"]}
    expected = prepare_frame(columns | times, tmp_path / "text.events.h5").checksum
    views = {name: values.cast(pa.string_view()) for name, values in columns.items()}
    assert prepare_frame(views | times, tmp_path / "views.events.h5").checksum == expected


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(from disttgl_hpc import prepare_frame.*?)```", text, re.DOTALL)
    namespace = {}
    exec(example, namespace)  # noqa: S102 (our own)
    assert namespace["store"].node_ids().tolist() == ["ann", "bob", "rye", "tea"]


def test_other_objects_are_no_frames(tmp_path):
    with pytest.raises(InputError, match=r"Arrow.*list"):
        prepare_frame([1, 2], tmp_path / "x.events.h5")
    with pytest.raises(InputError, match=r"frame: .*Arrow"):
        prepare_frame({"src": [1, "a"], "dst": [1], "time": [1]}, tmp_path / "x.events.h5")
    with pytest.raises(InputError, match=r"frame.* dst"):
        prepare_frame({"src": [1], "time": [1]}, tmp_path / "x.events.h5")
    assert not list(tmp_path.iterdir())


def write_facts(folder, events, *, names=True):
    folder.mkdir()
    rows = [events[name] for name in ("src", "label", "dst", "time")]
    for part, name in enumerate(("train", "valid", "test")):
        own = events["split"] == part
        facts = zip(*(column[own] for column in rows), strict=True)
        (folder / f"{name}.txt").write_text(
            "".join("\t".join(str(value) for value in fact) + "\t-1\r\n" for fact in facts)
        )
    if names:
        for name, count in (("entity", NUM_NODES), ("relation", 5)):
            lines = (f'{name} "{number:02}, of it\t{number}\r\n' for number in range(count))
            (folder / f"{name}2id.txt").write_text("".join(lines))


@pytest.mark.parametrize("chunk", [7, 1000])
def test_knowledge_graph_equals_csv(tmp_path, events, chunk):
    write_facts(tmp_path / "kg", events, names=False)
    store = run(tmp_path, tmp_path / "kg", chunk_events=chunk)
    assert store.checksum == from_csv(tmp_path, events, parts=("label",)).checksum
    files = [tmp_path / "kg" / f"{name}.txt" for name in ("train", "valid", "test")]
    merged = run(tmp_path, *files, format="kg", split=SHARES, chunk_events=chunk)
    assert merged.checksum == store.checksum


def test_knowledge_graph_with_names(tmp_path, events):
    """Names of nodes are their ids; relations keep their numbers, even without events."""
    write_facts(tmp_path / "kg", events)
    store, plain = run(tmp_path, tmp_path / "kg"), from_csv(tmp_path, events, parts=("label",))
    assert store.class_names == tuple(f'relation "{number:02}, of it' for number in range(5))
    assert store.stream.edge_labels.tolist() == events["label"].tolist()
    found = store.node_ids()[store.stream.src].tolist()
    assert found == [f'entity "{number:02}, of it' for number in events["src"]]
    assert store.stream.src.tolist() == plain.stream.src.tolist()
    assert store.stream.split == plain.stream.split


def test_knowledge_graph_split_at_equal_times_stays(tmp_path, events):
    """Facts of one time in two files keep the order of the files."""
    events["time"] = np.repeat([5, 6, 6, 6, 6, 7, 7, 8], 5)
    write_facts(tmp_path / "kg", events, names=False)
    stream = run(tmp_path, tmp_path / "kg", chunk_events=3).stream
    assert stream.src.tolist() == run(tmp_path, tmp_path / "kg").stream.src.tolist()
    assert (stream.split.train_end, stream.split.validation_end) == (20, 30)
    assert stream.time[19] == stream.time[20]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("entity2id.txt", "a\t0\nb\t0\n", "one name per number"),
        ("entity2id.txt", "a\t0\nb\t1\n", "a name in entity2id.txt"),
        ("relation2id.txt", "a\t0\nb\t2\n", "numbered 0, 1"),
        ("valid.txt", "1 2 3 4\n", "tabs"),
        ("valid.txt", "1\t2\t3\t5\n", "follow the times"),
    ],
)
def test_knowledge_graphs_that_do_not_fit_are_refused(tmp_path, events, name, text, message):
    write_facts(tmp_path / "kg", events, names=name != "valid.txt")
    (tmp_path / "kg" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        run(tmp_path, tmp_path / "kg")


@pytest.mark.skipif(not (REAL / "icews18.zip").exists(), reason="no folder of real streams")
def test_real_icews18(tmp_path):
    with zipfile.ZipFile(REAL / "icews18.zip") as archive:
        archive.extractall(tmp_path / "icews18")
    store = run(tmp_path, tmp_path / "icews18")
    stream = store.stream
    assert (stream.num_events, len(store.class_names)) == (468_558, 256)
    assert stream.split.train_end == 373_018
    assert len(np.unique(stream.time)) == 304
    first = store.node_ids()[[stream.src[1], stream.dst[1]]].tolist()
    facts = (tmp_path / "icews18" / "train.txt").read_text().splitlines()
    names = dict(
        reversed(line.strip().split("\t"))
        for line in (tmp_path / "icews18" / "entity2id.txt").read_text().splitlines()
    )
    assert first == [names[facts[1].split("\t")[column]] for column in (0, 2)]


def test_node_features_need_ids_that_are_their_rows(tmp_path, events):
    (tmp_path / "in.csv").write_text("src,dst,time\nann,bob,1\n")
    np.save(tmp_path / "nodes.npy", np.ones((3, 2)))
    with pytest.raises(InputError, match="'ann'"):
        run(tmp_path, tmp_path / "in.csv", node_features=tmp_path / "nodes.npy")
    (tmp_path / "in.csv").write_text("src,dst,time\n1,1,1\n2,0,1\n")
    with pytest.raises(InputError, match="1 ids such as 1"):
        run(tmp_path, tmp_path / "in.csv", node_features=tmp_path / "nodes.npy", bipartite=True)
    for rows in (np.ones(3), np.array([["a"]]), np.ones((3, 0))):
        np.save(tmp_path / "nodes.npy", rows)
        with pytest.raises(InputError, match="numbers"):
            run(tmp_path, tmp_path / "in.csv", node_features=tmp_path / "nodes.npy")


def test_folders_are_recognised_by_their_contents(tmp_path, events):
    (tmp_path / "empty").mkdir()
    (tmp_path / "tgbl_wiki").mkdir()
    write_dyglib(tmp_path / "both", events)
    (tmp_path / "both" / "edges.csv").write_text("src,dst,time\n1,2,3\n")
    for name, message in (
        ("empty", "found no such file"),
        ("both", "tgl and dyglib"),
        ("tgbl_wiki", "--format tgb"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path, tmp_path / name)
    assert run(tmp_path, tmp_path / "both", format="dyglib").stream.num_events == NUM_EVENTS
    with pytest.raises(InputError, match=r"csv.* folder"):
        run(tmp_path, tmp_path / "both", format="csv")
    with pytest.raises(InputError, match=r"--columns.* tgl"):
        run(tmp_path, tmp_path / "both", format="tgl", columns=parse_columns("src=a,dst=b,time=c"))
