import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import ProtocolError
from disttgl_hpc.grid.schedule import GridShape, OperationKind, replica_operations
from disttgl_hpc.memory.node_memory import MemorySizes, NodeMemory, OrderedMemory, SerialMemory

ONE = GridShape(1, 1, 1)


def serial(num_batches=3, steps=6, *, snapshots=(), num_nodes=5):
    memory = NodeMemory.zeros(num_nodes, 2)
    return SerialMemory(memory, replica_operations(0, ONE, num_batches, 0, steps, snapshots=snapshots))


def ids(*nodes):
    return np.array(nodes, np.int64)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_memory_is_a_table_of_rows(data):
    memory = NodeMemory.zeros(7, 2)
    table = {node: [0.0] * 4 for node in range(7)}
    for _ in range(data.draw(st.integers(1, 8))):
        nodes = data.draw(st.permutations(range(7)))[: data.draw(st.integers(0, 7))]
        rows = np.random.default_rng(len(nodes)).normal(size=(len(nodes), 4)).astype(np.float32)
        memory.write(ids(*nodes), rows)
        table.update(zip(nodes, rows.tolist(), strict=True))
        asked = data.draw(st.lists(st.integers(0, 6), max_size=9))
        assert memory.read(ids(*asked)).tolist() == [table[node] for node in asked]
    memory.reset()
    assert not memory.read(ids(*range(7))).any()


def test_a_read_is_a_copy_and_can_go_where_it_is_wanted():
    memory = NodeMemory.zeros(3, 1)
    out = np.ones((2, 2), np.float32)
    assert memory.read(ids(0, 2), out) is out
    assert not out.any()
    memory.read(ids(0))[:] = 9
    assert not memory.state.any()


@pytest.mark.parametrize("nodes", [ids(0, 3), ids(-1, 0)])
def test_unknown_nodes_are_refused(nodes):
    memory = NodeMemory.zeros(3, 1)
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        memory.read(nodes)
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        memory.write(nodes, np.ones((2, 2), np.float32))
    assert not memory.state.any()


def test_pitfall_14_two_rows_for_one_node_are_refused():
    with pytest.raises(ValueError, match="names each node once"):
        NodeMemory.zeros(3, 1).write(ids(2, 1, 2), np.ones((3, 2), np.float32))


def test_sizes_hold_the_largest_request_and_never_more_than_all_nodes():
    common = {"dim_memory": 100, "negatives_per_event": 2, "num_neighbors": 10}
    sizes = MemorySizes.of(num_nodes=10**6, local_batch=600, epoch=3, **common)
    assert (sizes.read_rows, sizes.write_rows, sizes.dim_row) == (600 * (2 + 3 * 2) * 11, 1200, 200)
    more = MemorySizes.of(num_nodes=10**6, local_batch=600, epoch=3, **common, other_partners=7)
    assert more.read_rows == sizes.read_rows + 7
    sizes = MemorySizes.of(num_nodes=50, local_batch=600, epoch=3, **common)
    assert (sizes.read_rows, sizes.write_rows) == (50, 50)


def test_a_posted_read_sees_the_writes_before_it():
    memory = serial()
    memory.post_read(0, ids(1))
    assert not memory.wait_read(0).any()
    memory.post_read(1, ids(1))  # as early as it likes
    memory.write(0, ids(1), np.full((1, 4), 7, np.float32))
    assert memory.wait_read(1).tolist() == [[7] * 4]


def test_a_sweep_begins_with_empty_memory():
    memory = serial(num_batches=1)
    for counter in range(3):
        memory.post_read(counter, ids(0))
        assert not memory.wait_read(counter).any()
        memory.write(counter, ids(0), np.ones((1, 4), np.float32))


def test_pitfall_3_evaluation_works_on_a_copy_of_the_memory_at_the_end_of_the_sweep():
    memory = serial(num_batches=2, snapshots=[0, 1])
    memory.post_read(0, ids(0))
    memory.wait_read(0)
    memory.write(0, ids(4), np.full((1, 4), 5, np.float32))
    copy = memory.snapshot(0)
    assert copy.tolist() == [[0] * 4] * 4 + [[5] * 4]
    copy[:] = -1
    memory.post_read(1, ids(0, 4))
    assert memory.wait_read(1).tolist() == [[0] * 4, [5] * 4]
    memory.write(1, ids(0), np.full((1, 4), 6, np.float32))
    assert memory.snapshot(1).tolist() == [[6] * 4] + [[0] * 4] * 3 + [[5] * 4]
    memory.post_read(2, ids(0, 4))
    assert not memory.wait_read(2).any()


def misuse_write_before_read(memory):
    memory.write(0, ids(0), np.zeros((1, 4), np.float32))


def misuse_skip_a_batch(memory):
    memory.post_read(1, ids(0))
    memory.wait_read(1)


def misuse_post_twice(memory):
    memory.post_read(0, ids(0))
    memory.post_read(1, ids(0))


def misuse_wait_for_nothing(memory):
    memory.wait_read(0)


def misuse_read_twice(memory):
    for _ in range(2):
        memory.post_read(0, ids(0))
        memory.wait_read(0)


def misuse_snapshot_that_nobody_planned(memory):
    memory.snapshot(0)


@pytest.mark.parametrize("misuse", [f for name, f in sorted(globals().items()) if name.startswith("misuse_")])
def test_calls_out_of_the_schedules_order_are_refused(misuse):
    with pytest.raises(ProtocolError, match=r"batch [01]"):
        misuse(serial())


def test_nothing_is_served_after_the_run():
    memory = serial(steps=1)
    memory.post_read(0, ids(0))
    memory.wait_read(0)
    memory.write(0, ids(0), np.zeros((1, 4), np.float32))
    memory.post_read(1, ids(0))
    with pytest.raises(ProtocolError, match="the run is over"):
        memory.wait_read(1)
    memory.close()


def test_the_record_is_the_schedule():
    shape = GridShape(2, 2, 2)
    record = []
    ordered = OrderedMemory(1, NodeMemory.zeros(4, 1), replica_operations(1, shape, 3, 0, 7), record)
    while ordered.next:
        due, none = ordered.next, ids()
        if due.kind is OperationKind.READ:
            ordered.read(due.counter, due.minibatch, none)
        else:
            ordered.write(due.counter, due.minibatch, none, np.zeros((0, 2), np.float32))
    assert record == list(replica_operations(1, shape, 3, 0, 7))
