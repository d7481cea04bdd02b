import numpy as np
import pytest
from memory_requests import TIMEOUT_S, memory_run

from disttgl_hpc.grid.mpi_probe import clock_offsets
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape, replica_offset
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.daemon import serve_memory
from disttgl_hpc.memory.shared_tables import DAEMON_WORK, BoardWriter, board_size, read_board


def test_a_board_is_read_as_it_is_written():
    shape = GridShape(2, 1, 1)
    board = np.full(board_size(shape, num_replicas=2, num_traced=1), np.nan)
    writer = BoardWriter(board, range(5, 6))
    for counter in (4, 5, 6):
        for replica in (0, 1):
            for work in ("read", "write"):
                for part in (0, 1):
                    with writer(work, counter, replica, part):
                        pass
    with writer("wait"):
        pass
    writer.note_memory()
    found = read_board(board)
    assert list(found.seconds) == list(DAEMON_WORK)
    assert found.seconds["read"] > 0
    assert found.seconds["wait"] > 0
    assert found.seconds["snapshot"] == 0
    assert 1 < found.resident_mib <= found.peak_mib
    order = [(span.replica, span.name, span.minibatch) for span in found.spans]
    assert order == [(g, work, part) for g in (0, 1) for work in ("read", "write") for part in (0, 1)]
    assert {span.counter for span in found.spans} == {5}
    ends = [moment for span in found.spans for moment in (span.begin_s, span.end_s)]
    assert ends == sorted(ends)


def test_without_traced_steps_a_board_has_figures_only():
    board = np.empty(board_size(GridShape(2, 2, 2), num_replicas=2, num_traced=0))
    writer = BoardWriter(board, range(0))
    with writer("read", 0, 0, 0):
        pass
    assert read_board(board).spans == []
    assert len(board) < 16


@pytest.mark.ranks(5)
def test_every_trainer_sees_what_the_daemon_has_done_and_in_which_order(comm, on_all_ranks):
    """After the reply to R(c+1) all of W(c) is on the board: that is when timelines are gathered."""
    shape, num_batches, steps, traced = GridShape(1, 2, 2), 6, 12, range(3, 7)

    def body():
        grid = Grid.create(comm, shape)
        if grid.is_daemon:
            serve_memory(grid, memory_run(num_batches, steps, traced=traced))
        else:
            memory = open_memory(grid, memory_run(num_batches, steps, traced=traced))
            at = grid.coordinates
            for counter in range(at.epoch, steps, shape.epoch):
                memory.post_read(counter, np.arange(5))
                rows = memory.wait_read(counter)
                own = [s for s in memory.daemon_figures.spans if s.replica == at.memory]
                done = [(s.name, s.counter) for s in own if s.counter < counter]
                assert done == [(work, c) for c in traced if c < counter for work in ("read", "write")], (
                    replica_offset(at.memory, shape, num_batches)
                )
                memory.write(counter, np.arange(5), rows)
            memory.close()
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(4)
def test_one_machines_clock_is_no_further_from_itself_than_the_error_says(comm, on_all_ranks):
    def body():
        offsets = clock_offsets(comm, TIMEOUT_S)
        assert len(offsets) == (comm.size if comm.rank == 0 else 0)
        for offset_s, error_s in offsets:
            assert abs(offset_s) <= error_s < TIMEOUT_S

    on_all_ranks(body)
