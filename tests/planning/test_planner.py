"""The rules by which a grid is chosen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.planning.planner import (
    Cluster,
    GridRules,
    Losses,
    cautions,
    choose_grid,
    choose_local_batch,
    divisors,
)

SHARES = {75: 0.8, 150: 0.75, 300: 0.6, 600: 0.5, 1200: 0.46, 2400: 0.4, 4800: 0.3}
LOSSES = Losses(SHARES, 600)


def grids(
    nodes, trainers_per_node, *, memory=10**9, replica=10, losses=LOSSES, batches=1000, epochs=10, **options
):
    """Candidates where a replica takes ``replica`` bytes of a node's."""
    cluster = Cluster(nodes=nodes, trainers_per_node=trainers_per_node, memory_per_node=memory)
    rules = GridRules(
        cluster=cluster,
        local_batch=600,
        losses=losses,
        memory_of=lambda shape: shape.memory // nodes * replica,
        num_events=600 * batches,
        epochs=epochs,
        **options,
    )
    return choose_grid(rules)


def chosen(candidates):
    (one,) = [candidate for candidate in candidates if candidate.is_chosen]
    return one


def reasons(candidates):
    return {candidate.shape.option: candidate.reason for candidate in candidates}


def test_loss_is_what_the_base_batch_still_captures():
    assert [LOSSES.of(batch) for batch in (150, 600, 1200, 2400)] == pytest.approx([0, 0, 0.08, 0.2])


def test_the_largest_acceptable_batch_comes_first():
    assert str(chosen(grids(1, 4)).shape) == "2×1×2"  # 8 % for twice the batch
    assert str(chosen(grids(1, 4, max_loss=0.05)).shape) == "1×1×4"
    assert str(chosen(grids(1, 4, max_loss=0.2)).shape) == "4×1×1"
    assert reasons(grids(1, 4))["4x1x1"] == "loses 20.0%, more than 10.0%"
    assert reasons(grids(1, 4))["1x1x4"] == "a larger batch is acceptable: i = 2"


def test_then_as_many_replicas_as_fit_and_the_rest_are_lanes():
    assert str(chosen(grids(2, 8, memory=40, max_loss=0)).shape) == "1×2×8"
    assert str(chosen(grids(2, 8, memory=39, max_loss=0)).shape) == "1×4×4"
    found = reasons(grids(2, 8, memory=39, max_loss=0))
    assert found["1x2x8"].startswith("does not fit")
    assert found["1x8x2"] == "more replicas fit: k = 4"


def test_a_batch_is_no_larger_than_a_sweep():
    same = Losses(dict.fromkeys(SHARES, 0.5), 600)
    found = grids(1, 4, losses=same, batches=2)
    assert str(chosen(found).shape) == "2×2×1", "one batch a sweep, for one replica"
    assert reasons(found)["4x1x1"] == "a sweep has 1,200 events"


def test_every_node_has_a_replica():
    assert str(chosen(grids(6, 2, memory=10, max_loss=0)).shape) == "1×2×6"
    with pytest.raises(GridError, match=r"--memory-per-node.*--dim-memory"):
        grids(6, 2, memory=9)


def test_replicas_are_no_more_than_batches():
    found = grids(1, 8, batches=4, max_loss=0)
    assert str(chosen(found).shape) == "1×2×4"
    assert reasons(found)["1x1x8"] == "more replicas than the 4 batches of a sweep"
    assert str(chosen(grids(8, 2, batches=4, max_loss=0)).shape) == "1×2×8", "every node needs one"


def test_passes_and_steps_are_those_of_whole_sweeps():
    found = {one.shape.option: (one.passes, one.steps) for one in grids(1, 4, batches=50)}
    assert found == {
        "1x1x4": (12, 150),
        "1x2x2": (12, 150),
        "1x4x1": (12, 150),
        "2x1x2": (10, 125),
        "2x2x1": (10, 125),
        "4x1x1": (10, 130),
    }
    assert [one.as_dict()["steps"] for one in grids(1, 1, batches=50)] == [500]


@pytest.mark.parametrize(
    ("trainers", "epochs", "batches", "expected"),
    [
        (4, 10, 1000, []),
        (4, 3, 200, ["1×1×4 trains whole sweeps of 4 passes, more than the 3 epochs"]),
        (4, 4, 199, ["1×1×4 takes 199 gradient steps"]),
        (4, 1, 10, ["whole sweeps of 4 passes", "10 gradient steps in all, fewer than 200"]),
    ],
)
def test_plans_warn_of_more_passes_than_epochs_and_of_few_steps(trainers, epochs, batches, expected):
    one = chosen(grids(1, trainers, epochs=epochs, batches=batches, max_loss=0))
    found = cautions(one, epochs)
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text
        assert text.endswith("--scale-lr sqrt, fewer trainers, or more --epochs")


def test_a_single_trainer_is_not_advised_to_use_fewer():
    (caution,) = cautions(chosen(grids(1, 1, epochs=1, batches=50)), 1)
    assert caution.endswith("a smaller --local-batch, or more --epochs")


def test_speeds_are_predicted():
    found = grids(1, 2, speed_of=lambda shape: 100.0 * shape.memory)
    assert [candidate.events_per_s for candidate in found] == [200, 100, 100]
    assert found[0].as_dict()["grid"] == "1x1x2"


@settings(max_examples=50, deadline=None)
@given(
    nodes=st.integers(1, 6),
    per_node=st.integers(1, 16),
    memory=st.integers(10, 200),
    batches=st.integers(16, 40),
    max_loss=st.floats(0, 1),
)
def test_every_grid_is_looked_at_once_and_one_is_chosen(nodes, per_node, memory, batches, max_loss):
    losses = Losses({600 * i: 1 / i for i in divisors(per_node)}, 600)
    options = {"memory": memory, "losses": losses, "batches": batches, "max_loss": max_loss}
    found = grids(nodes, per_node, **options)
    shapes = {
        GridShape(i, j, k * nodes)
        for i in range(1, per_node + 1)
        for j in range(1, per_node + 1)
        for k in range(1, per_node + 1)
        if i * j * k == per_node
    }
    assert {candidate.shape for candidate in found} == shapes
    assert len(found) == len(shapes)
    best = chosen(found)
    assert best.memory <= memory
    assert best.loss <= max_loss or best.shape.minibatch == 1
    for other in found:
        if other.memory <= memory and (other.loss <= max_loss or other.shape.minibatch == 1):
            fits_the_sweep = other.shape.memory <= batches // other.shape.minibatch
            better_k = other.shape.memory > best.shape.memory and fits_the_sweep
            assert other.shape.minibatch <= best.shape.minibatch
            assert other.shape.minibatch < best.shape.minibatch or not better_k


def test_a_local_batch_is_the_smallest_that_is_nearly_the_fastest():
    speeds = {150: 50.0, 300: 94.0, 600: 96.0, 1200: 100.0, 2400: 200.0}
    batch, why = choose_local_batch(speeds, LOSSES)
    assert batch == 600
    assert why[2400] == "loses 20.0%, more than 10.0%"
    assert why[300] == "larger ones are faster"
    assert why[1200] == "gains less than 5%"
    assert choose_local_batch(speeds, LOSSES, max_loss=0.5)[0] == 2400
    assert choose_local_batch({2400: 1.0, 4800: 2.0}, LOSSES)[0] == 2400, (
        "all lose too much: the least of them"
    )
