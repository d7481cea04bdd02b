"""Who works on which batch in which step, and in which order a replica's memory is read and written.

Pure functions of (step, coordinates, grid shape, number of batches): no state, no MPI (DistTGL, §3.2).

A replica takes one global batch per step. It numbers them with a counter c = 0, 1, 2, …; lane c mod j takes
batch c in step c, reads the memory once, trains j passes on that one snapshot in steps c … c+j−1 and writes
the memory in the first of them. So a replica's memory sees R(0) W(0) R(1) W(1) …, one of each a step, and a
wait only ever points to an earlier counter: no shape can wait for itself.

``Batching`` defines how a sweep cuts the stream into batches.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import IntEnum

from disttgl_hpc.errors import GridError
from disttgl_hpc.events.stream import Split


@dataclass(frozen=True)
class GridShape:
    """Degrees of mini-batch (i), epoch (j) and memory (k) parallelism. Raises GridError below 1."""

    minibatch: int
    epoch: int
    memory: int

    def __post_init__(self) -> None:
        if min(self.minibatch, self.epoch, self.memory) < 1:
            raise GridError(f"every axis of a grid is at least 1: {self}; one trainer is 1x1x1")

    def __str__(self) -> str:
        return f"{self.minibatch}×{self.epoch}×{self.memory}"

    @classmethod
    def parse(cls, text: str) -> GridShape:
        """Shape written as ``2x1x4`` (or with ×). Raises GridError."""
        match = re.fullmatch(r"\s*(\d+)[x×](\d+)[x×](\d+)\s*", text, re.IGNORECASE | re.ASCII)
        if match is None:
            raise GridError(f"a grid is written IxJxK (mini-batch x epoch x memory): got {text!r}; try 1x1x1")
        return cls(*(int(degree) for degree in match.groups()))

    @property
    def option(self) -> str:
        """The shape as a command line writes it, which :meth:`parse` reads."""
        return f"{self.minibatch}x{self.epoch}x{self.memory}"

    @property
    def num_trainers(self) -> int:
        """All trainers, n = i·j·k."""
        return self.trainers_per_replica * self.memory

    @property
    def trainers_per_replica(self) -> int:
        """i·j: the trainers that share one copy of the node memory."""
        return self.minibatch * self.epoch


ALONE = GridShape(1, 1, 1)
"""The grid of a single trainer."""


@dataclass(frozen=True)
class Coordinates:
    """A trainer's place in the grid: slice of the global batch, lane, replica (each from 0)."""

    minibatch: int
    epoch: int
    memory: int


@dataclass(frozen=True)
class Assignment:
    """What one trainer does in one step.

    counter: c of the global batch it works on, which reads and writes are named after.
    batch: m = (c + o_g) mod L, the batch of the stream. minibatch: which slice of it.
    pass_index: 0 … j−1, which pass. reads, writes: whether memory is read and written (pass 0 only).
    begins_sweep, ends_sweep: m is the first or the last batch of the stream.
    sweep: sweeps this replica has begun at batch 0 so far.
    sweep_first_batch: where the running sweep began: 0, or o_g before the replica first comes round.
    """

    counter: int
    batch: int
    minibatch: int
    pass_index: int
    reads: bool
    writes: bool
    begins_sweep: bool
    ends_sweep: bool
    sweep: int
    sweep_first_batch: int


class OperationKind(IntEnum):
    """What can happen to a replica's memory."""

    RESET = 0
    READ = 1
    WRITE = 2
    SNAPSHOT = 3


@dataclass(frozen=True)
class Operation:
    """One operation on a replica's memory; ``minibatch`` and ``lane`` identify the requesting trainer.

    RESET is not requested, and SNAPSHOT is requested on behalf of all trainers: both have slice 0.
    """

    kind: OperationKind
    counter: int
    minibatch: int
    lane: int


def replica_offset(replica: int, shape: GridShape, num_batches: int) -> int:
    """o_g = ⌊g·L/k⌋: the batch at which replica g starts."""
    return replica * num_batches // shape.memory


def num_steps(epochs: int, shape: GridShape, num_batches: int) -> int:
    """Steps of a run, ⌈E/(j·k)⌉·L: whole sweeps, in each of which a batch is trained j·k times."""
    return -(-epochs // (shape.epoch * shape.memory)) * num_batches


def assignment(
    step: int, coords: Coordinates, shape: GridShape, num_batches: int, *, sweeps_before: int = 0
) -> Assignment | None:
    """What the trainer at ``coords`` does in ``step``; None for lanes 1 … j−1 that have no batch yet.

    sweeps_before: sweeps that a run had trained on another grid before this one's step 0; numbers continue
    from there.
    """
    pass_index = (step - coords.epoch) % shape.epoch
    counter = step - pass_index
    if counter < 0:
        return None
    offset = replica_offset(coords.memory, shape, num_batches)
    sweep, batch = divmod(counter + offset, num_batches)
    return Assignment(
        counter=counter,
        batch=batch,
        minibatch=coords.minibatch,
        pass_index=pass_index,
        reads=pass_index == 0,
        writes=pass_index == 0,
        begins_sweep=batch == 0,
        ends_sweep=batch == num_batches - 1,
        sweep=sweeps_before + sweep,
        sweep_first_batch=offset if sweep == 0 else 0,
    )


def first_counter(step: int, lane: int, shape: GridShape) -> int:
    """The first batch counter from ``step`` on that a lane takes."""
    return step + (lane - step) % shape.epoch


def pass_number(sweep: int, replica: int, pass_index: int, shape: GridShape) -> int:
    """Number of a pass among all passes over its batch, (sweep·k + replica)·j + pass: it keys dropout."""
    return (sweep * shape.memory + replica) * shape.epoch + pass_index


def negative_set(number: int, num_negative_sets: int) -> int:
    """Negative set of a pass by its number: a set of its own, or fixed sets (if there are any) in turn."""
    return number % num_negative_sets if num_negative_sets else number


def replica_operations(
    replica: int,
    shape: GridShape,
    num_batches: int,
    first_step: int,
    end_step: int,
    *,
    snapshots: Container[int] = (),
) -> Iterator[Operation]:
    """The order in which a replica's memory is used in steps [first_step, end_step).

    Per counter c: RESET where a sweep begins, R(c) of slices 0 … i−1, W(c) of slices 0 … i−1, and SNAPSHOT if
    c is in ``snapshots``. A run from step 0 begins with a RESET wherever the replica starts, so that its
    state is zero; a run that continues from a later step keeps its initial state, and first repeats the
    SNAPSHOT of the step before if that had one.
    """
    offset = replica_offset(replica, shape, num_batches)
    if first_step - 1 in snapshots:
        yield Operation(OperationKind.SNAPSHOT, first_step - 1, 0, (first_step - 1) % shape.epoch)
    for counter in range(first_step, end_step):
        lane = counter % shape.epoch
        if counter == 0 or (counter + offset) % num_batches == 0:
            yield Operation(OperationKind.RESET, counter, 0, lane)
        for kind in (OperationKind.READ, OperationKind.WRITE):
            for minibatch in range(shape.minibatch):
                yield Operation(kind, counter, minibatch, lane)
        if counter in snapshots:
            yield Operation(OperationKind.SNAPSHOT, counter, 0, lane)


def batch_bounds(batch: int, global_batch: int, num_events: int) -> tuple[int, int]:
    """Events [first, end) of a global batch of a stream of ``num_events``; the last batch may be short."""
    first = batch * global_batch
    return first, min(first + global_batch, num_events)


def slice_bounds(first_event: int, end_event: int, parts: int, index: int) -> tuple[int, int]:
    """Slice ``index`` of the events [first_event, end_event) cut into ``parts``, in stream order.

    Slices differ by one event at most. Of a full batch of i·b events every slice has b; of a short last batch
    with fewer events than trainers some slices are empty, and their trainers read and write nothing.
    """
    num_events = end_event - first_event
    return first_event + num_events * index // parts, first_event + num_events * (index + 1) // parts


@dataclass(frozen=True)
class Batching:
    """How a sweep cuts the stream: global batches in training, evaluation batches in each held-out part.

    Every part begins a batch of its own, and its last batch may be short; no batch spans two parts.
    """

    split: Split
    global_batch: int
    evaluation_batch: int

    @property
    def cuts(self) -> tuple[int, int, int, int]:
        """End of training, end of validation, events of a global and of an evaluation batch, for compiled loops."""
        return self.split.train_end, self.split.validation_end, self.global_batch, self.evaluation_batch

    @property
    def num_batches(self) -> int:
        """Global batches of a training sweep."""
        return -(-self.split.train_end // self.global_batch)

    def evaluation_bounds(self, first: int, last: int) -> list[tuple[int, int]]:
        """Evaluation batches (first, last) of a held-out part [first, last)."""
        size = self.evaluation_batch
        return [(start, min(start + size, last)) for start in range(first, last, size)]

    def batch_end(self, first: int) -> int:
        """End of the batch that begins with event ``first``, in a stream with an unlimited test part."""
        for end, size in (
            (self.split.train_end, self.global_batch),
            (self.split.validation_end, self.evaluation_batch),
        ):
            if first < end:
                return min(first + size, end)
        return first + self.evaluation_batch
