import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import facts, trace
from scaling_records import scaling_record

from disttgl_hpc.planning.costs import Machine
from disttgl_hpc.planning.scaling import doublings, forecast
from disttgl_hpc.report.charts import REST, Line, LineChart
from disttgl_hpc.report.drawing import draw, log_ticks, save_charts, tick_texts, ticks
from disttgl_hpc.report.figures import (
    MOST_RANKS,
    captured_charts,
    curves,
    memory_chart,
    prediction_charts,
    shown_ranks,
    timeline,
    work_chart,
)
from disttgl_hpc.report.page import all_charts
from disttgl_hpc.report.run_facts import group_runs

SVG = "{http://www.w3.org/2000/svg}"
values = st.floats(-1e9, 1e9, allow_subnormal=False)


@settings(max_examples=50, deadline=None)
@given(values, st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_are_round_ascending_and_within(low, width, count):
    high = low + width
    found = ticks(low, high, count)
    slack = 1e-6 * (high - low) + 1e-9 * abs(low)
    assert low - slack <= found[0]
    assert found[-1] <= high + slack
    assert found == sorted(set(found))
    assert 1 <= len(found) <= 2 * count + 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_tick_texts_tell_ticks_apart_and_mean_them(low, width):
    found = ticks(low, low + width)
    texts = tick_texts(found)
    assert len(set(texts)) == len(texts)
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    for text, value in zip(texts, found, strict=True):
        number = float(text.rstrip("kMG")) * units.get(text[-1], 1)
        assert number == pytest.approx(value, rel=1e-5, abs=1e-6)


def parsed(text):
    return ET.fromstring(text)  # noqa: S314 - our own


def parts(chart, tag, *, standalone=False):
    return list(parsed(draw(chart, standalone=standalone)).iter(SVG + tag))


def test_a_line_is_drawn_within_its_axes_and_says_its_values():
    chart = LineChart("MRR <&>", "steps", [Line("a <b>", [0, 5, 10], [0.1, 0.4, 0.2], 1)])
    points = parts(chart, "circle")
    assert len(points) == 3
    assert "a <b>: 0.4 at 5 steps" in [tip.text for tip in parts(chart, "title")]
    assert [point.get("class") for point in points] == ["f1"] * 3
    heights = [float(point.get("cy")) for point in points]
    assert heights[1] < heights[2] < heights[0]
    _, _, width, height = map(float, parsed(draw(chart)).get("viewBox").split())
    for point in points:
        assert 0 < float(point.get("cx")) < width
        assert 0 < float(point.get("cy")) < height


@pytest.mark.parametrize("y", [[0.5], [0.5, 0.5], [0.0, 0.0]])
def test_a_flat_line_and_a_single_point_are_drawn(y):
    chart = LineChart("loss", "steps", [Line("a", list(range(len(y))), y)])
    assert len(parts(chart, "circle")) == len(y)


def test_a_standalone_chart_brings_its_colours_and_legend_and_loads_nothing():
    chart = LineChart("MRR", "steps", [Line("one", [1], [0.1]), Line("two", [1], [0.2], 1)])
    text = draw(chart, standalone=True)
    assert {"one", "two"} <= {part.text for part in parts(chart, "text", standalone=True)}
    assert "<style>" in text
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_logarithmic_axes_have_round_ticks_and_equal_ratios_are_equally_far_apart():
    chart = LineChart("events/s", "trainers", [Line("a", [1, 10, 100], [3, 30, 300])], log_x=True, log_y=True)
    xs, ys = ([float(point.get(name)) for point in parts(chart, "circle")] for name in ("cx", "cy"))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.11)
    assert {"1", "10", "100"} <= {part.text for part in parts(chart, "text")}
    assert log_ticks(1, 4096) == [1, 10, 100, 1000]
    assert log_ticks(3, 30) == [5, 10, 20]
    assert log_ticks(3, 4) == [3]


def test_points_that_are_not_joined_have_no_line():
    chart = LineChart("events/s", "trainers", [Line("a", [1, 2], [1, 2], is_joined=False)])
    assert not [line for line in parts(chart, "path") if "curve" in line.get("class")]


def predictions():
    told = forecast(scaling_record([[0.05, 0.07]] * 2), Machine(cores=9), doublings(8, 32), epochs=10)
    return prediction_charts(told)


def captured(ages):
    return {"batch": 600, "share": 0.5, "cold": 0.1, "age_events": ages}


@pytest.mark.parametrize("ages", [{}, {"25 %": 1, "median": 3, "75 %": 9}])
def test_charts_of_planning_are_drawn_by_both_renderers(tmp_path, ages):
    pytest.importorskip("matplotlib")
    for charts in (captured_charts({"stream": "x", "captured": [captured(ages)]}), predictions()):
        save_charts(charts, tmp_path / "x.png")
        assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
        assert all(parsed(draw(chart, standalone=True)).get("aria-label") for chart in charts)


def test_parts_of_a_predicted_step_add_up_to_it_and_its_bottleneck_is_named():
    speed, steps, _ = predictions()
    assert [line.name for line in speed.lines] == ["ideal", "predicted", "measured"]
    assert [bar.label.split(" · ")[0] for bar in steps.bars] == ["1", "2", "4", "8", "16", "32"]
    for bar in steps.bars:
        assert sum(amount for _, amount in bar.parts) == pytest.approx(1)
        assert bar.label.split(" · ")[1] in steps.part_names


def test_bars_add_up_to_what_each_rank_spent():
    chart = work_chart(facts())
    assert [bar.label for bar in chart.bars] == ["rank 0 · trainer", "rank 1 · trainer", "rank 2 · daemon"]
    first, _, daemon = (dict(bar.parts) for bar in chart.bars)
    assert sum(first.values()) == pytest.approx(3.0 + 3.0), (
        "training and evaluation; the loading thread is beside"
    )
    assert first[REST] == pytest.approx(3.0 - 9 * 0.1)
    assert sum(daemon.values()) == pytest.approx(5 * 0.5)


def test_memory_has_what_is_resident_and_what_the_peak_had_more():
    assert [dict(bar.parts) for bar in memory_chart(facts()).bars] == [
        {2: 300, 4: 100},
        {2: 300, 4: 100},
        {2: 90, 4: 5},
    ]


def test_of_many_ranks_some_are_shown_from_the_first_to_the_last():
    assert shown_ranks(3) == [0, 1, 2]
    found = shown_ranks(1000)
    assert (found[0], found[-1], len(set(found))) == (0, 999, MOST_RANKS)
    assert shown_ranks(1) == [0]
    assert shown_ranks(0) == []


def test_a_timeline_has_a_track_for_each_thread_and_two_for_a_replica():
    chart = timeline(facts(trace=trace()))
    assert [track.label for track in chart.tracks] == [
        "rank 0",
        "loading thread",
        "daemon, replica 0: writes",
        "reads",
    ]
    assert chart.steps == [(20, 0.0), (21, 10.0)]
    assert [block.mark for block in chart.tracks[3].blocks] == ["R(21)"]
    assert "R(21)" in [part.text for part in parts(chart, "text")]
    assert timeline(facts()) is None


def test_a_trace_of_very_many_ranks_is_shown_in_part():
    found = trace()
    one = found["traceEvents"]
    for pid in range(2, 1002):
        found["traceEvents"] = found["traceEvents"] + [event | {"pid": pid} for event in one[:3] + one[5:11]]
    chart = timeline(facts(trace=found))
    assert 1000 < sum(len(track.blocks) for track in chart.tracks) <= 6000


def test_curves_are_of_all_metrics_that_any_run_has():
    run = facts()
    run.sweeps[0]["validation"]["classes"] = {"f1_micro": 0.4, "roc_auc": None, "num_events": 3}
    found = curves(group_runs([run]))
    assert list(found) == ["steps", "events", "time"]
    titles = [chart.title for chart in found["time"]]
    assert titles == [
        "Training loss, mean over events",
        "Validation MRR",
        "Validation Hits@10",
        "Validation AP",
        "Validation ROC-AUC",
        "Validation F1-micro, classes",
        "Events trained per second",
    ]
    assert curves(group_runs([facts(sweeps=0, test=False)])) == {}


@pytest.mark.parametrize("file_type", ["png", "pdf"])
def test_every_chart_is_a_file_of_its_own_as_well(tmp_path, file_type):
    pytest.importorskip("matplotlib")
    charts = dict(all_charts([facts(trace=trace())]))
    assert len(charts) == 3 * 6 + 3
    for name in ("validation-mrr-by-time", "time-by-rank", "timeline"):
        save_charts([charts[name]], tmp_path / f"{name}.{file_type}")
        start = (tmp_path / f"{name}.{file_type}").read_bytes()[:4]
        assert start == (b"\x89PNG" if file_type == "png" else b"%PDF")
