"""The memory daemon: one rank per node that owns the memory of the node's replicas and serves its trainers.

One loop: take the messages that have arrived, check each against the schedule, then let every replica proceed
as far as its order of operations allows. Requests may come early and wait; none is served out of turn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from disttgl_hpc.errors import PeerError, ProtocolError
from disttgl_hpc.grid.collectives import Pause
from disttgl_hpc.grid.process_grid import Grid, coordinates_of
from disttgl_hpc.grid.schedule import Operation, OperationKind, first_counter
from disttgl_hpc.memory.checkpoint_copies import CheckpointKeeper
from disttgl_hpc.memory.node_memory import (
    MemoryRun,
    NodeMemory,
    OrderedMemory,
    describe,
)
from disttgl_hpc.memory.requests import CHECKPOINT, CLOSE, EARLY, FAILED, FLUSH, Desk, Doorbell, Inbox, post
from disttgl_hpc.memory.shared_tables import BoardWriter, SharedTables, close_tables, open_tables


def serve_memory(
    grid: Grid,
    run: MemoryRun,
    is_stop_asked: Callable[[], bool] = lambda: False,
    *,
    record: dict[int, list[Operation]] | None = None,
) -> bool:
    """Serve this node's trainers until each has closed: all that a daemon rank does in a run.

    Collective with the trainers' ``open_memory`` and ``close``. is_stop_asked: called with every request; its
    answer is passed on to the trainers. record: filled with the operations done, in their order, by replica.
    Returns whether the trainers reached the schedule's end. Raises StoreError if a checkpoint cannot be
    written, ProtocolError for a request that is out of order, PeerError if a trainer has failed, and
    DeadlineError when no request arrives within the run's ``timeout_s`` and no evaluation gets on either.
    """
    tables = open_tables(grid, run)
    replicas = []
    for local, replica in enumerate(grid.local_replicas):
        state = tables.state[local]
        run.beginning.load_memory(replica, state)
        done = None if record is None else record.setdefault(replica, [])
        operations = run.operations(replica, grid.shape)
        replicas.append(OrderedMemory(replica, NodeMemory(state), operations, done))
    is_complete = _Daemon(grid, run, tables, replicas).serve(is_stop_asked)
    close_tables(grid, tables, run.timeout_s)
    return is_complete


class _Daemon:
    """The event loop over the node's replicas."""

    def __init__(
        self, grid: Grid, run: MemoryRun, tables: SharedTables, replicas: list[OrderedMemory]
    ) -> None:
        self._grid = grid
        self._run = run
        self._tables = tables
        self._board = BoardWriter(tables.board, run.traced)
        self._replicas = replicas
        num_trainers = grid.node_comm.size - 1
        self._inbox = Inbox(grid.node_comm, num_trainers)
        lanes = [coordinates_of(trainer, grid.shape).epoch for trainer in range(num_trainers)]
        firsts = [first_counter(run.steps.start, lane, grid.shape) for lane in lanes]
        self._desks = [Desk(run.num_steps, grid.shape.epoch, first, first) for first in firsts]
        self._doorbell = Doorbell(grid.node_comm, run.timeout_s)
        self._keeper = CheckpointKeeper(grid, tables.state, run.writer, run.timeout_s, self._doorbell.ring)
        self._num_open = num_trainers
        self._is_flush_asked = False
        self._is_ended_early = False

    def serve(self, is_stop_asked: Callable[[], bool]) -> bool:
        """Serve until every trainer of the node has closed; returns whether that was at the schedule's end."""
        with closing(self._doorbell):
            self._serve(is_stop_asked)
            self._keeper.close()
        self._inbox.free()
        return not self._is_ended_early

    def _serve(self, is_stop_asked: Callable[[], bool]) -> None:
        pause, idle_s = Pause(self._run.timeout_s, self._what_is_due), None
        if self._doorbell.is_heard:
            # Rung as soon as there is work, so what has been served may be followed by a long sleep: each one
            # costs a third of a request. Short ones are for a ring that came ahead of its message.
            idle_s = 0.1
            pause = Pause(
                self._run.timeout_s,
                self._what_is_due,
                first_s=1e-3,
                longest_s=idle_s,
                growth=4,
                sleep=self._doorbell.sleep,
            )
        fences = 0
        while self._num_open:
            requests = self._inbox.take()
            self._tend_checkpoints()
            self._tables.sync()
            if fences != self._tables.alive[0]:
                fences = int(self._tables.alive[0])
                pause.restart(sleep_s=idle_s)
            if not requests:
                with self._board("wait"):
                    pause.sleep()
                continue
            self._tables.stop[0] = is_stop_asked()
            self._tables.sync()
            for trainer, (kind, counter, count) in requests:
                if kind == CLOSE and counter == FAILED:
                    raise PeerError(f"{self._name(trainer)} has failed: its own message says why")
                if kind == CLOSE:
                    self._num_open -= 1
                    self._is_ended_early |= counter == EARLY
                elif kind == CHECKPOINT:
                    with self._board("checkpoint"):
                        self._keeper.ask(counter)
                elif kind == FLUSH:
                    self._is_flush_asked = True
                else:
                    self._accept(trainer, OperationKind(kind), counter, count)
            for local in range(len(self._replicas)):
                while self._serve_next(local):
                    pass
            pause.restart(sleep_s=idle_s)
        self._check_nothing_waits()

    def _tend_checkpoints(self) -> None:
        """Check the side thread, and notify the job's first trainer if it waits for the checkpoints."""
        if self._keeper.advance() and self._is_flush_asked:
            self._is_flush_asked = False
            post(self._grid.node_comm, 0, FLUSH, (FLUSH, 0, 0), self._run.timeout_s)

    def _accept(self, trainer: int, kind: OperationKind, counter: int, count: int) -> None:
        """Keep a request until its turn. Raises ProtocolError if the schedule does not have it."""
        desk = self._desks[trainer]
        expected = desk.expected(kind)
        if kind is OperationKind.SNAPSHOT and counter in self._run.snapshots:
            expected = counter
        if counter != expected:
            allowed = "none now" if expected is None else f"that of batch {expected}"
            raise ProtocolError(
                f"{self._name(trainer)}: {kind.name} of batch {counter} is out of order, the schedule has "
                f"{allowed}; every rank must run the same schedule"
            )
        desk.accept(kind, counter, count)

    def _check_nothing_waits(self) -> None:
        """Raise ProtocolError if a trainer left a request that never had its turn, and not to end early."""
        for trainer, desk in enumerate(self._desks):
            for kind, (counter, _) in desk.waiting.items() if not self._is_ended_early else ():
                raise ProtocolError(
                    f"{self._name(trainer)} closed before its {kind.name} of batch {counter} had its turn: "
                    f"{self._what_is_due()} is next; every rank must run the same schedule to its end"
                )

    def _serve_next(self, local: int) -> bool:
        """Do the operation that is due on a replica, if it has been requested; returns whether it was."""
        replica = self._replicas[local]
        if self._keeper.wants_copy(local, replica):
            with self._board("checkpoint"):
                self._keeper.copy(local, replica)
        due = replica.next
        if due is None:
            return False
        trainer = self._asker(local, due)
        desk = self._desks[trainer]
        if due.kind not in desk.waiting:
            return False
        counter, count = desk.waiting.pop(due.kind)
        with self._board(due.kind.name.lower(), counter, replica.replica, due.minibatch):
            self._do(local, due, trainer, count)
        if due.kind is OperationKind.WRITE and counter in self._run.snapshots:
            self._board.note_memory()
        return True

    def _do(self, local: int, due: Operation, trainer: int, count: int) -> None:
        """Do an operation that a trainer has requested with ``count`` nodes, and reply if it expects a reply."""
        replica, tables, part, counter = self._replicas[local], self._tables, due.minibatch, due.counter
        if due.kind is OperationKind.WRITE:
            rows = tables.write_rows[local, part, :count]
            replica.write(counter, part, tables.write_nodes[local, part, :count], rows)
            return
        if due.kind is OperationKind.READ:
            rows = tables.reply_rows[local, part, :count]
            replica.read(counter, part, tables.read_nodes[trainer, :count], rows)
            self._desks[trainer].served = counter
        else:
            replica.snapshot(counter, tables.evaluation)
        tables.sync()
        post(self._grid.node_comm, trainer, due.kind, (due.kind, counter, count), self._run.timeout_s)

    def _asker(self, local: int, operation: Operation) -> int:
        """The node's trainer that requests this operation; the first one for a snapshot."""
        if operation.kind is OperationKind.SNAPSHOT:
            return 0
        shape = self._grid.shape
        return local * shape.trainers_per_replica + operation.lane * shape.minibatch + operation.minibatch

    def _name(self, trainer: int) -> str:
        """A trainer of this node, for messages."""
        node, count = self._grid.node, len(self._desks)
        rank = self._grid.placement.trainers[node * count + trainer]
        at = coordinates_of(node * count + trainer, self._grid.shape)
        return f"rank {rank} (replica {at.memory}, lane {at.epoch}, slice {at.minibatch})"

    def _what_is_due(self) -> str:
        """What each replica waits for, for messages."""
        return "; ".join(
            f"replica {memory.replica}: {describe(memory.next)}"
            + (f" from {self._name(self._asker(local, memory.next))}" if memory.next else "")
            for local, memory in enumerate(self._replicas)
        )
