import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.ingest.ids import TextCodes

# Texts around the length of 7 bytes up to which a text is its own key, some with a common prefix or NUL.
texts = st.text(alphabet="ab\0ü9", max_size=10) | st.integers(0, 99).map(lambda number: f"customer-{number}")
chunks = st.lists(st.lists(texts, min_size=1, max_size=40), min_size=1, max_size=6)


@given(chunks=chunks, skipped=st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_codes_count_texts_in_order_of_appearance(chunks, skipped):
    codes, expected = TextCodes(), {}
    for chunk in chunks:
        known = len(expected)
        wanted = [expected.setdefault(text, len(expected)) for text in chunk]
        found = codes.encode(pa.array(["x"] * skipped + chunk, pa.string()).slice(skipped))
        assert found.tolist() == wanted
        assert codes.texts(known).to_pylist() == list(expected)[known:]
    assert codes.texts().to_pylist() == list(expected)
    assert len(codes) == len(expected)


@pytest.mark.parametrize("prefix", ["", "a longer name "])
def test_many_texts_keep_their_codes_as_the_table_grows(prefix):
    numbers = np.random.default_rng(0).permutation(20_000)
    codes = TextCodes()
    parts = [codes.encode(pa.array([f"{prefix}{n}" for n in part])) for part in np.split(numbers, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(20_000))
    again = codes.encode(pa.array([f"{prefix}{n}" for n in np.sort(numbers)]))
    np.testing.assert_array_equal(numbers[again], np.arange(20_000))


def fnv_1a(text):
    key = 0xCBF29CE484222325
    for byte in text.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    return key


def test_texts_with_equal_hashes_have_different_codes():
    one, other = "8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"
    assert fnv_1a(one) == fnv_1a(other)
    codes = TextCodes()
    assert codes.encode(pa.array([one, other, one, other])).tolist() == [0, 1, 0, 1]
    assert codes.texts().to_pylist() == [one, other]
