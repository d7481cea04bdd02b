"""The model of scaling: limits that can be worked out by hand, and queues against event-by-event oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaling_records import scaling_record

from disttgl_hpc.errors import ConfigError, GridError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.planning.costs import Costs, Machine
from disttgl_hpc.planning.scaling import LOSSES, Simulation, doublings, forecast, grids_on_nodes, predict

STEADY = Costs.of(scaling_record([[0.06] * 10] * 2, daemon_us=0.0))
FREE = {"cores": 10_000, "meeting_s": 0.0, "poll_s": 0.0, "local_bandwidth": 1e18, "crowding": 0.0}
IDEAL = Machine(**FREE, bandwidth=1e18, latency_s=0.0)


def random_costs(**options):
    random = np.random.default_rng(1)
    return Costs.of(scaling_record(random.uniform(0.03, 0.09, (3, 50)).tolist(), **options))


@pytest.mark.parametrize("shape", [GridShape(1, 1, 1), GridShape(2, 3, 4), GridShape(1, 1, 64)])
def test_equal_steps_on_an_ideal_machine_scale_without_loss(shape):
    found = predict(STEADY, IDEAL, shape, 4 if shape.memory % 4 == 0 else 1)
    assert found.events_per_s == pytest.approx(shape.num_trainers * 10_000)
    assert (found.idle_share, found.bottleneck) == (pytest.approx(0, abs=1e-6), "computing")


def test_one_trainer_is_predicted_as_it_was_measured():
    costs = random_costs()
    found = predict(costs, Machine(cores=2), GridShape(1, 1, 1), steps=5000)
    assert found.events_per_s == pytest.approx(costs.events_per_s, rel=0.01)


def test_the_daemons_reply_is_waited_for_with_every_read():
    record = scaling_record([[0.06] * 10] * 2, daemon_us=0.0)
    record["grids"][0]["memory_wait_s"] = [0.02]
    costs = Costs.of(record)
    found = predict(costs, IDEAL, GridShape(1, 1, 1))
    assert found.memory_s == pytest.approx(0.002)
    assert found.events_per_s == pytest.approx(600 / 0.062) == pytest.approx(costs.events_per_s)
    # With two lanes a read serves two passes, but in each step one of the lanes reads, and the other waits for it.
    assert predict(costs, IDEAL, GridShape(1, 2, 1)).memory_s == pytest.approx(0.002)


def test_faster_trainers_meet_the_same_daemon():
    costs = Costs.of(scaling_record([[0.05, 0.07], [0.06, 0.08]], daemon_us=5.0)).faster(20)
    assert costs.events_per_s == pytest.approx(20 * 600 / 0.065)
    found = predict(costs, IDEAL, GridShape(1, 1, 8), steps=1000)
    assert found.step_s == pytest.approx(8 * 0.003, rel=0.02)
    assert found.bottleneck == "memory daemon"


def test_a_step_lasts_as_long_as_its_slowest_trainer():
    costs = Costs.of(scaling_record([[0.05, 0.07]], daemon_us=0.0))  # chance alone: 0.06 ± 0.01
    found = predict(costs, IDEAL, GridShape(1, 1, 2), steps=4000)
    # Three of four draws have a slow trainer among the two; the optimiser's tenth is made up for half the time.
    assert 0.9 * 0.005 < found.unequal_s < 0.005
    many = predict(costs, IDEAL, GridShape(1, 1, 256))
    assert many.unequal_s == pytest.approx(0.01, rel=0.02), "the worst that was ever measured, every step"
    assert many.bottleneck == "unequal steps"


def test_replicas_wait_for_dear_batches_that_slices_share():
    costs = Costs.of(scaling_record([[0.05] * 5 + [0.07] * 5] * 2, daemon_us=0.0))  # no chance, dear batches
    assert predict(costs, IDEAL, GridShape(2, 1, 1)).unequal_s == pytest.approx(0)
    assert predict(costs, IDEAL, GridShape(1, 1, 2)).unequal_s == pytest.approx(0.01, rel=0.05), (
        "half a sweep apart"
    )


def test_trainers_share_cores():
    two = {**FREE, "cores": 2, "bandwidth": 1e18, "latency_s": 0.0}
    shared = predict(STEADY, Machine(**two), GridShape(1, 1, 4))
    assert shared.events_per_s == pytest.approx(20_000)
    assert (shared.bottleneck, shared.idle_share) == ("cores", pytest.approx(0, abs=1e-6))
    crowded = predict(STEADY, Machine(**two | {"crowding": 0.2}), GridShape(1, 1, 4))
    assert crowded.events_per_s == pytest.approx(20_000 / 1.2)


def test_a_daemon_can_be_the_limit():
    costs = Costs.of(scaling_record([[0.06] * 10] * 2, daemon_us=5.0))  # 3 ms of a 60 ms step
    found = predict(costs, IDEAL, GridShape(1, 1, 64), 1, steps=500)
    assert found.step_s == pytest.approx(64 * 0.003, rel=0.02)
    assert found.bottleneck == "memory daemon"
    assert predict(costs, IDEAL, GridShape(1, 1, 64), 8).memory_s == pytest.approx(0), "eight daemons keep up"


def test_storage_can_be_the_limit():
    costs = Costs.of(scaling_record([[0.06] * 10] * 2, daemon_us=0.0, edge_bytes=1000))
    machine = Machine(**FREE, bandwidth=1e18, latency_s=0.0, storage_bandwidth=1e9)
    found = predict(costs, machine, GridShape(1, 1, 64), steps=500)
    assert found.step_s == pytest.approx(64 * costs.stored_bytes / 1e9, rel=0.02)
    assert found.bottleneck == "storage"
    assert predict(costs, machine, GridShape(1, 1, 2)).storage_s == pytest.approx(0, abs=1e-3)


def test_gradients_can_be_the_limit():
    machine = Machine(**FREE, bandwidth=1e7, latency_s=0.0)
    found = predict(STEADY, machine, GridShape(1, 1, 4), 4)
    assert found.gradients_s == pytest.approx(2 * 3 / 4 * 0.08)
    assert found.bottleneck == "gradient sum"


@settings(max_examples=30, deadline=None)
@given(
    shape=st.builds(GridShape, st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 4])),
    cores=st.integers(1, 6),
    storage=st.sampled_from([0.0, 1e9]),
    daemon_us=st.sampled_from([0.0, 2.0, 60.0]),
)
def test_parts_of_a_step_are_the_step(shape, cores, storage, daemon_us):
    machine = Machine(cores=cores, storage_bandwidth=storage)
    costs = random_costs(daemon_us=daemon_us, edge_bytes=100)
    walk = Simulation(costs, machine, shape, 1, np.random.default_rng(0))
    spent = np.array([walk.step(number) for number in range(40)])
    assert (spent >= -1e-12).all()
    assert spent.sum() == pytest.approx(walk.clock.mean())
    found = predict(costs, machine, shape)
    assert found.step_s == pytest.approx(found.compute_s + sum(getattr(found, field) for field in LOSSES))


@settings(max_examples=40, deadline=None)
@given(work=st.lists(st.floats(0.01, 1), min_size=1, max_size=6), cores=st.integers(1, 4))
def test_shared_cores_against_an_oracle(work, cores):
    costs = Costs.of(scaling_record([[0.06] * 4], daemon_us=0.0))
    machine = Machine(cores=cores, crowding=0.0)
    walk = Simulation(costs, machine, GridShape(1, 1, len(work)), 1, np.random.default_rng(0))
    left, now, done = dict(enumerate(work)), 0.0, {}
    while left:
        speed = min(1.0, cores / len(left))
        first = min(left, key=left.get)
        now += left[first] / speed
        left = {one: rest - left[first] for one, rest in left.items() if one != first}
        done[first] = now
    assert walk.share_cores(np.array(work)) == pytest.approx([done[one] for one in range(len(work))])


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(
        st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=2, max_size=2),
        min_size=1,
        max_size=3,
    )
)
def test_daemons_against_a_queue(arrivals):
    """Two nodes of two replicas with two slices each, step after step."""
    costs = Costs.of(scaling_record([[0.06] * 4], daemon_us=200.0))
    walk = Simulation(costs, IDEAL, GridShape(2, 1, 4), 2, np.random.default_rng(0))
    free = [0.0, 0.0]
    for step in arrivals:
        walk.serve(np.array(step).ravel())
        served = {}
        for node, slices in enumerate(step):
            ready = {node * 2 + replica: max(slices[2 * replica : 2 * replica + 2]) for replica in range(2)}
            for replica in sorted(ready, key=ready.get):
                free[node] = max(free[node], ready[replica]) + 2 * costs.daemon_s
                served[replica] = free[node]
        assert walk.served == pytest.approx([served[replica] for replica in range(4)])


def test_grids_of_more_and_more_trainers():
    assert doublings(4, 16) == [
        (GridShape(1, 1, 1), 1),
        (GridShape(1, 1, 2), 1),
        (GridShape(1, 1, 4), 1),
        (GridShape(1, 1, 8), 2),
        (GridShape(1, 1, 16), 4),
    ]
    assert doublings(6, 24, minibatch=2)[-1] == (GridShape(2, 1, 9), 3)
    with pytest.raises(ConfigError, match="multiple of 3: got 4; try 6"):
        doublings(4, 16, epoch=3)
    with pytest.raises(GridError, match="try 4 replicas"):
        predict(STEADY, IDEAL, GridShape(1, 1, 3), 2)


def test_a_run_trains_whole_sweeps():
    found = predict(STEADY, IDEAL, GridShape(1, 2, 16))
    assert found.batches == 100
    assert found.run(100) == (128, pytest.approx(4 * 100 * 0.06)), "four sweeps of 32 passes each"


def test_speed_ups_are_over_one_trainer_wherever_it_stands():
    record = scaling_record([[0.06] * 10] * 2)
    (one,) = record["grids"]
    record["grids"] = [one | {"grid": "1x1x2", "trainers": 2, "events_per_s": 1.5 * one["events_per_s"]}, one]
    told = forecast(record, Machine(cores=9), [], epochs=1)
    assert [entry["speed_up"] for entry in told["measured"]] == [1.5, 1]


def test_means_of_several_steps_deviate_less_than_steps():
    record = scaling_record([[0.05, 0.07], [0.06, 0.08]])
    alone = Costs.of(record)
    together = Costs.of(record | {"steps_together": 9})
    assert together.noise_s == pytest.approx(3 * alone.noise_s)
    assert together.batch_s == pytest.approx(alone.batch_s)


def test_grids_are_named_with_any_number_of_nodes():
    assert grids_on_nodes("2x1x9@3, 1x1x2,1x2x3@3") == [
        (GridShape(1, 1, 2), 1),
        (GridShape(1, 2, 3), 3),
        (GridShape(2, 1, 9), 3),
    ]
    for text in ("1x1x2@", "1x1x2@0", "1x1x2@two", "1x1@2"):
        with pytest.raises((ConfigError, GridError), match="IxJxK"):
            grids_on_nodes(text)


def test_a_forecast_reaches_thousands_of_trainers():
    record = scaling_record(np.random.default_rng(0).normal(0.06, 0.005, (2, 40)).tolist())
    told = forecast(record, Machine(cores=9), doublings(8, 4096), epochs=100)
    assert [one["trainers"] for one in told["predicted"]] == [2**power for power in range(13)]
    assert told["measured"][0]["predicted_speed_up"] == pytest.approx(1, rel=0.05)
    speeds = [one["events_per_s"] / one["trainers"] for one in told["predicted"]]
    assert speeds[-1] < 0.95 * speeds[0]
    assert [one["replicas_share_batches"] for one in told["predicted"]] == [False] * 7 + [True] * 6
