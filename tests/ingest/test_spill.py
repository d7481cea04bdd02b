from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin, RawEvents
from disttgl_hpc.ingest.spill import FlatColumn, Spill

ORIGIN = Origin(Path("x.csv"), 0, lambda row: f"line {row + 1}")


def chunk(time, **optional):
    ids = pa.array(np.arange(len(time)))
    return RawEvents(ids, ids, np.array(time), **optional)


def test_column_reads_slices_and_positions(tmp_path):
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    column = FlatColumn(tmp_path / "c", rows.dtype, 3)
    column.append(rows[:4])
    column.append(rows[4:])
    assert len(column) == 10
    np.testing.assert_array_equal(column[2:7], rows[2:7])
    np.testing.assert_array_equal(column[np.array([7, 0, 7])], rows[[7, 0, 7]])


def test_first_fraction_turns_earlier_times_into_floats(tmp_path):
    spill = Spill(tmp_path, bipartite=False, feature_dtype=np.dtype(np.float32))
    for time in ([3, 4], [0.5], [2]):
        spill.append(chunk(time), ORIGIN)
    assert spill.time.dtype == np.float64
    assert spill.time[:].tolist() == [3.0, 4.0, 0.5, 2.0]


@pytest.mark.parametrize("times", [[[2**53 + 1], [0.5]], [[0.5], [2**53 + 1]]])
def test_times_are_never_rounded(tmp_path, times):
    spill = Spill(tmp_path, bipartite=False, feature_dtype=np.dtype(np.float32))
    spill.append(chunk(times[0]), ORIGIN)
    with pytest.raises(InputError, match=r"2\^53"):
        spill.append(chunk(times[1]), ORIGIN)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ({}, {"features": np.ones((1, 2), np.float32)}, "features .*none before and 2"),
        ({"features": np.ones((1, 2), np.float32)}, {}, "features .*2 before and none"),
        ({"node_label": np.ones(1, np.int64)}, {}, "node_label .*1 before and none"),
        ({"time_unit": "s"}, {"time_unit": "ms"}, "'s' before, 'ms'"),
    ],
)
def test_chunks_that_do_not_match_are_refused(tmp_path, first, second, complaint):
    spill = Spill(tmp_path, bipartite=False, feature_dtype=np.dtype(np.float32))
    spill.append(chunk([1], **first), ORIGIN)
    with pytest.raises(InputError, match=complaint):
        spill.append(chunk([1], **second), ORIGIN)
