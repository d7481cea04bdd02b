from collections import Counter
from functools import cache
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.schedule import (
    Coordinates,
    GridShape,
    Operation,
    OperationKind,
    assignment,
    batch_bounds,
    negative_set,
    num_steps,
    pass_number,
    replica_offset,
    replica_operations,
    slice_bounds,
)

RESET, READ, WRITE, SNAPSHOT = OperationKind
SHAPES = [GridShape(*axes) for axes in product(range(1, 5), repeat=3)]
LENGTHS = range(1, 14)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.option)
beyond = given(
    axes=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)), num_batches=st.integers(1, 60)
)


def places(shape):
    axes = product(range(shape.memory), range(shape.epoch), range(shape.minibatch))
    return [Coordinates(minibatch, epoch, memory) for memory, epoch, minibatch in axes]


@cache
def work(shape, num_batches):
    """Two sweeps and a little more: {coordinates: [assignment of each step]}."""
    steps = range(2 * num_batches + shape.epoch)
    return {at: [assignment(step, at, shape, num_batches) for step in steps] for at in places(shape)}


# Grid shapes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2x3x4", " 2X3x4 ", "2×3×4"])
def test_shape_is_read_as_it_is_written(text):
    shape = GridShape.parse(text)
    assert shape == GridShape(2, 3, 4) == GridShape.parse(shape.option) == GridShape.parse(str(shape))
    assert (shape.num_trainers, shape.trainers_per_replica) == (24, 6)


@pytest.mark.parametrize("text", ["", "2x2", "2x2x2x2", "axbxc", "-1x1x1", "1.0x1x1", "0x1x1", "1x1x0"])
def test_other_shapes_are_refused_with_a_remedy(text):
    with pytest.raises(GridError, match="1x1x1"):
        GridShape.parse(text)


# What each trainer does ---------------------------------------------------------------------------------


def check_reads_and_writes(shape, num_batches, table):
    """Per step and replica one global batch is read and written, by all slices of one lane, in stream order."""
    for replica in range(shape.memory):
        offset = replica_offset(replica, shape, num_batches)
        for step in range(2 * num_batches):
            now = [(at, table[at][step]) for at in table if at.memory == replica]
            active = [(at.epoch, a.minibatch, a.counter, a.batch) for at, a in now if a and a.reads]
            batch = (step + offset) % num_batches
            lane = step % shape.epoch
            assert sorted(active) == [(lane, part, step, batch) for part in range(shape.minibatch)]
            assert all(a.reads == a.writes == (a.pass_index == 0) for _, a in now if a)


@every_shape
def test_each_step_reads_and_writes_one_global_batch_per_replica_in_stream_order(shape):
    for num_batches in LENGTHS:
        check_reads_and_writes(shape, num_batches, work(shape, num_batches))


@settings(max_examples=25, deadline=None)
@beyond
def test_reads_and_writes_of_larger_grids(axes, num_batches):
    shape = GridShape(*axes)
    lanes = [at for at in places(shape) if at.minibatch == 0]
    steps = range(2 * num_batches)
    table = {at: [assignment(step, at, shape, num_batches) for step in steps] for at in lanes}
    check_reads_and_writes(GridShape(1, shape.epoch, shape.memory), num_batches, table)


@every_shape
def test_each_batch_is_trained_j_times_k_in_a_round_of_sweeps(shape):
    for num_batches in LENGTHS:
        table = work(shape, num_batches)
        trained = Counter()
        for at in table:
            for step, a in enumerate(table[at]):
                if a and a.counter < num_batches:
                    assert step == a.counter + a.pass_index
                    assert a.counter % shape.epoch == at.epoch
                    trained[a.batch, at.minibatch, at.memory, a.pass_index] += 1
        axes = (num_batches, shape.minibatch, shape.memory, shape.epoch)
        assert trained == Counter(product(*map(range, axes)))


@every_shape
def test_no_lane_idles_after_the_first_steps(shape):
    for num_batches in LENGTHS:
        for at, assignments in work(shape, num_batches).items():
            assert [a is None for a in assignments] == [step < at.epoch for step in range(len(assignments))]


@every_shape
def test_sweeps_follow_each_other_and_know_where_they_began(shape):
    for num_batches in LENGTHS:
        for at, assignments in work(shape, num_batches).items():
            offset = at.memory * num_batches // shape.memory
            for a in filter(None, assignments):
                assert (a.sweep, a.batch) == divmod(a.counter + offset, num_batches)
                assert a.begins_sweep == (a.batch == 0)
                assert a.ends_sweep == (a.batch == num_batches - 1)
                began = max(0, a.sweep * num_batches - offset)
                assert a.sweep_first_batch == (began + offset) % num_batches
                assert a.counter - began == a.batch - a.sweep_first_batch


@pytest.mark.parametrize(
    ("epochs", "shape", "steps"), [(10, "1x1x1", 70), (10, "2x2x2", 21), (1, "1x4x4", 7), (8, "1x1x8", 7)]
)
def test_requested_epochs_are_rounded_up_to_whole_sweeps(epochs, shape, steps):
    assert num_steps(epochs, GridShape.parse(shape), 7) == steps


# The daemon's order -------------------------------------------------------------------------------------


@every_shape
def test_operations_are_what_trainers_ask_for_in_stream_order(shape):
    for num_batches, replica in product(LENGTHS, range(shape.memory)):
        steps = 2 * num_batches
        operations = list(replica_operations(replica, shape, num_batches, 0, steps))
        asked = Counter(
            Operation(kind, a.counter, at.minibatch, at.epoch)
            for at, assignments in work(shape, num_batches).items()
            if at.memory == replica
            for a in assignments[:steps]
            if a and a.reads
            for kind in (READ, WRITE)
        )
        requests = [o for o in operations if o.kind is not RESET]
        assert Counter(requests) == asked
        assert requests == sorted(requests, key=lambda o: (o.counter, o.kind, o.minibatch))


@every_shape
def test_a_read_sees_exactly_the_writes_before_it(shape):
    for num_batches, replica in product(LENGTHS, range(shape.memory)):
        offset = replica_offset(replica, shape, num_batches)
        written = None
        for operation in replica_operations(replica, shape, num_batches, 0, 2 * num_batches):
            if operation.kind is RESET:
                written = []
            elif operation.kind is READ:
                c = operation.counter
                began = max(0, (c + offset) // num_batches * num_batches - offset)
                assert written == list(product(range(began, c), range(shape.minibatch)))
            else:
                written.append((operation.counter, operation.minibatch))


def test_a_run_that_goes_on_keeps_its_state():
    shape = GridShape(2, 3, 2)
    whole = list(replica_operations(1, shape, 7, 0, 20))
    assert [o for o in whole if o.counter >= 9] == list(replica_operations(1, shape, 7, 9, 20))
    assert next(replica_operations(1, shape, 7, 9, 20)).kind is READ


def simulate(shape, num_batches, steps, *, early, order=replica_operations):
    """Run trainers and daemons as processes with blocking waits; returns how many hang.

    Waits are for events that stay true once they are, so whether all of them come true does not depend on
    timing: trying every process until none can move is a proof for all timings.
    """
    table = {at: [assignment(s, at, shape, num_batches) for s in range(steps)] for at in places(shape)}
    posted, served, sums = set(), set(), Counter()

    def trainer(at):
        first = True
        for step, a in enumerate(table[at]):
            if a and a.reads:
                if first or not early:
                    posted.add((at.memory, READ, a.counter, at.minibatch))
                    first = False
                while (at.memory, READ, a.counter, at.minibatch) not in served:
                    yield
                posted.add((at.memory, WRITE, a.counter, at.minibatch))
                if early:
                    posted.add((at.memory, READ, a.counter + shape.epoch, at.minibatch))
            sums[step] += 1
            while sums[step] < shape.num_trainers:
                yield

    def daemon(replica):
        for operation in order(replica, shape, num_batches, 0, steps):
            if operation.kind is not RESET:
                request = (replica, operation.kind, operation.counter, operation.minibatch)
                while request not in posted:
                    yield
                served.add(request)

    running = [trainer(at) for at in table] + [daemon(replica) for replica in range(shape.memory)]
    events = -1
    while events != len(posted) + len(served) + sums.total():
        events = len(posted) + len(served) + sums.total()
        running = [process for process in running if next(process, running) is None]
    return len(running)


@every_shape
def test_no_cycle_of_waits(shape):
    for num_batches, early in product(LENGTHS, (False, True)):
        assert simulate(shape, num_batches, num_batches + shape.epoch, early=early) == 0


def test_the_simulation_finds_a_hang():
    def newest_first(*run):
        return sorted(replica_operations(*run), key=lambda o: -o.counter)

    assert simulate(GridShape(1, 2, 1), 3, 6, early=True, order=newest_first) == 3


@settings(max_examples=20, deadline=None)
@beyond
def test_no_cycle_of_waits_in_larger_grids(axes, num_batches):
    shape = GridShape(min(axes[0], 2), *axes[1:])
    assert simulate(shape, num_batches, num_batches + 2 * shape.epoch, early=True) == 0


# Batches and slices -------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(num_events=st.integers(1, 400), local=st.integers(1, 40), parts=st.integers(1, 7))
def test_slices_of_all_batches_are_the_stream(num_events, local, parts):
    global_batch = local * parts
    num_batches = -(-num_events // global_batch)
    bounds = []
    for batch in range(num_batches):
        first, end = batch_bounds(batch, global_batch, num_events)
        slices = [slice_bounds(first, end, parts, index) for index in range(parts)]
        sizes = [stop - start for start, stop in slices]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= local
        if end - first == global_batch:
            assert slices == [(first + x * local, first + (x + 1) * local) for x in range(parts)]
        bounds += slices
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_events
    assert all(left[1] == right[0] for left, right in pairwise(bounds))


# The reference's faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["1x4x2", "1x2x2", "1x3x2", "2x4x4", "1x8x3"])
def test_pitfall_1_shapes_that_hang_the_reference_run_to_their_end(shape):
    shape = GridShape.parse(shape)
    for num_batches in (37, 46):  # Wikipedia's 184 batches in small: a multiple of j, and none
        assert (
            simulate(shape, num_batches, num_steps(2 * shape.num_trainers, shape, num_batches), early=True)
            == 0
        )


def test_pitfall_2_the_last_batch_of_a_sweep_is_written_once():
    for shape, num_batches in product(SHAPES, (1, 2, 5)):
        writes = Counter(
            (o.counter, o.minibatch)
            for o in replica_operations(shape.memory - 1, shape, num_batches, 0, 3 * num_batches)
            if o.kind is WRITE
        )
        assert set(writes.values()) == {1}


def test_pitfall_3_evaluation_copies_the_memory_after_the_last_write_and_before_the_reset():
    shape, num_batches = GridShape(2, 3, 1), 5
    ends = range(num_batches - 1, 15, num_batches)
    operations = list(replica_operations(0, shape, num_batches, 0, 15, snapshots=ends))
    at = [index for index, o in enumerate(operations) if o.kind is SNAPSHOT]
    assert [operations[index].counter for index in at] == list(ends)
    for index in at:
        assert operations[index - 1] == Operation(WRITE, operations[index].counter, 1, operations[index].lane)
        assert index + 1 == len(operations) or operations[index + 1].kind is RESET


def test_pitfall_4_a_reset_has_one_place_in_the_order():
    for shape, num_batches in product(SHAPES, (1, 2, 5)):
        for replica in range(shape.memory):
            operations = list(replica_operations(replica, shape, num_batches, 0, 4 * num_batches))
            offset = replica_offset(replica, shape, num_batches)
            due = {c for c in range(4 * num_batches) if c == 0 or (c + offset) % num_batches == 0}
            resets = [index for index, o in enumerate(operations) if o.kind is RESET]
            assert [operations[index].counter for index in resets] == sorted(due)
            for index in resets:
                assert operations[index + 1].kind is READ
                assert index == 0 or operations[index - 1].kind is WRITE


def test_pitfall_7_a_short_last_batch_is_trained_by_all_slices_that_it_has_events_for():
    first, end = batch_bounds(2, 4 * 100, 803)
    slices = [slice_bounds(first, end, 4, index) for index in range(4)]
    assert slices == [(800, 800), (800, 801), (801, 802), (802, 803)]


def test_pitfall_10_later_lanes_wait_for_their_own_batch():
    for shape in SHAPES:
        for at in places(shape):
            begun = [a for a in (assignment(step, at, shape, 13) for step in range(shape.epoch)) if a]
            assert begun[0].counter == at.epoch
            assert begun[0].pass_index == 0


@every_shape
def test_passes_over_a_batch_are_numbered_without_gaps(shape):
    """Every pass over a batch has a number of its own, so no two see the same fresh negatives or dropout."""
    numbers = sorted(
        pass_number(sweep, replica, index, shape)
        for sweep in range(3)
        for replica in range(shape.memory)
        for index in range(shape.epoch)
    )
    assert numbers == list(range(3 * shape.epoch * shape.memory))


def test_fixed_negative_sets_are_taken_in_turn():
    assert [negative_set(number, 3) for number in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [negative_set(number, 0) for number in range(4)] == [0, 1, 2, 3]
