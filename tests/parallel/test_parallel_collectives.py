import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from disttgl_hpc.errors import DeadlineError, GridError, PeerError
from disttgl_hpc.grid.collectives import Pause, raise_together, sleeping_barrier, sleeping_sum, wait_until
from disttgl_hpc.memory.requests import Doorbell


def test_a_wait_ends_when_its_condition_holds():
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), 5, "the third answer")
    assert next(answers, None) is None


def test_a_wait_has_a_deadline_and_a_name():
    started_s = time.monotonic()
    with pytest.raises(DeadlineError, match=r"waited 0\.05 s for Godot: .*--timeout-s"):
        wait_until(lambda: False, 0.05, "Godot")
    assert time.monotonic() - started_s >= 0.05


def test_sleeps_lengthen_until_woken():
    slept, wakes = [], iter([False, False, False, True, False, False])
    pause = Pause(
        60, lambda: "", first_s=1, longest_s=5, growth=2, sleep=lambda s: slept.append(s) or next(wakes)
    )
    for _ in range(6):
        pause.sleep()
    assert slept == [1, 2, 4, 5, 1, 2]


def test_sleeps_after_a_restart_are_short_or_as_asked():
    slept = []
    pause = Pause(60, lambda: "", first_s=1, longest_s=5, growth=2, sleep=slept.append)
    for restart in ({}, {"sleep_s": 4}, {}):
        pause.restart(**restart)
        pause.sleep()
        pause.sleep()
    assert slept == [1, 2, 4, 5, 1, 2]


def test_a_wait_sleeps():
    started_s = time.process_time()
    with pytest.raises(DeadlineError):
        wait_until(lambda: False, 0.4, "nothing")
    assert time.process_time() - started_s < 0.2


@pytest.mark.ranks(4)
def test_sum_and_barrier(comm, on_all_ranks):
    def body():
        values = np.arange(3, dtype=np.float32) + comm.rank
        sleeping_sum(comm, values, 20, "the sum")
        assert values.tolist() == [6, 10, 14]
        sleeping_barrier(comm, 20, "the others")

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_pitfall_5_a_rank_that_does_not_come_is_an_error_and_no_hang(comm, on_all_ranks):
    def body():
        if comm.rank == 0:
            with pytest.raises(DeadlineError, match=r"waited 0\.2 s for rank 1"):
                wait_until(comm.Irecv(np.zeros(1), 1, 5).Test, 0.2, "rank 1")
        comm.barrier()
        if comm.rank == 1:
            comm.Send(np.zeros(1), 0, 5)

    on_all_ranks(body)


@pytest.mark.ranks(1)
def test_nobody_fails(comm):
    raise_together(comm, None)


@pytest.mark.ranks(4)
def test_fail_together(comm, on_all_ranks):
    def body():
        mine = GridError(f"no room on {comm.rank}") if comm.rank in (1, 2) else None
        expected = (GridError, f"no room on {comm.rank}") if mine else (PeerError, "rank 1: no room on 1")
        with pytest.raises(expected[0], match=expected[1]):
            raise_together(comm, mine, 20)
        raise_together(comm, None, 20)

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_a_ring_ends_a_sleep_and_is_forgotten(comm, on_all_ranks):
    def body():
        bell = Doorbell(comm)
        if comm.rank == 0:
            bell.ring()
            bell.ring()
        comm.barrier()
        if comm.rank == 1:
            started_s = time.monotonic()
            heard = [bell.sleep(10)]
            rung_s = time.monotonic() - started_s
            heard.append(bell.sleep(0.05))
            silent_s = time.monotonic() - started_s - rung_s
        comm.barrier()
        bell.close()
        if comm.rank == 1:
            assert bell.is_heard
            assert heard == [True, False]
            assert rung_s < 5
            assert silent_s >= 0.05
        if comm.rank == 0:
            with pytest.raises(OSError, match=r"closed|descriptor"):
                bell._socket.getsockname()

    on_all_ranks(body)


class Thread:
    """One of several threads as a rank: what a doorbell asks of a communicator."""

    def __init__(self, rank, size, barrier, board):
        self.rank, self.size, self.Barrier, self._board = rank, size, barrier.wait, board

    def bcast(self, value, root):
        if self.rank == root:
            self._board.append(value)
        self.Barrier()
        return self._board[0]


def test_a_bell_is_tried_by_more_ranks_than_its_socket_keeps_rings():
    size = 40
    barrier, board = threading.Barrier(size, timeout=20), []
    with ThreadPoolExecutor(size) as pool:
        ranks = [Thread(rank, size, barrier, board) for rank in range(size)]
        bells = list(pool.map(Doorbell, ranks))
    assert bells[-1].is_heard
    assert not bells[-1].sleep(0), "the trials are forgotten"
    for _ in range(3):
        for bell in bells[:-1]:
            bell.ring()
    assert bells[-1].sleep(10), "rings that find no room are dropped, and wake all the same"
    for bell in bells:
        bell.close()


@pytest.mark.ranks(2)
def test_a_ring_at_a_closed_door_is_no_error(comm, on_all_ranks):
    def body():
        bell = Doorbell(comm)
        if comm.rank == 1:
            bell.close()
        comm.barrier()
        if comm.rank == 0:
            bell.ring()
            bell.close()

    on_all_ranks(body)
