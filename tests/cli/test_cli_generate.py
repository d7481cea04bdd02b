import pyarrow.csv as pa_csv
import pytest
from click.testing import CliRunner

from disttgl_hpc.cli.generate import generate
from disttgl_hpc.cli.prepare import prepare
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.ingest import generate as generating
from disttgl_hpc.store.event_store import EventStore


def run(*arguments, command=generate):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_options_reach_the_store(tmp_path):
    output = tmp_path / "g.events.h5"
    nodes = ["--sources", 50, "--destinations", "1e1"]
    result = run(output, "--events", "2e3", *nodes, "--edge-features", 3, "--classes", 2, "--name", "mine")
    assert result.exit_code == 0, result.output
    assert result.output == f"{output}: 2,000 events, 60 nodes\n"
    store = EventStore.open(output)
    stream = store.stream
    assert (stream.name, stream.num_events, stream.num_src, stream.num_nodes) == ("mine", 2_000, 50, 60)
    assert (stream.split.train_end, stream.split.validation_end) == (1_400, 1_700)
    assert stream.edge_features.shape == (2_000, 3)
    assert (store.class_names, store.stream.time_unit) == (("0", "1"), "s")
    store.verify()


def test_like_wikipedia_is_the_reference_workload(tmp_path):
    assert run(tmp_path / "w.events.h5", "--like", "wikipedia", "--edge-features", 0).exit_code == 0
    stream = EventStore.open(tmp_path / "w.events.h5").stream
    assert (stream.num_events, stream.num_src, stream.num_nodes) == (157_474, 8_227, 9_227)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("nodes", [["--nodes", 40], ["--sources", 40, "--destinations", 30]])
def test_prepared_csv_is_the_generated_store(tmp_path, suffix, nodes, monkeypatch):
    monkeypatch.setattr(generating, "_CHUNK_EVENTS", 300)
    options = ["--events", 1000, *nodes, "--edge-features", 2, "--classes", 3]
    raw, store, other = (tmp_path / name for name in (f"r{suffix}", "a.events.h5", "b.events.h5"))
    assert run(raw, *options).exit_code == 0
    assert run(store, *options).exit_code == 0
    columns = ["--columns", "src=src,dst=dst,time=time,label=label,features=f0:f1"]
    bipartite = ["--bipartite"] if "--sources" in nodes else []
    assert run(raw, other, *columns, *bipartite, command=prepare).exit_code == 0
    assert EventStore.open(store).checksum == EventStore.open(other).checksum


def test_csv_without_extras_has_three_columns(tmp_path):
    run(tmp_path / "r.csv", "--events", 100, "--nodes", 5)
    table = pa_csv.read_csv(tmp_path / "r.csv")
    assert (table.column_names, len(table)) == (["src", "dst", "time"], 100)


def test_number_of_nodes_suits_the_events(tmp_path):
    run(tmp_path / "a.events.h5", "--events", 2000)
    run(tmp_path / "b.events.h5", "--events", 2000, "--kind", "long-range")
    nodes = [EventStore.open(tmp_path / f"{name}.events.h5").stream.num_nodes for name in "ab"]
    assert nodes == [100, 10]


def test_an_event_store_is_replaced_by_force_and_raw_events_never(tmp_path):
    store, raw = tmp_path / "a.events.h5", tmp_path / "a.csv"
    for output in (store, raw):
        assert run(output, "--events", 100).exit_code == 0
        assert "exists already" in str(run(output, "--events", 100).exception)
    assert run(store, "--events", 100, "--force").exit_code == 0
    assert "remove it first" in str(run(raw, "--events", 100, "--force").exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.events.h5"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--sources", 5], "--nodes"),
        (["--nodes", 5, "--sources", 5, "--destinations", 5], "--nodes"),
        (["--events", 10, "--nodes", 50], "50 nodes need as many events, found 10"),
        (["--like", "wikipedia", "--events", 1000], "need as many events, found 1,000"),
    ],
)
def test_mistakes_are_told(tmp_path, options, complaint):
    result = run(tmp_path / "g.events.h5", *options)
    assert isinstance(result.exception, ConfigError)
    assert complaint in str(result.exception)


def test_csv_takes_no_scaled_features(tmp_path):
    result = run(tmp_path / "g.csv", "--edge-features", 1, "--feature-dtype", "int8")
    assert "prepare" in str(result.exception)


@pytest.mark.parametrize("count", ["1.5", "-3", "many", "inf", "nan"])
def test_counts_are_whole_numbers(tmp_path, count):
    result = run(tmp_path / "g.events.h5", f"--events={count}")
    assert (result.exit_code, "1e6" in result.output) == (2, True)
