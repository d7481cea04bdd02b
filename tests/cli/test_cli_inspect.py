import json

import pytest
from click.testing import CliRunner
from small_store import write_small_store

from disttgl_hpc.cli.inspect import inspect
from disttgl_hpc.cli.prepare import prepare
from disttgl_hpc.errors import StoreError

ROWS = [
    (1, 2, 1_356_998_400, "a"),
    (2, 1, 1_356_998_400, "b"),
    (1, 2, 1_356_998_460, "a"),
    (3, 3, 1_357_084_800, "a"),
]


@pytest.fixture
def store(tmp_path):
    (tmp_path / "in.csv").write_text(
        "src,dst,time,kind\n" + "".join(f"{u},{v},{t},{kind}\n" for u, v, t, kind in ROWS)
    )
    output = tmp_path / "x.events.h5"
    options = ["--columns", "src=src,dst=dst,time=time,label=kind", "--split", "0.5/0.25/0.25"]
    result = CliRunner().invoke(prepare, [str(tmp_path / "in.csv"), str(output), *options])
    assert result.exit_code == 0, result.output
    return output


def facts(store, *options):
    return json.loads(CliRunner().invoke(inspect, [str(store), "--json", *options]).output)


def test_facts(store):
    found = facts(store)
    assert (found["events"], found["nodes"], found["sources"]) == (4, 3, 0)
    assert found["time"] == {
        "events": 4,
        "first": 1_356_998_400,
        "last": 1_357_084_800,
        "UTC": "2013-01-01 00:00:00 to 2013-01-02 00:00:00",
        "dtype": "int64",
    }
    assert [found[part]["events"] for part in ("training", "validation", "test")] == [2, 1, 1]
    assert found["events per node"]["max"] == 3
    assert found["time between events of a node"] == {
        "min": 0, "25 %": 0, "median": 0, "75 %": 60, "99 %": 60, "max": 60,
    }  # fmt: skip
    assert (found["repeat-edge share"], found["self-loops"]) == (0.25, 1)
    assert (found["events sharing their time"], found["different times"]) == (2, 3)
    assert found["edge classes"] == {"a": 3, "b": 1}
    assert (found["edge features"], found["node labels"]) == ("none", {})
    assert list(found["source"]) == ["in.csv"]


def test_every_fact_has_a_line(store):
    lines = CliRunner().invoke(inspect, [str(store)]).output.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(facts(store))
    assert "edge classes                   a 3, b 1" in lines


def test_verify_reads_everything(store):
    assert facts(store, "--verify")["checksum"].endswith("(verified)")
    data = bytearray(store.read_bytes())
    position = data.find((1_357_084_800).to_bytes(8, "little"))
    data[position] ^= 1
    store.write_bytes(data)
    assert CliRunner().invoke(inspect, [str(store)]).exit_code == 0
    result = CliRunner().invoke(inspect, [str(store), "--verify"])
    assert isinstance(result.exception, StoreError)


def test_times_that_are_no_dates_stay_numbers(tmp_path):
    (tmp_path / "in.txt").write_text("1 2 3\n1 2 4\n")
    CliRunner().invoke(prepare, [str(tmp_path / "in.txt"), str(tmp_path / "x.h5")])
    assert facts(tmp_path / "x.h5")["time"] == {"events": 2, "first": 3, "last": 4, "dtype": "int64"}


def test_names_have_no_control_characters(tmp_path):
    path = write_small_store(tmp_path / "x.events.h5", name="\x1b[2Jblank")
    output = CliRunner().invoke(inspect, [str(path)]).output
    assert "\\x1b[2Jblank" in output
    assert "\x1b" not in output
    assert facts(path)["name"] == "\x1b[2Jblank"
