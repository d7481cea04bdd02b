"""Checkpoints through the daemons: what they copy and when, who is told, ending early, and going on."""

from dataclasses import dataclass

import numpy as np
import pytest
from memory_requests import case, emulate, memory_run, request

from disttgl_hpc.errors import StoreError
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import OperationKind, assignment, first_counter, replica_offset
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.daemon import serve_memory
from disttgl_hpc.memory.node_memory import Beginning

NUM_BATCHES, STEPS, STOP = 5, 15, 8
SWEEP_ENDS = range(NUM_BATCHES - 1, STEPS, NUM_BATCHES)


class Recorder:
    """A writer that keeps what it is given."""

    def __init__(self, node):
        self.node, self.parts, self.complete_ones = node, {}, []

    def write_part(self, counter, arrays):
        self.parts[counter] = {name: array.copy() for name, array in arrays.items()}
        return f"part {self.node} of {counter}"

    def complete(self, counter, checksums):
        self.complete_ones.append((counter, list(checksums)))


@dataclass(frozen=True)
class Emulated(Beginning):
    """Goes on from the emulation's memory."""

    shape: object = None

    def load_memory(self, replica, out):
        if self.step:
            out[:] = emulate(replica, self.shape, NUM_BATCHES, STEPS)[1][self.step - 1]


def take_steps(grid, memory, steps, end):
    """A trainer's requests, a checkpoint after every step; reads are posted as early as they may be."""
    at, shape = grid.coordinates, grid.shape
    reads, _ = emulate(at.memory, shape, NUM_BATCHES, STEPS)

    def post(counter):
        if counter < STEPS:
            memory.post_read(counter, request(at.memory, counter, at.minibatch, OperationKind.READ)[0])

    post(first_counter(steps.start, at.epoch, shape))
    for step in steps:
        work = assignment(step, at, shape, NUM_BATCHES)
        if work and work.reads:
            rows = memory.wait_read(step)
            np.testing.assert_array_equal(rows, reads[step, at.minibatch])
            post(step + shape.epoch)
            memory.write(step, *request(at.memory, step, at.minibatch, OperationKind.WRITE))
        grid.trainer_comm.barrier()  # as the sum of gradients is
        memory.checkpoint(step, {f"trainers/{grid.trainer}": np.array([step])})
        if step in SWEEP_ENDS:
            memory.snapshot(step)
    memory.flush()
    memory.close(early=steps.stop < end)


def expected_part(grid, counter):
    """What a node's part holds after batch ``counter``: zeros where a new sweep has been prepared already."""
    arrays = {}
    for replica in grid.local_replicas:
        state = emulate(replica, grid.shape, NUM_BATCHES, STEPS)[1][counter]
        ends = (counter + 1 + replica_offset(replica, grid.shape, NUM_BATCHES)) % NUM_BATCHES == 0
        is_reset = ends and replica > 0 and counter + 1 < STEPS
        arrays[f"memory/{replica}"] = np.zeros_like(state) if is_reset else state
    count = len(grid.local_replicas) * grid.shape.trainers_per_replica
    for trainer in range(grid.node * count, (grid.node + 1) * count):
        arrays[f"trainers/{trainer}"] = np.array([counter])
    return arrays


@pytest.mark.parametrize(
    ("shape", "num_nodes"),
    [
        case(1, "1x1x1"),
        case(2, "1x1x1"),
        case(3, "1x2x1"),
        case(4, "1x1x2", 2),
        case(9, "2x2x2"),
        case(10, "2x2x2", 2),
    ],
)
def test_jobs_that_end_early_and_go_on_keep_every_step(comm, on_all_ranks, shape, num_nodes):
    def body():
        for steps in (range(STOP), range(STOP, STEPS)):
            grid = Grid.create(comm, shape, comm.Split(comm.rank * num_nodes // comm.size, comm.rank))
            writer = Recorder(grid.node)
            beginning = Emulated(steps.start, shape)
            run = memory_run(NUM_BATCHES, STEPS, snapshots=SWEEP_ENDS, beginning=beginning, writer=writer)
            if grid.is_daemon:
                assert serve_memory(grid, run) is (steps.stop == STEPS)
            else:
                take_steps(grid, open_memory(grid, run), steps, STEPS)
            if grid.is_daemon or grid.is_serial:
                assert sorted(writer.parts) == list(steps)
                for counter, arrays in writer.parts.items():
                    np.testing.assert_equal(arrays, expected_part(grid, counter))
                whole = [(c, [f"part {n} of {c}" for n in range(num_nodes)]) for c in steps]
                assert writer.complete_ones == ([] if grid.node else whole)
            grid.free()

    on_all_ranks(body)


class Full:
    """A writer to a full disk."""

    def write_part(self, counter, arrays):
        raise StoreError(f"no room for {counter}")

    def complete(self, counter, checksums):
        raise AssertionError("nothing was written")


@pytest.mark.ranks(1)
def test_a_serial_run_hears_of_a_full_disk_at_the_next_checkpoint(comm):
    memory = open_memory(Grid.create(comm), memory_run(4, 4, writer=Full()))
    memory.checkpoint(0, {})
    with pytest.raises(StoreError, match="no room for 0"):
        memory.checkpoint(1, {})
    memory.close()


@pytest.mark.ranks(2)
def test_a_daemon_hears_of_a_full_disk(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            with pytest.raises(StoreError, match="no room for 0"):
                serve_memory(grid, memory_run(4, 4, writer=Full()))
        else:
            memory = open_memory(grid, memory_run(4, 4))
            memory.post_read(0, np.arange(3))
            memory.write(0, np.arange(3), memory.wait_read(0))
            memory.checkpoint(0, {})
            memory._doorbell.close()

    on_all_ranks(body)


@pytest.mark.ranks(3)
def test_a_daemon_that_is_asked_to_stop_tells_its_trainers(comm, on_all_ranks):
    def body():
        grid = Grid.create(comm)
        if grid.is_daemon:
            serve_memory(grid, memory_run(4, 1), is_stop_asked=lambda: True)
        else:
            memory = open_memory(grid, memory_run(4, 1))
            memory.post_read(0, np.arange(3))
            rows = memory.wait_read(0)
            assert memory.is_stop_asked
            memory.write(0, np.arange(3), rows)
            memory.close()
        grid.free()

    on_all_ranks(body)
