import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from thread_ranks import thread_ranks

from disttgl_hpc.errors import DeadlineError, GridError, PeerError
from disttgl_hpc.grid import shared_memory
from disttgl_hpc.grid.collectives import (
    Pause,
    allgather,
    allocate_shared,
    barrier,
    bcast,
    decide_together,
    dup,
    free,
    free_window,
    gather,
    join,
    node_comm_of,
    raise_together,
    receive,
    split,
    sum_in_place,
    together,
    wait_until,
)
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
        sum_in_place(comm, values, 20, "the sum")
        assert values.tolist() == [6, 10, 14]
        barrier(comm, 20, "the others")

    on_all_ranks(body)


@pytest.mark.parametrize("ranks", [pytest.param(n, marks=pytest.mark.ranks(n)) for n in (1, 2, 4)])
def test_values_of_any_size_reach_the_others(comm, on_all_ranks, ranks):
    def body():
        own = {"rank": comm.rank, "rows": np.full((comm.rank * 50_000, 2), comm.rank, np.float32)}
        expected = None if comm.rank else list(range(ranks))
        found = gather(comm, own, 20, "the rows")
        assert (found and [value["rank"] for value in found]) == expected
        assert all((value["rows"] == value["rank"]).all() for value in found or ())
        assert [len(value["rows"]) for value in allgather(comm, own, 20, "the rows")] == [
            rank * 50_000 for rank in range(ranks)
        ]
        shared = bcast(comm, own if comm.rank == ranks - 1 else None, 20, "the last one's", root=ranks - 1)
        assert shared["rank"] == ranks - 1
        assert decide_together(comm, lambda: comm.rank, 20, "decide") == 0
        joined = join(comm, np.full(comm.rank * 50_000, comm.rank, np.float32), 20, "the numbers")
        assert (joined is None) == bool(expected is None)
        if joined is not None:
            assert joined.tolist() == [rank for rank in range(ranks) for _ in range(rank * 50_000)]

    on_all_ranks(body)


OPERATIONS = {
    "barrier": lambda comm: barrier(comm, 0.4, "Godot"),
    "gather": lambda comm: gather(comm, "mine", 0.4, "Godot"),
    "allgather": lambda comm: allgather(comm, "mine", 0.4, "Godot"),
    "bcast": lambda comm: bcast(comm, "mine", 0.4, "Godot"),
    "join": lambda comm: join(comm, np.zeros(3, np.float32), 0.4, "Godot"),
    "receive": lambda comm: receive(comm, 0, 7, 0.4, "Godot"),
    "dup": lambda comm: dup(comm, 0.4, "Godot"),
    "split": lambda comm: split(comm, 0, 0.4, "Godot"),
    "node_comm_of": lambda comm: node_comm_of(comm, 0.4),
    "allocate_shared": lambda comm: allocate_shared(comm, 8, comm, 0.4, "Godot"),
    "free": lambda comm: free([comm], 0.4, "Godot"),
    "free_window": lambda comm: free_window(comm, None, 0.4, "Godot"),
    "decide_together": lambda comm: decide_together(comm, lambda: 0, 0.4, "come"),
}


@pytest.mark.ranks(2)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_pitfall_5_an_operation_that_a_rank_leaves_out_is_an_error(comm, on_all_ranks, operation):
    def body():
        part = comm.Dup()  # an operation that is given up would meet the next one
        if comm.rank == 1:
            started_s = time.process_time()
            with pytest.raises(DeadlineError, match=r"waited 0\.4 s for "):
                operation(part)
            assert time.process_time() - started_s < 0.2
        comm.barrier()

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
    raise_together(comm, None, 20)


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
def test_an_unexpected_error_of_one_rank_is_an_error_of_all(comm, on_all_ranks):
    def body():
        with pytest.raises(MemoryError if comm.rank else PeerError) as raised:
            fail_on_the_second_rank()
        assert comm.rank or "rank 1: MemoryError" in str(raised.value)

    def fail_on_the_second_rank():
        with together(comm, 20):
            if comm.rank:
                raise MemoryError

    on_all_ranks(body)


@pytest.mark.ranks(4)
def test_a_window_that_one_node_has_no_room_for_is_an_error_of_all(comm, on_all_ranks, monkeypatch):
    def body():
        node = comm.Split(comm.rank // 2, comm.rank)
        if comm.rank == 3:
            monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        expected = (GridError, "--shm-size") if comm.rank == 3 else (PeerError, "rank 3: .*--shm-size")
        with pytest.raises(expected[0], match=expected[1]):
            allocate_shared(node, 10**6, comm, 20, "numbers")
        monkeypatch.undo()
        window = allocate_shared(node, 8 * (node.rank + 1), comm, 20, "numbers")
        assert [bytes(window.Shared_query(rank)[0]) for rank in range(2)] == [bytes(8), bytes(16)]
        comm.barrier()
        free_window(node, window, 20, "numbers")
        free([node], 20, "the node")

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_a_ring_ends_a_sleep_and_is_forgotten(comm, on_all_ranks):
    def body():
        bell = Doorbell(comm, 20)
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


def test_a_bell_is_tried_by_more_ranks_than_its_socket_keeps_rings():
    size = 40
    with ThreadPoolExecutor(size) as pool:
        bells = list(pool.map(lambda comm: Doorbell(comm, 20), thread_ranks(size)))
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
        bell = Doorbell(comm, 20)
        if comm.rank == 1:
            bell.close()
        comm.barrier()
        if comm.rank == 0:
            bell.ring()
            bell.close()

    on_all_ranks(body)
