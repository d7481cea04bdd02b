"""A co-trained table on one node and on several: the same bits everywhere, the sums that one process would make."""

import numpy as np
import pytest

from disttgl_hpc.errors import GridError, PeerError
from disttgl_hpc.grid import shared_memory as shared
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.memory.co_trained import RowSum, RowTable, StaticTable

NODES, DIM, STEPS = 29, 3, 5


def gradients_of(trainer, step, num_trainers):
    """What a trainer hands over in a step: rows of some nodes, of none in turn."""
    rng = np.random.default_rng(100 * step + trainer)
    count = 0 if (step + trainer) % (num_trainers + 1) == 0 else rng.integers(1, 12)
    return rng.choice(NODES, count, replace=False).astype(np.int64), rng.normal(size=(count, DIM)).astype(
        np.float32
    )


def expected_rows(num_trainers):
    table = RowTable(*(np.zeros((NODES, DIM), np.float32) for _ in range(3)), np.zeros(NODES, np.int64))
    for step in range(STEPS):
        parts = [gradients_of(trainer, step, num_trainers) for trainer in range(num_trainers)]
        table.update(RowSum(NODES).of(parts), 1 / 10, 0.01, 0.1)
    return table.rows


def open_table(grid):
    return StaticTable(grid, NODES, DIM, max_rows=12, rate=0.01, decay=0.1, timeout_s=20)


@pytest.mark.parametrize(
    ("num_nodes", "shape", "ranks"),
    [
        pytest.param(num_nodes, shape, ranks, marks=pytest.mark.ranks(ranks))
        for num_nodes, shape, ranks in (
            (1, GridShape(1, 1, 1), 1),
            (1, GridShape(1, 1, 1), 2),
            (1, GridShape(3, 1, 1), 4),
            (2, GridShape(1, 1, 2), 4),
        )
    ],
)
def test_all_nodes_learn_what_one_process_would(comm, on_all_ranks, num_nodes, shape, ranks):
    def body():
        node_comm = comm.Split(comm.rank * num_nodes // comm.size, comm.rank)
        grid = Grid.create(comm, shape, node_comm)
        learned = None
        if not grid.is_daemon:
            table = open_table(grid)
            table.compile()
            assert not table.table.rows.any()
            for step in range(STEPS):
                table.update(gradients_of(grid.trainer, step, shape.num_trainers), 10)
            learned = table.table.rows.tobytes()
            assert np.allclose(table.table.rows, expected_rows(shape.num_trainers), atol=1e-6)
            assert (table.sent_bytes > 0) == (num_nodes > 1)
            table.free()
        copies = {copy for copy in grid.world.allgather(learned) if copy is not None}
        grid.free()
        assert len(copies) == 1, "the same bits on every node"

    on_all_ranks(body)


@pytest.mark.ranks(4)
def test_a_table_is_filled_once_a_node(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm, GridShape(3, 1, 1))
        if not grid.is_daemon:
            table, calls = open_table(grid), []

            def fill(arrays):
                calls.append(sorted(arrays))
                for number, name in enumerate(calls[0]):
                    arrays[name][...] = number + 1

            table.load(fill)
            assert calls == (
                [["first_moment", "rows", "second_moment", "touched"]] if grid.trainer == 0 else []
            )
            assert (table.table.rows == 2).all()
            assert (table.table.touched == 4).all()
            table.free()
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(4)
def test_a_table_without_room_is_refused_on_all_trainers(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm, GridShape(3, 1, 1))

        def no_room(path):
            return shared.shutil._ntuple_diskusage(1, 1, 0)

        with pytest.MonkeyPatch.context() as patch:
            if grid.trainer == 1:
                patch.setattr(shared.shutil, "disk_usage", no_room)
            if not grid.is_daemon:
                error = GridError if grid.trainer == 1 else PeerError
                with pytest.raises(error, match=r"static memory need .* enlarge it"):
                    open_table(grid)
        grid.free()

    on_all_ranks(body)
