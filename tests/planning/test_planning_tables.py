"""Tables of planning: what is not seen through the commands."""

import pytest

from disttgl_hpc.planning.planning_tables import captured_table, duration


def captured(ages, **more):
    times = dict(zip(("25 %", "median", "75 %", "99 %"), ages, strict=True))
    one = {"batch": 600, "share": 0.5, "cold": 0.1, "age_events": {}, "age_time": times, "age_stride": 1}
    return captured_table({"stream": "x", "events": 1000, "captured": [one | more]})


def test_ages_of_fractions_of_a_unit_are_seen():
    assert captured([0.00125, 0.5, 9.87654, 12345.6]).splitlines()[2].split()[-4:] == [
        "0.00125",
        "0.5",
        "9.877",
        "12,346",
    ]


def test_a_sample_of_ages_is_told():
    assert "sample" not in captured([1, 2, 3, 4])
    assert "Ages are from a sample, every 16th mail's" in captured([1, 2, 3, 4], age_stride=16)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (119, "119.0 s"), (120, "2.0 min"), (7200, "2.0 h"), (30 * 86400, "30.0 d")],
)
def test_lengths_of_time(seconds, text):
    assert duration(seconds) == text
