import pytest
from report_runs import facts, sweep

from disttgl_hpc.report.run_facts import differences, group_runs


def test_a_curve_of_the_loss_goes_through_the_points_within_sweeps_on_every_axis():
    run = facts()
    assert run.curve("loss", "steps") == ([5, 10, 15, 20], [0.5, 0.25, 0.5, 0.25])
    assert run.curve("loss", "events")[0] == pytest.approx([500, 1000, 1500, 2000])
    assert run.curve("loss", "time")[0] == pytest.approx([1.0, 2.5, 4.0, 5.5])


def test_a_curve_of_a_metric_has_a_point_for_each_sweep():
    run = facts(sweeps=3)
    steps, values = run.curve(("", "mrr"), "steps")
    assert (steps, values) == ([10, 20, 30], pytest.approx([0.51, 0.52, 0.53]))
    assert run.curve(("", "mrr"), "events")[0] == [1000, 2000, 3000]
    assert run.curve(("", "mrr"), "time")[0] == [3, 6, 9]
    assert run.curve("events_per_s", "steps")[1] == pytest.approx([333.3] * 3)


def test_records_of_older_versions_have_a_point_a_sweep_and_events_from_their_speed():
    old = sweep(1)
    del old["events"]
    old["timing"] = {"train_s": 2.0, "events_per_s": 100.0}
    run = facts()
    object.__setattr__(run, "sweeps", [old])
    assert run.curve("loss", "events") == ([200.0], [0.5])
    assert run.curve("loss", "time") == ([2.0], [0.5])
    assert run.peak_mib is None


def test_records_without_any_timing_still_have_curves_over_steps():
    bare = {"sweep": 1, "step": 7, "loss": 0.5, "validation": {"mrr": float("nan"), "roc_auc": None}}
    run = facts()
    object.__setattr__(run, "sweeps", [bare])
    assert run.curve("loss", "steps") == ([7], [0.5])
    assert run.curve(("", "mrr"), "steps") == ([], [])
    assert run.events_per_s is None


def test_status_tells_how_far_a_run_has_come():
    assert facts().status == "finished, 2 sweeps"
    killed = facts(sweeps=1, test=False)
    assert killed.status == "not finished: 1 sweep"
    object.__setattr__(killed, "last_step", 1234)
    assert killed.status == "not finished: 1 sweep, last checkpoint after step 1,234"


def test_runs_that_differ_in_seed_and_in_what_has_no_effect_stand_together():
    runs = [facts("lin-0"), facts("other", lr=0.1), facts("lin-1", seed=1, prefetch=0)]
    groups = group_runs(runs)
    assert [[run.name for run in group.runs] for group in groups] == [["lin-0", "lin-1"], ["other"]]
    assert [group.name for group in groups] == ["lin (2 seeds)", "other"]


def test_a_group_is_drawn_as_its_mean_in_a_band_as_far_as_all_runs_go():
    low, high = facts("a-0"), facts("a-1", seed=1, sweeps=3)
    for number, record in enumerate(high.sweeps):
        record["validation"]["mrr"] = 0.7 + number / 10
    (group,) = group_runs([low, high])
    (line,) = group.lines(("", "mrr"), "steps")
    assert line.x == [10, 20]
    assert line.y == pytest.approx([(0.51 + 0.7) / 2, (0.52 + 0.8) / 2])
    assert (line.low, line.high) == (pytest.approx([0.51, 0.52]), pytest.approx([0.7, 0.8]))


def test_runs_recorded_at_other_steps_are_not_averaged():
    whole, resumed = facts("a-0"), facts("a-1", seed=1)
    course = resumed.sweeps[0]["timing"]["course"]
    for values in course.values():
        del values[0]
    (group,) = group_runs([whole, resumed])
    assert [line.name for line in group.lines("loss", "time")] == ["a-0", "a-1"]
    assert [len(line.x) for line in group.lines("loss", "steps")] == [4, 3]
    assert len(group.lines(("", "mrr"), "steps")) == 1


def test_differences_come_first_by_what_decides_results():
    found = differences([facts(prefetch=2), facts(prefetch=0, lr=0.1), facts()])
    assert list(found) == ["lr", "prefetch"]
    assert found["prefetch"] == [2, 0, None]
    assert differences([facts(), facts()]) == {}
