"""Tables of measurements and plans: what the tests of the commands do not see."""

from disttgl_hpc.report.measurement_tables import captured_table


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


def test_a_sample_of_ages_is_named():
    assert "sample" not in captured([1, 2, 3, 4])
    assert "sample, every 16th mail" in captured([1, 2, 3, 4], age_stride=16)
