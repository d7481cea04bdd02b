import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.grid.spans import Span
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.training.sweep_ends import LossCurve
from disttgl_hpc.training.timeline import trace_events, traced_steps


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("events")).stream


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(0, 60), st.integers(0, 30), st.integers(1, 31))
def test_traced_steps_are_steps_of_the_job_with_one_behind_them(stream, wanted, after, first, length):
    config = TrainConfig(**SMALL | {"trace_steps": wanted, "trace_after": after})
    plan = RunPlan.of(stream, config, GridShape(1, 1, 1), first + length)
    window = traced_steps(config, plan, first)
    assert len(window) == min(wanted, length - 1)
    if window:
        assert first <= window.start <= first + after
        assert window.stop < plan.num_steps
        assert window.start == first + after or window.stop == plan.num_steps - 1


def test_events_of_a_trace_are_on_the_first_nodes_clock():
    ranks = [
        (0, 0, "trainer", [(0, "steps", [Span("step", 10.0, 11.0, 3), Span("read", 10.2, 10.3)])]),
        (1, 1, "daemon of node 1", [(0, "replica 1", [Span("read", 510.25, 510.26, 3, 1, 0)])]),
    ]
    events = trace_events(ranks, [0.0, 500.0], steps_before=40)
    spans = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in spans] == [
        ("step", 0.0, 1e6),
        ("read", pytest.approx(2e5), pytest.approx(1e5)),
        ("read", pytest.approx(2.5e5), pytest.approx(1e4)),
    ]
    assert spans[0]["args"] == {"step": 43}
    assert spans[2]["args"] == {"counter": 3, "replica": 1, "slice": 0}
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == ["rank 0: trainer", "rank 1: daemon of node 1"]


@pytest.mark.parametrize("num_batches", [1, 39, 40, 41, 1000])
def test_the_course_of_a_sweep_has_few_points_that_cover_it(num_batches):
    course = LossCurve(num_batches)
    for sweep in range(2):
        steps = range(sweep * num_batches, (sweep + 1) * num_batches)
        for step in steps:
            course.add(step, float(step), ends_sweep=step == steps[-1])
        points = course.take()
        assert len(points["step"]) <= 40
        assert points["step"][-1] == steps.stop
        firsts = [steps.start, *points["step"][:-1]]
        means = [(first + last - 1) / 2 for first, last in zip(firsts, points["step"], strict=True)]
        assert points["loss"] == pytest.approx(means)
        assert points["elapsed_s"] == sorted(points["elapsed_s"])
