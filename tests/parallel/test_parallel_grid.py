import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.process_grid import Grid, check_slices, coordinates_of, place
from disttgl_hpc.grid.schedule import Coordinates, GridShape

SHAPES = [GridShape(*axes) for axes in product(range(1, 4), repeat=3)]


def nodes_of(*counts):
    """World ranks of nodes with so many ranks, dealt out in blocks."""
    ends = np.cumsum(counts)
    return [list(range(end - count, end)) for count, end in zip(counts, ends, strict=True)]


def commands_of(error):
    """(ranks per node, shape) of every command line that an error offers."""
    launcher = r"(?:mpiexec -n (\d+)|srun --nodes=(\d+) --ntasks-per-node=(\d+))"
    pattern = launcher + r" disttgl train … --grid (\S+?)(?:,|$)"
    found = re.findall(pattern, str(error))
    return [([int(n)] if n else [int(t)] * int(m), GridShape.parse(grid)) for n, m, t, grid in found]


# Arithmetic ---------------------------------------------------------------------------------------------


def test_every_place_is_taken_by_one_trainer():
    for shape in SHAPES:
        taken = [coordinates_of(trainer, shape) for trainer in range(shape.num_trainers)]
        axes = product(range(shape.memory), range(shape.epoch), range(shape.minibatch))
        assert taken == [Coordinates(i, j, k) for k, j, i in axes]


@pytest.mark.parametrize("num_nodes", [1, 2, 3])
def test_a_grid_that_fits_has_its_replicas_on_one_node_each(num_nodes):
    for shape in SHAPES:
        if shape.memory % num_nodes:
            continue
        nodes = nodes_of(*[shape.num_trainers // num_nodes + 1] * num_nodes)
        placement = place(nodes, shape)
        assert placement.daemons == tuple(node[-1] for node in nodes)
        assert sorted(placement.trainers + placement.daemons) == list(range(shape.num_trainers + num_nodes))
        assert placement.replicas_per_node * num_nodes == shape.memory
        home = {rank: index for index, node in enumerate(nodes) for rank in node}
        for trainer, rank in enumerate(placement.trainers):
            assert home[rank] == coordinates_of(trainer, shape).memory // placement.replicas_per_node


def test_ranks_dealt_out_in_turn_are_placed_as_well():
    placement = place([[0, 2, 4], [1, 3, 5]], GridShape(2, 1, 2))
    assert (placement.trainers, placement.daemons) == ((0, 2, 1, 3), (4, 5))


def test_one_process_is_the_only_trainer():
    for shape in (None, GridShape(1, 1, 1)):
        placement = place([[0]], shape)
        assert (placement.shape, placement.trainers, placement.daemons) == (GridShape(1, 1, 1), (0,), ())


@pytest.mark.parametrize(
    ("counts", "shape"), [((2,), "1x1x1"), ((5,), "1x1x4"), ((3, 3), "1x1x4"), ((2, 2, 2), "1x1x3")]
)
def test_without_a_grid_every_trainer_has_its_replica(counts, shape):
    assert place(nodes_of(*counts), None).shape == GridShape.parse(shape)


@pytest.mark.parametrize(
    ("counts", "shape", "numbers"),
    [
        ((6,), "2x2x2", "2×2×2 = 8 trainers and 1 daemon (one per node) need 9 ranks, started were 6"),
        ((1,), "2x1x1", "need 3 ranks, started were 1"),
        ((4,), "1x1x1", "need 2 ranks, started were 4"),
        ((4, 4), "1x1x7", "7 trainers and 2 daemons (one per node) need 9 ranks, started were 8"),
        ((2, 4), "1x1x4", "needs 3 ranks on every node, the nodes have 2, 4"),
        ((3, 2), None, "3 replicas, each of whose 1 trainers share one node"),
        ((1, 1), None, "2 nodes with one rank each have no trainer"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers(counts, shape, numbers):
    with pytest.raises(GridError) as caught:
        place(nodes_of(*counts), shape and GridShape.parse(shape))
    assert numbers in str(caught.value)
    assert len(commands_of(caught.value)) == 2


def test_pitfall_9_a_replica_does_not_span_nodes():
    with pytest.raises(GridError, match="1 replica, each of whose 4 trainers share one node"):
        place(nodes_of(3, 3), GridShape(4, 1, 1))
    with pytest.raises(GridError, match=r"3 replicas, .* spread evenly over 2 nodes"):
        place(nodes_of(4, 4), GridShape(2, 1, 3))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    axes=st.none() | st.tuples(*[st.integers(1, 4)] * 3),
)
def test_any_start_runs_or_is_told_two_command_lines_that_do(counts, axes):
    shape = axes and GridShape(*axes)
    try:
        placement = place(nodes_of(*counts), shape)
    except GridError as error:
        commands = commands_of(error)
        assert len(commands) == len(set(map(str, commands))) == 2
        for ranks, works in commands:
            assert place(nodes_of(*ranks), works).shape == works
    else:
        assert placement.shape == (shape or placement.shape)
        assert len(placement.trainers) == placement.shape.num_trainers


def test_more_slices_than_events_are_refused():
    check_slices(GridShape(4, 1, 1), 4)
    with pytest.raises(GridError, match="4 slices, the stream has 3 training events") as caught:
        check_slices(GridShape(4, 1, 1), 3)
    assert [place(nodes_of(*ranks), shape).shape.minibatch for ranks, shape in commands_of(caught.value)] == [
        3,
        1,
    ]


# Communicators ------------------------------------------------------------------------------------------


def check_communicators(grid, comm, shape):
    """Each axis communicator holds the trainers that differ along it only, in order."""
    assert grid.world.size == comm.size
    if grid.is_daemon:
        assert grid.node_comm.rank == grid.node_comm.size - 1
        with pytest.raises(ValueError, match="no place"):
            _ = grid.coordinates
        return
    at = grid.coordinates
    axes = [
        (grid.minibatch_comm, [Coordinates(x, at.epoch, at.memory) for x in range(shape.minibatch)]),
        (grid.epoch_comm, [Coordinates(at.minibatch, x, at.memory) for x in range(shape.epoch)]),
        (grid.memory_comm, [Coordinates(at.minibatch, at.epoch, x) for x in range(shape.memory)]),
        (grid.trainer_comm, [coordinates_of(x, shape) for x in range(shape.num_trainers)]),
    ]
    for axis, members in axes:
        assert axis.allgather(at) == members
    assert {other.memory for other in grid.replica_comm.allgather(at)} == {at.memory}
    assert grid.replica_comm.size == shape.trainers_per_replica
    assert at.memory in grid.local_replicas
    assert grid.node_trainer_comm.size == grid.node_comm.size - (not grid.is_serial)
    assert grid.node_trainer_comm.rank == grid.local_trainer


def grid_case(ranks, shape, num_nodes=1):
    return pytest.param(
        GridShape.parse(shape), num_nodes, marks=pytest.mark.ranks(ranks), id=f"{shape}-{num_nodes}"
    )


@pytest.mark.parametrize(
    ("shape", "num_nodes"),
    [
        grid_case(1, "1x1x1"),
        grid_case(2, "1x1x1"),
        grid_case(4, "3x1x1"),
        grid_case(4, "1x3x1"),
        grid_case(4, "1x1x3"),
        grid_case(4, "1x1x2", num_nodes=2),
        grid_case(9, "2x2x2"),
        grid_case(10, "2x2x2", num_nodes=2),
    ],
)
def test_communicators_of_a_grid(comm, on_all_ranks, shape, num_nodes):
    def body():
        node_comm = comm.Split(comm.rank * num_nodes // comm.size, comm.rank)
        grid = Grid.create(comm, shape, node_comm)
        assert grid.shape == shape
        assert grid.node == comm.rank * num_nodes // comm.size
        check_communicators(grid, comm, shape)
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_ranks_that_share_memory_are_one_node(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        assert (grid.shape, grid.node, grid.is_daemon) == (GridShape(1, 1, 1), 0, comm.rank == 1)
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_every_rank_is_refused_with_the_same_words(comm, on_all_ranks):
    def body():
        with pytest.raises(GridError) as caught:
            Grid.create(comm, GridShape(2, 2, 2))
        assert len(set(comm.allgather(str(caught.value)))) == 1

    on_all_ranks(body)
