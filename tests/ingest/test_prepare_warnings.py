"""Input that ``prepare`` accepts with a warning, and outputs that it refuses to replace."""

import logging

import numpy as np
import pytest

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.store.event_store import EventStore


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("disttgl_hpc"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def csv(folder, rows, name="events.csv"):
    path = folder / name
    path.write_text("src,dst,time\n" + "".join(f"{row}\n" for row in rows))
    return path


def prepared(folder, rows, **settings):
    out = folder / "out.events.h5"
    return prepare(PrepareSettings(inputs=(csv(folder, rows),), output=out, **settings))


def test_two_kinds_of_nodes_in_one_id_space_are_warned_of(tmp_path, warnings):
    prepared(tmp_path, [f"{e % 3},{10 + e % 4},{e}" for e in range(20)])
    assert "--bipartite" in warnings.text


@pytest.mark.parametrize("bipartite", [False, True])
def test_one_kind_of_nodes_and_bipartite_streams_are_not_warned_of(tmp_path, warnings, bipartite):
    prepared(tmp_path, [f"{e % 3},{e % 4},{e}" for e in range(20)], bipartite=bipartite)
    assert "--bipartite" not in warnings.text


def test_an_empty_part_is_warned_of(tmp_path, warnings):
    prepared(tmp_path, [f"{e % 3},{e % 4},{e}" for e in range(20)], split_times=(50, 60))
    assert "validation without events" in warnings.text
    assert "test without events" in warnings.text


@pytest.mark.parametrize(
    ("log_features", "is_warned"), [((), True), (("price",), False), (("0",), False), (("all",), False)]
)
def test_large_features_are_warned_of(tmp_path, warnings, log_features, is_warned):
    raw = tmp_path / "events.csv"
    raw.write_text(
        "src,dst,time,price,kind\n" + "".join(f"{e % 3},{e % 4},{e},{-250 * e},1\n" for e in range(20))
    )
    columns = parse_columns("src=src,dst=dst,time=time,features=price+kind")
    out = tmp_path / "out.events.h5"
    prepare(PrepareSettings(inputs=(raw,), output=out, columns=columns, log_features=log_features))
    assert ("column price reaches 4.75e+03" in warnings.text) == is_warned
    assert ("--log-features price," in warnings.text) == is_warned


@pytest.mark.parametrize(
    ("largest", "is_warned"), [(101, True), (-1e38, True), (100, False), (np.nan, False)]
)
def test_large_node_features_are_warned_of(tmp_path, warnings, largest, is_warned):
    rows = np.zeros((200_000, 3), np.float32)  # of which the node is one
    rows[7, 1] = largest
    np.save(tmp_path / "nodes.npy", rows)
    prepared(tmp_path, [f"{e % 3},{e % 4},{e}" for e in range(20)], node_features=tmp_path / "nodes.npy")
    assert ("nodes.npy: node features" in warnings.text) == is_warned


@pytest.mark.parametrize("force", [False, True])
def test_raw_data_is_never_replaced(tmp_path, force):
    raw, other = csv(tmp_path, ["0,1,2"]), csv(tmp_path, ["0,1,2"], "other.csv")
    for inputs, message in (((raw,), "is an input"), ((other,), "event store")):
        with pytest.raises(ConfigError, match=message):
            PrepareSettings(inputs=inputs, output=raw, force=force)
    assert raw.read_text().startswith("src,dst,time")


def test_an_event_store_is_replaced_by_force_only(tmp_path):
    rows = [f"{e % 3},{e % 4},{e}" for e in range(20)]
    prepared(tmp_path, rows)
    with pytest.raises(ConfigError, match="--force"):
        prepared(tmp_path, rows[:10])
    prepared(tmp_path, rows[:10], force=True)
    assert EventStore.open(tmp_path / "out.events.h5").stream.num_events == 10
