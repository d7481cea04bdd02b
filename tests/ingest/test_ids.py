from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.ids import IdTable, number_nodes
from disttgl_hpc.ingest.raw_events import Origin

ORIGIN = Origin(Path("x.csv"), 10, lambda row: f"line {row + 1}")


@given(chunks=st.lists(st.lists(st.integers(0, 30), min_size=1), min_size=1, max_size=5), text=st.booleans())
@settings(max_examples=50, deadline=None)
def test_codes_map_to_sorted_ids(chunks, text):
    table = IdTable()
    kind = pa.string() if text else pa.int64()
    codes = [table.encode(pa.array(chunk).cast(kind), ORIGIN) for chunk in chunks]
    ranks, ids = table.ranks_and_ids()
    np.testing.assert_array_equal(ids, np.unique(np.concatenate(chunks)))
    np.testing.assert_array_equal(ids[ranks[np.concatenate(codes)]], np.concatenate(chunks))


def test_numbers_and_text_are_one_id_space():
    table = IdTable()
    numbers = table.encode(pa.array([7, 5]), ORIGIN)
    texts = table.encode(pa.array(["5", "a"]), ORIGIN)
    again = table.encode(pa.array([7]), ORIGIN)
    ranks, ids = table.ranks_and_ids()
    assert ids.tolist() == ["5", "7", "a"]
    assert ids[ranks[np.concatenate([numbers, texts, again])]].tolist() == ["7", "5", "5", "a", "7"]


@pytest.mark.parametrize("values", [[3, -2], ["3", "-2"]])
def test_negative_ids_are_refused_with_their_line(values):
    with pytest.raises(InputError, match=r"x\.csv, line 12: .*-2"):
        IdTable().encode(pa.array(values), ORIGIN)


def test_classes_may_be_negative_and_sort_as_numbers():
    classes = IdTable(of_classes=True)
    classes.encode(pa.array(["10", "-1", "9"]), ORIGIN)
    assert classes.ranks_and_ids()[1].tolist() == [-1, 9, 10]


def test_two_id_spaces_follow_each_other():
    src, dst = IdTable(), IdTable()
    src.encode(pa.array([4, 2]), ORIGIN)
    dst.encode(pa.array(["b", "2"]), ORIGIN)
    nodes = number_nodes(src, dst)
    assert nodes.ids.tolist() == ["2", "4", "2", "b"]
    assert nodes.src.tolist() == [1, 0]
    assert nodes.dst.tolist() == [3, 2]
    assert nodes.num_src == 2
