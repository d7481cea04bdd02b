from dataclasses import replace

import numpy as np
import pytest
from random_streams import make_stream

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import Split, model_unit


def unit_of(times, known="", train_end=None):
    times = np.asarray(times, np.float64)
    train_end = len(times) if train_end is None else train_end
    nodes = np.zeros(len(times), np.int64)
    stream = make_stream(nodes, nodes, times, 1, split=Split(train_end, len(times)))
    return model_unit(replace(stream, time_unit=known))


@pytest.mark.parametrize("span", [1e4, 16_736_181, 1e9])
@pytest.mark.parametrize(("known", "second"), [("", 1), ("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_spans_of_hours_to_decades_stay_in_seconds(span, known, second):
    assert unit_of([0, span * second], known) == second


@pytest.mark.parametrize(
    ("span", "unit"), [(1.0, 1e-7), (0.03, 1e-9), (194, 1e-5), (9_999, 1e-4), (1.67e16, 1e9), (1.01e9, 100)]
)
def test_other_spans_become_ten_million_units(span, unit):
    assert unit_of([0, span]) == pytest.approx(unit)
    assert 1e7 <= span / unit < 1e8


def test_the_span_of_a_known_unit_is_measured_in_seconds():
    assert unit_of([0, 10**9], "ns") == pytest.approx(1e9 * 1e-7)  # one second


def test_held_out_events_do_not_count():
    assert unit_of([0, 10**5, 10**30], train_end=2) == 1


@pytest.mark.parametrize("times", [[], [7], [7, 7]])
def test_without_a_span_the_unit_stays(times):
    assert unit_of(times, "ms") == 1e3


@pytest.mark.parametrize("wanted", [0.0, 5.0])
@pytest.mark.parametrize(
    "times",
    [[0.0, 1.0, 1e39], [-1.7e308, 1.7e308], [0.0, 1e-320], [1e-300, 2e-300, 1.0], [-(2**63), 2**63 - 1]],
    ids=["late", "both ends", "subnormal", "close in training", "int64"],
)
def test_times_whose_differences_float32_cannot_hold_are_refused(times, wanted):
    nodes = np.zeros(len(times), np.int64)
    stream = make_stream(nodes, nodes, np.array(times), 1, split=Split(2, len(times)))
    with pytest.raises(ConfigError, match=r"times must .*(multiply|divide)"):
        model_unit(stream, wanted)
