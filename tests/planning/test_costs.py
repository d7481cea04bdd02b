"""What the model of scaling takes from a record, and the arithmetic of sums of gradients."""

import numpy as np
import pytest
from scaling_records import scaling_record

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.planning.costs import Costs, Machine


def test_costs_of_a_step():
    costs = Costs.of(scaling_record([[0.05, 0.07], [0.05, 0.07]], edge_bytes=100))
    assert costs.batch_s == pytest.approx([0.05, 0.07])
    assert costs.noise_s == pytest.approx([0, 0, 0, 0])
    assert (costs.step_s, costs.cpu_s, costs.events) == pytest.approx((0.06, 0.06, 600))
    assert costs.events_per_s == pytest.approx(10_000)
    assert (costs.before_write, costs.backward) == pytest.approx((0.4, 0.5))
    assert costs.daemon_s == pytest.approx(600 * 2e-6)
    assert costs.stored_bytes == 600 * 3 * 11 * 100


def test_a_drifting_machine_is_no_deviation():
    costs = Costs.of(scaling_record([[0.05, 0.07], [0.10, 0.14], [0.05, 0.07]]))
    assert costs.batch_s == pytest.approx([0.05, 0.07]), "at the speed of the median round"
    assert costs.noise_s == pytest.approx(np.zeros(6))


def test_deviations_have_the_variance_of_the_steps():
    random = np.random.default_rng(0)
    dear = np.tile([0.05, 0.09], 500)
    rounds = dear + random.normal(0, 0.004, (3, 1000))
    costs = Costs.of(scaling_record(rounds.tolist()))
    assert costs.noise_s.std() == pytest.approx(0.004, rel=0.05)
    assert np.abs(costs.batch_s - dear).mean() < 0.003


def test_a_single_round_is_all_deviation():
    costs = Costs.of(scaling_record([[0.05, 0.07]]))
    assert costs.batch_s == pytest.approx([0.06, 0.06])
    assert costs.noise_s == pytest.approx([-0.01, 0.01])


def test_without_a_daemon_the_trainer_has_copied():
    record = scaling_record([[0.05, 0.07]], daemons=0)
    record["grids"][0]["rounds"][0]["phases_s"] |= {"read": 0.002, "write": 0.001}
    assert Costs.of(record).daemon_s == pytest.approx(0.0015)


@pytest.mark.parametrize("missing", ["grids", "train_events", "settings"])
def test_another_record_is_refused(missing):
    record = scaling_record([[0.05, 0.07]])
    del record[missing]
    with pytest.raises(ConfigError, match=r"disttgl bench scaling EVENTS\.h5 --grids 1x1x1"):
        Costs.of(record)


def test_a_record_without_one_trainer_or_single_steps_is_refused():
    record = scaling_record([[0.05, 0.07]])
    record["grids"][0]["grid"] = "1x1x2"
    with pytest.raises(ConfigError, match="1x1x1"):
        Costs.of(record)
    record = scaling_record([[0.05, 0.07]])
    del record["grids"][0]["rounds"][0]["step_s"]
    with pytest.raises(ConfigError, match="step_s"):
        Costs.of(record)


def test_sums_of_gradients():
    quiet = {"cores": 8, "meeting_s": 1e-4, "local_bandwidth": 1e9, "poll_s": 0.0}
    machine = Machine(**quiet, bandwidth=1e9, latency_s=1e-5)
    assert machine.gradient_sum_s(10**6, 1, 1) == 0
    inside = 2 * 3 * 1e-4 + 2e-3  # two meetings of 8, and each trainer's share of 8 vectors in and of 8 out
    assert machine.gradient_sum_s(10**6, 1, 8) == pytest.approx(inside)
    across = {
        "ring": 2 * 15 * 1e-5 + 2 * 15 / 16 * 1e-3,
        "halving": 2 * 4 * 1e-5 + 2 * 15 / 16 * 1e-3,
        "tree": 2 * 4 * (1e-5 + 1e-3),
    }
    for collective, seconds in across.items():
        one = Machine(**quiet, bandwidth=1e9, latency_s=1e-5, collective=collective)
        assert one.gradient_sum_s(10**6, 16, 1) == pytest.approx(seconds)
        assert one.gradient_sum_s(10**6, 16, 8) == pytest.approx(seconds + inside)
