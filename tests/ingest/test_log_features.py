from math import expm1

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import joined_names
from disttgl_hpc.ingest.raw_events import Origin, log_scaled
from disttgl_hpc.ingest.source import row_place

ORIGIN = Origin("loans.csv", 0, row_place)
NAMES = "price", "kind", "fee"
ROWS = np.array([[1e6, 1, -0.5], [-20, 2, 0]], np.float32)


@given(st.floats(-(2.0**99), 2.0**99, width=32))
def test_the_scale_keeps_sign_order_and_small_numbers(x):
    (y,) = log_scaled(np.array([[x]], np.float32), ["all"], (), ORIGIN)[0]
    assert abs(y) < 70
    assert expm1(abs(float(y))) == pytest.approx(abs(x), rel=1e-4)
    assert np.sign(y) == np.sign(np.float32(x))


@pytest.mark.parametrize(
    ("wanted", "names", "chosen"),
    [
        ("price+fee", NAMES, [0, 2]),
        ("0+2", NAMES, [0, 2]),
        (" 2 ", (), [2]),
        ("all", NAMES, [0, 1, 2]),
        ("all", ("price:fee",), [0, 1, 2]),
    ],
)
def test_columns_are_chosen_by_name_or_number_and_the_others_stay(wanted, names, chosen):
    before = ROWS.copy()
    found = log_scaled(ROWS, joined_names(wanted), names, ORIGIN)
    expected = ROWS.copy()
    expected[:, chosen] = (np.sign(ROWS) * np.log1p(np.abs(ROWS)))[:, chosen]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(ROWS, before)


@pytest.mark.parametrize(
    ("features", "wanted", "names", "complaint"),
    [
        (None, "price", NAMES, "--log-features"),
        (ROWS, "prize", NAMES, "'prize'.* price, kind, fee"),
        (ROWS, "price", ("price:fee",), "'price'.* 0 to 2"),
        (ROWS, "3", (), "'3'"),
    ],
)
def test_missing_columns_are_refused(features, wanted, names, complaint):
    with pytest.raises(InputError, match=complaint):
        log_scaled(features, joined_names(wanted), names, ORIGIN)
