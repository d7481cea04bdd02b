import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from disttgl_hpc.events.stream import int8_scale, to_int8

values = arrays.arrays(
    np.float32, (5, 3), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)
)


@given(features=values)
@settings(max_examples=50, deadline=None)
def test_int8_is_within_half_a_step(features):
    scale = int8_scale(np.abs(features).max(axis=0))
    stored = to_int8(features, scale)
    assert stored.dtype == np.int8
    error = np.abs(stored * scale.astype(np.float64) - features)
    assert (error <= scale.astype(np.float64) * 0.50001).all()
    largest = np.abs(features).argmax(axis=0)
    stored_largest = np.abs(stored[largest, np.arange(3)].astype(int))
    assert ((stored_largest == 127) | (scale <= np.finfo(np.float32).tiny)).all()
