import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.process_grid import choose_ranks, nodes_of, place
from disttgl_hpc.grid.schedule import GridShape

ONE_NODE = (tuple(range(9)),)
TWO_NODES = ((0, 1, 2), (3, 4, 5))


@pytest.mark.parametrize(
    ("nodes", "grid", "chosen"),
    [
        (((0,),), "1x1x1", ((0,),)),
        (ONE_NODE, "1x1x1", ((0, 1),)),
        (ONE_NODE, "2x1x2", ((0, 1, 2, 3, 4),)),
        (TWO_NODES, "1x1x2", ((0, 1), (3, 4))),
        (TWO_NODES, "2x1x1", ((0, 1, 2),)),
        (((0, 2), (1, 3, 4)), "2x1x1", ((1, 3, 4),)),
        ((*TWO_NODES, (6, 7, 8)), "1x1x4", ((0, 1, 2), (3, 4, 5))),
    ],
)
def test_ranks_are_taken_evenly_from_as_many_nodes_as_a_grid_can_use(nodes, grid, chosen):
    assert choose_ranks(nodes, GridShape.parse(grid)) == chosen


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.builds(GridShape, *[st.integers(1, 3)] * 3))
def test_what_is_chosen_is_a_placement_and_only_what_cannot_be_is_refused(sizes, shape):
    starts = [sum(sizes[:node]) for node in range(len(sizes))]
    nodes = tuple(tuple(range(start, start + size)) for start, size in zip(starts, sizes, strict=True))
    counts = [count for count in range(1, len(nodes) + 1) if shape.memory % count == 0]
    possible = [
        count for count in counts if sum(size > shape.num_trainers // count for size in sizes) >= count
    ]
    if not possible and not (sum(sizes) == shape.num_trainers == 1):
        with pytest.raises(GridError, match=r"needs .* ranks.* started were .* --grids"):
            choose_ranks(nodes, shape)
        return
    chosen = choose_ranks(nodes, shape)
    assert all(set(part) <= set(next(node for node in nodes if part[0] in node)) for part in chosen)
    assert place(chosen, shape).shape == shape
    assert len(chosen) == max(possible, default=1)


def test_a_refusal_names_numbers_and_remedies():
    with pytest.raises(GridError) as refusal:
        choose_ranks(((0, 1, 2),), GridShape(2, 1, 4))
    assert str(refusal.value) == (
        "2×1×4 needs 8 trainers and a daemon, 9 ranks, on one node; started were 3 on the node: "
        "mpiexec -n 9 disttgl bench scaling …, or leave 2x1x4 out of --grids"
    )
    with pytest.raises(GridError, match=r"5 ranks, on each of 2 nodes; .*srun --nodes=2 --ntasks-per-node=5"):
        choose_ranks(TWO_NODES, GridShape(2, 1, 4))


@pytest.mark.parametrize("ranks", [pytest.param(n, marks=pytest.mark.ranks(n)) for n in (1, 4)])
def test_ranks_that_share_memory_are_one_node(comm, on_all_ranks, ranks):
    def body():
        assert nodes_of(comm, 20) == (tuple(range(ranks)),)

    on_all_ranks(body)
