"""Node memory of one replica: its rows, the order of operations on it, and the service that trainers use.

A row is (memory ‖ peer), 2·d floats: the node's own memory and that of the partner in its last event. With
the event's features this is the node's mail, whose first half would only repeat the memory (TGN, eq. 1).

A checkpoint is taken between two steps, after all writes of batch c and before any write of batch c+1. The
state of a run is then its weights and optimiser, the memory of every replica, and the memory that trainers
hold for further passes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ProtocolError
from disttgl_hpc.grid.collectives import DEFAULT_TIMEOUT_S, wait_until
from disttgl_hpc.grid.schedule import GridShape, Operation, OperationKind, replica_operations

Arrays = Mapping[str, NDArray[Any]]


class CheckpointWriter(Protocol):
    """Makes checkpoints durable; called from a side thread, one call at a time."""

    def write_part(self, counter: int, arrays: Arrays) -> str:
        """Write this node's part of the checkpoint after batch ``counter``; returns the file's checksum."""

    def complete(self, counter: int, checksums: Sequence[str]) -> None:
        """All nodes' parts are written: make the checkpoint valid, by their checksums in the nodes' order."""


class NoCheckpoints:
    """Takes no checkpoints, for measurements."""

    def write_part(self, counter: int, arrays: Arrays) -> str:
        """Write nothing."""
        return ""

    def complete(self, counter: int, checksums: Sequence[str]) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Beginning:
    """The beginning of a run: here from nothing, in subclasses from a checkpoint.

    step: the first step.
    """

    step: int = 0

    def load_memory(self, replica: int, out: NDArray[np.float32]) -> None:
        """Fill ``out`` (N, 2·dim_memory) with a replica's memory as of the step before, if there was one."""


Rows = NDArray[np.float32]
Nodes = NDArray[np.int64]


@dataclass(frozen=True)
class MemorySizes:
    """Sizes of a replica's memory and its requests.

    num_nodes: N. dim_memory: d; a row has 2·d floats. read_rows, write_rows: the most distinct nodes that one
    request of one trainer can name.
    """

    num_nodes: int
    dim_memory: int
    read_rows: int
    write_rows: int

    @classmethod
    def of(
        cls,
        *,
        num_nodes: int,
        dim_memory: int,
        local_batch: int,
        epoch: int,
        negatives_per_event: int,
        num_neighbors: int,
        other_partners: int = 0,
    ) -> MemorySizes:
        """Sizes for slices of b events: b·(2 + j·m)·(1 + K) nodes read, 2·b written, never more than N.

        One read serves all j passes, so the roots are sources, destinations and j sets of negatives.
        other_partners: the most nodes that are read besides, see ``sampling.mail.graph_with_partners``.
        """
        roots = local_batch * (2 + epoch * negatives_per_event)
        return cls(
            num_nodes=num_nodes,
            dim_memory=dim_memory,
            read_rows=min(num_nodes, roots * (1 + num_neighbors) + other_partners),
            write_rows=min(num_nodes, 2 * local_batch),
        )

    @property
    def dim_row(self) -> int:
        """Floats of a row, 2·d."""
        return 2 * self.dim_memory


@dataclass(frozen=True, kw_only=True)
class MemoryRun:
    """What trainers and daemons agree on before they open the node memory of a run; equal on all ranks.

    num_batches: L, global batches of a sweep. num_steps: the step before which the run ends. snapshots:
    counters after which replica 0's memory is copied for evaluation. traced: counters whose reads and writes
    the daemon records one by one. timeout_s: deadline of every wait for another rank, in seconds.
    """

    sizes: MemorySizes
    num_batches: int
    num_steps: int
    traced: range = range(0)
    snapshots: Container[int] = ()
    beginning: Beginning = field(default_factory=Beginning)
    writer: CheckpointWriter = field(default_factory=NoCheckpoints)
    timeout_s: float

    @property
    def steps(self) -> range:
        """Steps from the beginning to the end of the run."""
        return range(self.beginning.step, self.num_steps)

    def operations(self, replica: int, shape: GridShape) -> Iterator[Operation]:
        """Order of operations on a replica's memory; evaluation copies replica 0's only."""
        snapshots = () if replica else self.snapshots
        steps = self.steps
        return replica_operations(
            replica, shape, self.num_batches, steps.start, steps.stop, snapshots=snapshots
        )


class NodeMemory:
    """Rows (memory ‖ peer) of all nodes: (N, 2·d) float32, zero for nodes without events."""

    def __init__(self, state: Rows) -> None:
        """Work on ``state`` (N, 2·d) float32 in place, wherever it lies."""
        self.state = state

    @classmethod
    def zeros(cls, num_nodes: int, dim_memory: int) -> NodeMemory:
        """Memory of ``num_nodes`` nodes without events."""
        return cls(np.zeros((num_nodes, 2 * dim_memory), np.float32))

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.state)

    def read(self, nodes: Nodes, out: Rows | None = None) -> Rows:
        """Copy of the rows of nodes (n,) → (n, 2·d) float32, into ``out`` if given.

        Raises IndexError for a node outside [0, N).
        """
        self._check(nodes)
        # mode="raise" would buffer the output; the nodes have just been checked.
        return np.take(self.state, nodes, axis=0, out=out, mode="clip")

    def write(self, nodes: Nodes, rows: Rows) -> None:
        """Replace the rows of nodes (n,), all distinct, by rows (n, 2·d) float32.

        Raises IndexError for a node outside [0, N), ValueError for a node named twice: which of two rows
        would win is undefined, so "the last event wins" is the caller's to decide.
        """
        self._check(nodes)
        ascending = bool((nodes[1:] > nodes[:-1]).all())
        if not ascending and len(np.unique(nodes)) != len(nodes):
            raise ValueError(f"a write names each node once, got {len(nodes)} rows for fewer; keep the last")
        self.state[nodes] = rows

    def reset(self) -> None:
        """Zero the memory: a new sweep begins."""
        self.state[:] = 0

    def _check(self, nodes: Nodes) -> None:
        if len(nodes) and not (nodes.min() >= 0 and nodes.max() < self.num_nodes):
            raise IndexError(f"nodes lie in [0, {self.num_nodes}): got {nodes.min()} … {nodes.max()}")


class OrderedMemory:
    """Node memory of one replica that takes operations in the schedule's order only.

    next: the operation that is due, None after the last. Resets are not requested and never due: they are
    done as soon as their turn comes. record: if given, every operation is appended to it once it is done.
    """

    def __init__(
        self,
        replica: int,
        memory: NodeMemory,
        operations: Iterator[Operation],
        record: list[Operation] | None = None,
    ) -> None:
        self.replica = replica
        self.memory = memory
        self._operations = operations
        self._record = record
        self.next = next(operations, None)
        self._reset_if_due()

    def read(self, counter: int, minibatch: int, nodes: Nodes, out: Rows | None = None) -> Rows:
        """R(counter) of one slice: rows of nodes (n,) → (n, 2·d). Raises ProtocolError out of turn."""
        self._check_turn(OperationKind.READ, counter, minibatch)
        rows = self.memory.read(nodes, out)
        self._advance()
        return rows

    def write(self, counter: int, minibatch: int, nodes: Nodes, rows: Rows) -> None:
        """W(counter) of one slice. Raises ProtocolError out of turn."""
        self._check_turn(OperationKind.WRITE, counter, minibatch)
        self.memory.write(nodes, rows)
        self._advance()

    def snapshot(self, counter: int, out: Rows) -> None:
        """Copy the memory after W(counter) into ``out`` (N, 2·d). Raises ProtocolError out of turn."""
        self._check_turn(OperationKind.SNAPSHOT, counter, 0)
        np.copyto(out, self.memory.state)
        self._advance()

    def _check_turn(self, kind: OperationKind, counter: int, minibatch: int) -> None:
        """Raise ProtocolError unless this operation is the next one."""
        due = self.next
        if due is None or (due.kind, due.counter, due.minibatch) != (kind, counter, minibatch):
            raise ProtocolError(
                f"replica {self.replica}: {describe(due)} is next in the schedule, "
                f"got {kind.name} of batch {counter}, slice {minibatch}; "
                "every rank must run the same schedule"
            )

    def _finish(self) -> None:
        """The operation that was due is done."""
        if self._record is not None and self.next is not None:
            self._record.append(self.next)
        self.next = next(self._operations, None)

    def _advance(self) -> None:
        self._finish()
        self._reset_if_due()

    def _reset_if_due(self) -> None:
        if self.next is not None and self.next.kind is OperationKind.RESET:
            self.memory.reset()
            self._finish()


def describe(operation: Operation | None) -> str:
    """An operation in words, for messages."""
    if operation is None:
        return "nothing (the run is over)"
    return f"{operation.kind.name} of batch {operation.counter}, slice {operation.minibatch}"


class MemoryService(Protocol):
    """Node memory as a trainer uses it; counters are those of :class:`~.schedule.Assignment`.

    The order of calls per batch is post_read, wait_read, write; the next post_read may come any time after
    wait_read, however early, and is answered as soon as all writes before it have landed.
    """

    def post_read(self, counter: int, nodes: Nodes) -> None:
        """Ask for R(counter) of nodes (n,) int64, without waiting; ``nodes`` must not be changed."""

    def wait_read(self, counter: int) -> Rows:
        """Rows (n, 2·d) float32 requested by post_read; the caller may modify them. Raises DeadlineError."""

    def write(self, counter: int, nodes: Nodes, rows: Rows) -> None:
        """W(counter): new rows (n, 2·d) float32 of distinct nodes (n,) int64. Both may be reused at once."""

    def snapshot(self, counter: int) -> Rows:
        """Replica 0's memory after W(counter), (N, 2·d) float32: a copy that training does not touch.

        Collective over all trainers, for the counters that the run was opened with, after this step's write
        and before waiting for any later read. The copy may be modified until the next snapshot, and is shared
        by the trainers of a node, who meet in :meth:`fence` between writing it and reading what others wrote.
        It is gone after :meth:`close`.
        """

    def fence(self) -> None:
        """Collective over a node's trainers: all have finished with the copy and see what each wrote."""

    def checkpoint(self, counter: int, own: Arrays) -> None:
        """Keep every replica's memory after W(counter) with ``own``, this trainer's share of the checkpoint.

        Collective over all trainers, for any counter, after this step's gradients are summed and before the
        next write. Returns before the checkpoint is on disk. Raises StoreError if an earlier one could not be
        written.
        """

    def flush(self) -> None:
        """Collective over all trainers: wait until all checkpoints are on disk. Raises as checkpoint does."""

    @property
    def is_stop_asked(self) -> bool:
        """Whether the rank that serves this trainer was asked to stop."""

    def close(self, *, early: bool = False) -> None:
        """Collective over all ranks. ``early``: before the schedule's end."""

    def abandon(self) -> None:
        """After an error of this trainer, instead of close: its daemon fails too, instead of waiting."""


class SerialMemory:
    """The memory service of one process that is the only trainer: same order, same checks, no messages."""

    is_stop_asked = False

    def __init__(
        self,
        memory: NodeMemory,
        operations: Iterator[Operation],
        writer: CheckpointWriter = NoCheckpoints(),  # noqa: B008 - it has no state
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._ordered = OrderedMemory(0, memory, operations)
        self._posted: tuple[int, Nodes] | None = None
        self._copy: Rows | None = None
        self._writer, self._timeout_s = writer, timeout_s
        self._side_thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def post_read(self, counter: int, nodes: Nodes) -> None:
        """Keep the nodes; the rows are gathered by wait_read, after any write before it."""
        if self._posted is not None:
            raise ProtocolError(f"read of batch {counter} posted before that of {self._posted[0]} was taken")
        self._posted = counter, nodes

    def wait_read(self, counter: int) -> Rows:
        """Rows of the posted nodes. Raises ProtocolError if another batch was posted or is due."""
        posted, self._posted = self._posted, None
        if posted is None or posted[0] != counter:
            raise ProtocolError(f"read of batch {counter} awaited, posted was {posted and posted[0]}")
        return self._ordered.read(counter, 0, posted[1])

    def write(self, counter: int, nodes: Nodes, rows: Rows) -> None:
        """Replace rows at once."""
        self._ordered.write(counter, 0, nodes, rows)

    def snapshot(self, counter: int) -> Rows:
        """Copy of the whole memory; the array is reused by the next snapshot."""
        if self._copy is None:
            self._copy = np.empty_like(self._ordered.memory.state)
        self._ordered.snapshot(counter, self._copy)
        return self._copy

    def fence(self) -> None:
        """Nothing to wait for."""

    def checkpoint(self, counter: int, own: Arrays) -> None:
        """Copy the memory and have it written; waits for the previous checkpoint, if that is not written yet."""
        self.flush()
        arrays = {**own, "memory/0": self._ordered.memory.state.copy()}
        self._writing = self._side_thread.submit(self._write, counter, arrays)

    def _write(self, counter: int, arrays: Arrays) -> None:
        self._writer.complete(counter, [self._writer.write_part(counter, arrays)])

    def flush(self) -> None:
        """Wait for the checkpoint that is being written. Raises StoreError if it cannot be, DeadlineError."""
        writing, self._writing = self._writing, None
        if writing is not None:
            wait_until(writing.done, self._timeout_s, "a checkpoint to be written")
            writing.result()

    def abandon(self) -> None:
        """Nobody waits."""

    def close(self, *, early: bool = False) -> None:
        """End the side thread."""
        self.flush()
        self._side_thread.shutdown()
