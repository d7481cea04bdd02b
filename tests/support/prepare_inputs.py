"""Preparing small files that a test writes, and the folder of real streams."""

import os
from pathlib import Path

import numpy as np
import pytest

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare

REAL = Path(os.environ.get("DISTTGL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
HEADER = "src,dst,time\n"
JODIE = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"


def run(tmp_path, *inputs, **options):
    output = tmp_path / "out.events.h5"
    return prepare(PrepareSettings(inputs=tuple(inputs), output=output, force=True, **options))


def run_text(tmp_path, text, name="in.csv", **options):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return run(tmp_path, path, **options)


def refusal(tmp_path, text, name="in.csv", **options):
    """The message of a refused input, which must leave no other files behind."""
    with pytest.raises(InputError) as refused:
        run_text(tmp_path, text, name, **options)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    return str(refused.value)


def assert_same_index(stream):
    expected = build_tcsr(stream.src, stream.dst, stream.time, stream.num_nodes)
    for field in ("indptr", "neighbors", "event_ids", "times"):
        found, wanted = getattr(stream.tcsr, field), getattr(expected, field)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
