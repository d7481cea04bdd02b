import os
import time

import numpy as np
import pytest
import torch
from memory_requests import SIZES, case, emulate, memory_run, request

from disttgl_hpc.errors import DeadlineError, GridError, PeerError, ProtocolError
from disttgl_hpc.grid import shared_memory as shared
from disttgl_hpc.grid.collectives import free_window
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import (
    GridShape,
    OperationKind,
    assignment,
    num_steps,
    replica_operations,
)
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.daemon import serve_memory
from disttgl_hpc.memory.node_memory import MemorySizes
from disttgl_hpc.memory.requests import Doorbell
from disttgl_hpc.memory.shared_tables import SharedTables, num_bytes, shared_arrays, table_shapes


def train(grid, memory, num_batches, steps, snapshots):
    """What a trainer does to its memory in a run, compared with the emulation; posts now early, now late."""
    shape, at = grid.shape, grid.coordinates
    reads, _ = emulate(at.memory, shape, num_batches, steps)
    _, first_replica = emulate(0, shape, num_batches, steps)
    rng = np.random.default_rng(grid.trainer)
    posted = set()

    def post(counter):
        if counter < steps and counter not in posted:
            memory.post_read(counter, request(at.memory, counter, at.minibatch, OperationKind.READ)[0])
            posted.add(counter)

    for step in range(steps):
        work = assignment(step, at, shape, num_batches)
        if work and work.reads:
            post(work.counter)
            rows = memory.wait_read(work.counter)
            np.testing.assert_array_equal(rows, reads[work.counter, at.minibatch])
            rows[:] = np.nan  # the caller's own
            moment = rng.integers(3)
            if moment == 0:
                post(work.counter + shape.epoch)
            memory.write(work.counter, *request(at.memory, work.counter, at.minibatch, OperationKind.WRITE))
            if moment == 1:
                post(work.counter + shape.epoch)
        if step in snapshots:
            copy = memory.snapshot(step)
            np.testing.assert_array_equal(copy, first_replica[step])
            memory.fence()
            copy[grid.local_trainer] = -1 - grid.local_trainer  # training must not see this, the node must
            memory.fence()
            others = range(grid.node_trainer_comm.size)
            assert [float(copy[other, 0]) for other in others] == [-1.0 - other for other in others]
    memory.close()


@pytest.mark.parametrize(
    ("shape", "num_nodes"),
    [
        case(1, "1x1x1"),
        case(2, "1x1x1"),
        case(3, "2x1x1"),
        case(3, "1x2x1"),
        case(3, "1x1x2"),
        case(4, "3x1x1"),
        case(4, "1x3x1"),
        case(4, "1x1x3"),
        case(4, "1x1x2", 2),
        case(5, "2x2x1"),
        case(9, "1x4x2"),
        case(9, "2x2x2"),
        case(10, "2x2x2", 2),
    ],
)
def test_training_under_a_daemon_is_the_serial_emulation(comm, on_all_ranks, shape, num_nodes):
    on_all_ranks(lambda: run(comm, shape, num_nodes))


def run(comm, shape, num_nodes=1):
    """A whole run of a grid on this rank, compared with the emulation and the schedule."""
    num_batches = 5
    steps = num_steps(3 * shape.epoch * shape.memory, shape, num_batches)
    snapshots = range(num_batches - 1, steps, num_batches)
    grid = Grid.create(comm, shape, comm.Split(comm.rank * num_nodes // comm.size, comm.rank))
    if grid.is_daemon:
        record = {}
        serve_memory(grid, memory_run(num_batches, steps, snapshots=snapshots), record=record)
        for replica in grid.local_replicas:
            due = () if replica else snapshots
            order = replica_operations(replica, shape, num_batches, 0, steps, snapshots=due)
            assert record.pop(replica) == list(order)
        assert not record
    else:
        memory = open_memory(grid, memory_run(num_batches, steps, snapshots=snapshots))
        train(grid, memory, num_batches, steps, snapshots)
    grid.free()


@pytest.mark.ranks(3)
def test_a_daemon_out_of_earshot_polls_and_says_so(comm, on_all_ranks, monkeypatch, caplog):
    monkeypatch.setattr(Doorbell, "ring", lambda bell: None)

    def body():
        run(comm, GridShape(1, 2, 1))
        assert ["polls" in message for message in caplog.messages] == [True] * (comm.rank == 2)

    on_all_ranks(body)


@pytest.mark.ranks(3)
def test_a_trainer_may_close_while_its_last_write_waits_for_another_slice(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm, GridShape(2, 1, 1))
        if grid.is_daemon:
            serve_memory(grid, memory_run(1, 1))
        else:
            memory = open_memory(grid, memory_run(1, 1))
            memory.post_read(0, np.arange(3))
            rows = memory.wait_read(0)
            if grid.trainer == 0:
                comm.recv(source=1)
            memory.write(0, np.arange(3), rows)
            if grid.trainer == 1:
                comm.isend("written, and about to close", 0).wait()
            memory.close()
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_pitfall_6_a_daemon_is_a_rank_that_may_have_used_threads_before(comm, on_all_ranks):
    def body():
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            before = num_threads()
            torch.rand(10**6).exp_()  # in parallel: starts threads, after which a fork could not reset
            assert num_threads() > before
            run(comm, GridShape(1, 1, 1))
        finally:
            torch.set_num_threads(threads)

    def num_threads():
        return len(os.listdir("/proc/self/task"))

    on_all_ranks(body)


# What is refused ----------------------------------------------------------------------------------------


def skips_a_batch(memory, nodes):
    memory.post_read(1, nodes)


def repeats_a_read(memory, nodes):
    memory.post_read(0, nodes)
    memory.wait_read(0)
    memory.post_read(0, nodes)


def writes_first(memory, nodes):
    memory.write(0, nodes, np.zeros((len(nodes), SIZES.dim_row), np.float32))


def writes_twice(memory, nodes):
    memory.post_read(0, nodes)
    memory.wait_read(0)
    for _ in range(2):
        memory.write(0, nodes, np.zeros((len(nodes), SIZES.dim_row), np.float32))


def leaves_a_read_behind(memory, nodes):
    memory.post_read(0, nodes)
    memory.wait_read(0)
    memory.post_read(1, nodes)
    memory._tell(-1, 0, 0)


def takes_a_snapshot_that_nobody_planned(memory, nodes):
    memory._ask(OperationKind.SNAPSHOT, 0, 0)


def asks_after_the_run(memory, nodes):
    for counter in range(4):
        memory.post_read(counter, nodes)
        memory.wait_read(counter)
        memory.write(counter, nodes, np.zeros((len(nodes), SIZES.dim_row), np.float32))
    memory.post_read(4, nodes)


@pytest.mark.ranks(2)
@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (skips_a_batch, r"rank 0 .*: READ of batch 1 is out of order, the schedule has that of batch 0"),
        (repeats_a_read, r"rank 0 .*: READ of batch 0 is out of order, the schedule has that of batch 1"),
        (writes_first, r"rank 0 .*: WRITE of batch 0 is out of order, the schedule has none now"),
        (writes_twice, r"rank 0 .*: WRITE of batch 0 is out of order, the schedule has none now"),
        (
            leaves_a_read_behind,
            r"rank 0 .* closed before its READ of batch 1 had its turn: replica 0: WRITE of batch 0",
        ),
        (takes_a_snapshot_that_nobody_planned, r"SNAPSHOT of batch 0 is out of order"),
        (asks_after_the_run, r"READ of batch 4 is out of order, the schedule has none now"),
    ],
)
def test_the_daemon_refuses_what_the_schedule_does_not_have(comm, on_all_ranks, misuse, words):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            with pytest.raises(ProtocolError, match=words):
                serve_memory(grid, memory_run(4, 4))
        else:
            memory = open_memory(grid, memory_run(4, 4))
            misuse(memory, np.arange(3))
            memory._doorbell.close()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_pitfall_5_a_silent_trainer_and_a_silent_daemon_are_deadline_errors(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            words = r"waited 0\.2 s for .*replica 0: READ of batch 0, slice 0 from rank 0"
            with pytest.raises(DeadlineError, match=words):
                serve_memory(grid, memory_run(4, 4, timeout_s=0.2))
        memory = None if grid.is_daemon else open_memory(grid, memory_run(4, 4, timeout_s=0.2))
        comm.barrier()
        if memory:
            memory.post_read(0, np.arange(3))
            with pytest.raises(
                DeadlineError, match=r"waited 0\.2 s for the memory daemon's reply to READ of batch 0"
            ):
                memory.wait_read(0)
            memory._doorbell.close()

    on_all_ranks(body)


def take_step(grid, memory, step):
    """One trainer's requests of a step, its next read posted as early as it may be."""
    work, nodes = assignment(step, grid.coordinates, grid.shape, 2), np.arange(3)
    if work and work.reads:
        if step == grid.coordinates.epoch:
            memory.post_read(work.counter, nodes)
        rows = memory.wait_read(work.counter)
        if step + grid.shape.epoch < 6:
            memory.post_read(work.counter + grid.shape.epoch, nodes)
        memory.write(work.counter, nodes, rows)
    grid.trainer_comm.barrier()  # as the sum of gradients is


@pytest.mark.parametrize(("shape", "num_nodes"), [case(3, "1x2x1"), case(4, "1x1x2", 2)])
def test_an_evaluation_that_gets_on_may_last_longer_than_the_deadline(comm, on_all_ranks, shape, num_nodes):
    deadline_s, num_batches, batch_s, snapshots = 3.0, 8, 0.5, (1, 3, 5)

    def body():
        grid = Grid.create(comm, shape, comm.Split(comm.rank * num_nodes // comm.size, comm.rank))
        if grid.is_daemon:
            serve_memory(grid, memory_run(2, 6, snapshots=snapshots, timeout_s=deadline_s))
        else:
            memory = open_memory(grid, memory_run(2, 6, snapshots=snapshots))
            for step in range(6):
                take_step(grid, memory, step)
                if step in snapshots:
                    memory.snapshot(step)
                for _ in range(num_batches if step == 3 else 0):
                    time.sleep(batch_s)
                    memory.fence()
            memory.close()
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_pitfall_5_a_trainer_that_is_stuck_in_an_evaluation_is_a_deadline_error(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            with pytest.raises(DeadlineError, match=r"waited 0\.3 s"):
                serve_memory(grid, memory_run(2, 6, snapshots=(1, 3, 5), timeout_s=0.3))
        else:
            memory = open_memory(grid, memory_run(2, 6, snapshots=(1, 3, 5)))
            for step in range(2):
                take_step(grid, memory, step)
            memory.snapshot(1)
            memory.fence()
            memory._doorbell.close()
        comm.barrier()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_pitfall_5_a_step_after_an_evaluation_has_a_deadline_again(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            with pytest.raises(DeadlineError, match=r"waited 0\.3 s for .*replica 0: WRITE of batch 3"):
                serve_memory(grid, memory_run(2, 6, snapshots=(1, 3, 5), timeout_s=0.3))
        else:
            memory = open_memory(grid, memory_run(2, 6, snapshots=(1, 3, 5)))
            for step in range(3):
                take_step(grid, memory, step)
                if step == 1:
                    memory.snapshot(step)
            memory._doorbell.close()

    on_all_ranks(body)


@pytest.mark.ranks(3)
def test_a_trainer_that_fails_alone_fails_its_daemon(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm, GridShape(1, 2, 1))
        if grid.is_daemon:
            with pytest.raises(PeerError, match=r"rank 1 .* has failed"):
                serve_memory(grid, memory_run(4, 4))
        else:
            memory = open_memory(grid, memory_run(4, 4))
            if grid.trainer == 1:
                memory.abandon()
            memory._doorbell.close()
        comm.barrier()

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_a_client_checks_what_only_it_can_know(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            serve_memory(grid, memory_run(4, 4))
        else:
            memory = open_memory(grid, memory_run(4, 4))
            with pytest.raises(ProtocolError, match="read of batch 0: 26 nodes, its slot holds 25"):
                memory.post_read(0, np.arange(26))
            memory.post_read(0, np.arange(3))
            with pytest.raises(ProtocolError, match="batch 1 posted before that of 0 was taken"):
                memory.post_read(1, np.arange(3))
            memory.wait_read(0)
            with pytest.raises(ProtocolError, match="batch 0 awaited, posted was None"):
                memory.wait_read(0)
            with pytest.raises(ProtocolError, match="write of batch 0: 11 nodes, its slot holds 10"):
                memory.write(0, np.arange(11), np.zeros((11, SIZES.dim_row), np.float32))
            memory.close()
        grid.free()

    on_all_ranks(body)


@pytest.mark.ranks(4)
def test_too_little_shared_memory_is_refused_on_all_ranks(comm, on_all_ranks, monkeypatch):
    def body():
        grid = Grid.create(comm, GridShape(1, 1, 2), comm.Split(comm.rank // 2, comm.rank))
        if grid.node == 1:
            monkeypatch.setattr(shared.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
        expected = (GridError, "--shm-size") if grid.node == 1 else (PeerError, "rank 2: .*--shm-size")
        opening = serve_memory if grid.is_daemon else open_memory
        with pytest.raises(expected[0], match=expected[1]):
            opening(grid, memory_run(4, 4))
        grid.free()

    on_all_ranks(body)


# Costs --------------------------------------------------------------------------------------------------


@pytest.mark.ranks(2)
def test_an_idle_daemon_sleeps(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            started_s, started_cpu_s = time.monotonic(), time.process_time()
            with pytest.raises(DeadlineError):
                serve_memory(grid, memory_run(4, 4, timeout_s=1.0))
            assert time.process_time() - started_cpu_s < 0.1 * (time.monotonic() - started_s)
        else:
            open_memory(grid, memory_run(4, 4, timeout_s=1.0))._doorbell.close()

    on_all_ranks(body)


def test_pitfall_8_rows_do_not_grow_with_the_square_of_j():
    page, dim_memory = 4096, 100

    def slots(j):
        sizes = MemorySizes.of(
            num_nodes=10**8,
            dim_memory=dim_memory,
            local_batch=3200,
            epoch=j,
            negatives_per_event=1,
            num_neighbors=10,
        )
        shapes = table_shapes(sizes, GridShape(1, j, 1), num_replicas=1)
        return {
            name: num_bytes({name: shapes[name]}) for name in shapes if name not in ("state", "evaluation")
        }

    rows = [slots(j)["reply_rows"] + slots(j)["write_rows"] for j in (1, 2, 3)]
    assert rows[2] - rows[1] == rows[1] - rows[0], "each of the j negative sets adds its nodes to one slot"
    for j in (1, 2, 3, 8):
        assert slots(j)["read_nodes"] <= slots(j)["reply_rows"] * j / dim_memory + page, (
            "ids, 1/d of their rows"
        )
    assert sum(slots(8).values()) < 0.4e9, "where the reference takes 8 GB"


@pytest.mark.ranks(2)
def test_tables_are_the_same_bytes_on_every_rank(comm, on_all_ranks):
    def body():
        shapes = table_shapes(SIZES, GridShape(1, 1, 1), num_replicas=1)
        arrays, window = shared_arrays(comm, shapes, comm, 20, "tables")
        tables = SharedTables(**arrays, window=window)
        for index, (name, (shape, dtype)) in enumerate(shapes.items()):
            table = getattr(tables, name)
            assert (table.shape, table.dtype) == (shape, np.dtype(dtype))
            if comm.rank == index % 2:
                table[...] = index + 1
        tables.sync()
        comm.barrier()
        tables.sync()
        for index, name in enumerate(shapes):
            assert (getattr(tables, name) == index + 1).all()
        comm.barrier()
        free_window(comm, tables.window, 20, "the other rank")

    on_all_ranks(body)
