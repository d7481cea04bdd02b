"""Kept memory: round trip, and damaged files and invalid origins are rejected."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from disttgl_hpc.cli.inspect import inspect
from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.node_rows import KeptMemory, MemoryOrigin, write_memory

ORIGIN = MemoryOrigin(
    weights="a" * 64,
    events="b" * 64,
    events_path="x.events.h5",
    position=240,
    run_events=300,
    train_end=200,
    validation_end=250,
)
ROWS = np.random.default_rng(0).standard_normal((17, 16)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    write_memory(tmp_path / "memory.h5", ROWS, ORIGIN)
    return tmp_path / "memory.h5"


def test_round_trip(path):
    kept = KeptMemory.open(path)
    kept.verify()
    assert np.array_equal(kept.rows, ROWS)
    assert kept.origin == ORIGIN


def test_a_changed_value_is_found(path):
    with h5py.File(path, "r+") as file:
        file["memory"][3, 4] += 1
    with pytest.raises(StoreError, match=r"memory\.h5: .*checksum"):
        KeptMemory.open(path).verify()


@pytest.mark.parametrize(
    "change", [{"position": -1}, {"train_end": 301}, {"validation_end": 199}, {"events": 3}]
)
def test_an_invalid_origin_is_rejected(path, change):
    with h5py.File(path, "r+") as file:
        file.attrs["origin"] = json.dumps(dataclasses.asdict(ORIGIN) | change)
    with pytest.raises(StoreError, match="is damaged"):
        KeptMemory.open(path)


def test_inspect_shows_its_origin(path):
    result = CliRunner().invoke(inspect, [str(path), "--json", "--verify"], catch_exceptions=False)
    facts = json.loads(result.output)
    assert (facts["nodes"], facts["width"], facts["events seen"]) == (17, 8, 240)
    assert facts["checksum"].endswith(" (verified)")
