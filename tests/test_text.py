import pytest

from disttgl_hpc.log import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (119, "119.0 s"), (120, "2.0 min"), (7200, "2.0 h"), (30 * 86400, "30.0 d")],
)
def test_lengths_of_time(seconds, text):
    assert duration(seconds) == text
