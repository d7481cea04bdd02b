"""Collective operations and waits that sleep, have a deadline and have a name.

MPI libraries spin in their blocking calls. Here a waiting rank leaves its core to one that works: every wait
is a non-blocking call that is tested between sleeps, and an error names what a wait that lasts too long was
for. An error on one rank becomes an error on all of them, instead of a hang.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from disttgl_hpc.errors import DeadlineError, PeerError
from disttgl_hpc.grid.shared_memory import check_room

DEFAULT_TIMEOUT_S = 1800.0

_BETWEEN_ROUNDS_S = 2e-4  # an operation of several rounds moves on only when it is tested

Value = TypeVar("Value")


class Request(Protocol):
    """A non-blocking operation of an MPI library."""

    def Test(self) -> bool:  # noqa: N802
        """Advance the operation; returns whether it is complete."""


class Communicator(Protocol):
    """What this package needs of an MPI communicator, such as mpi4py's ``MPI.COMM_WORLD``.

    Only the modules that call MPI name its own type; the others pass a communicator on.
    """

    @property
    def rank(self) -> int:
        """Number of this rank."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    def Ibarrier(self) -> Request:  # noqa: N802
        """Begin a barrier."""

    def Ibcast(self, buf: Any, root: int = 0) -> Request:  # noqa: N802
        """Begin to copy a buffer of ``root`` to all ranks."""

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = ...) -> Request:  # noqa: N802
        """Begin a reduction to all ranks."""

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Request:  # noqa: N802
        """Begin to gather buffers of equal size on all ranks."""

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:  # noqa: N802
        """Begin to gather buffers on all ranks."""

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:  # noqa: N802
        """Begin to gather buffers on ``root``."""

    def Split(self, color: int = 0, key: int = 0) -> Communicator:  # noqa: N802
        """New communicator of the ranks with the same color, in the order of their keys."""

    def Split_type(self, split_type: int, key: int = 0) -> Communicator:  # noqa: N802
        """New communicator of the ranks that share a resource."""

    def Idup(self) -> tuple[Communicator, Request]:  # noqa: N802
        """Begin to make a communicator of the same ranks."""

    def Free(self) -> None:  # noqa: N802
        """Release the communicator."""


class Pause:
    """Sleeps that lengthen from ``first_s`` to ``longest_s`` while nothing happens, and one deadline over all.

    Short first sleeps keep latency low where an answer is near; long later ones keep a core free for others.
    sleep: time.sleep, or one that can be cut short and then returns True: what is awaited is near again.
    """

    def __init__(
        self,
        timeout_s: float,
        what: Callable[[], str],
        *,
        first_s: float = 20e-6,
        longest_s: float = 1e-3,
        growth: float = 1.3,
        sleep: Callable[[float], bool | None] = time.sleep,
    ) -> None:
        self._timeout_s = timeout_s
        self._what = what
        self._first_s = first_s
        self._longest_s = longest_s
        self._growth = growth
        self._sleep = sleep
        self.restart()

    def restart(self, *, sleep_s: float | None = None) -> None:
        """Something happened: a new deadline, and sleeps from ``sleep_s`` on, without it short ones again."""
        self._sleep_s = self._first_s if sleep_s is None else sleep_s
        self._deadline_s = time.monotonic() + self._timeout_s

    def sleep(self) -> None:
        """Sleep once. Raises DeadlineError when the deadline has passed."""
        if time.monotonic() > self._deadline_s:
            raise DeadlineError(
                f"waited {self._timeout_s:g} s for {self._what()}: a rank is stuck or much slower than "
                "the others; look for its last message, or allow more time with --timeout-s"
            )
        was_woken = self._sleep(self._sleep_s)
        self._sleep_s = self._first_s if was_woken else min(self._sleep_s * self._growth, self._longest_s)


def wait_until(is_ready: Callable[[], bool], timeout_s: float, what: str, *, longest_s: float = 1e-3) -> None:
    """Sleep until ``is_ready()``; raises DeadlineError naming ``what`` after ``timeout_s`` seconds."""
    if is_ready():
        return
    pause = Pause(timeout_s, lambda: what, longest_s=longest_s)
    while not is_ready():
        pause.sleep()


def wait_request(request: Request, timeout_s: float, what: str, *, longest_s: float = 1e-3) -> None:
    """Sleep until a non-blocking MPI operation is complete. Raises DeadlineError."""
    wait_until(request.Test, timeout_s, what, longest_s=longest_s)


def barrier(comm: Communicator, timeout_s: float, what: str, *, longest_s: float = 1e-3) -> None:
    """Wait for all ranks of ``comm``. Raises DeadlineError."""
    wait_request(comm.Ibarrier(), timeout_s, what, longest_s=longest_s)


def sum_in_place(comm: Communicator, values: Any, timeout_s: float, what: str) -> None:
    """Sum a buffer over ``comm`` in place; same shape and dtype on all ranks. Raises DeadlineError."""
    summing = comm.Iallreduce(MPI.IN_PLACE, values, MPI.SUM)
    wait_request(summing, timeout_s, what, longest_s=_BETWEEN_ROUNDS_S)


def bcast_buffer(comm: Communicator, values: Any, timeout_s: float, what: str, *, root: int = 0) -> None:
    """Copy a buffer of ``root`` to all ranks; same shape and dtype on all of them. Raises DeadlineError."""
    wait_request(comm.Ibcast(values, root), timeout_s, what)


def bcast(comm: Communicator, value: Value | None, timeout_s: float, what: str, *, root: int = 0) -> Value:
    """Return the value of ``root`` on all ranks, as a copy. Collective. Raises DeadlineError."""
    data = _pickled(value if comm.rank == root else None)
    size = np.array([len(data)])
    bcast_buffer(comm, size, timeout_s, what, root=root)
    if comm.rank != root:
        data = np.empty(size[0], np.uint8)
    wait_request(comm.Ibcast(data, root), timeout_s, what, longest_s=_BETWEEN_ROUNDS_S)
    return cast(Value, MPI.pickle.loads(data))


def gather(comm: Communicator, own: Value, timeout_s: float, what: str) -> list[Value] | None:
    """Return the values of all ranks, in their order, on rank 0 and None on the others. Collective.

    Raises DeadlineError.
    """
    joined = _joined(comm, _pickled(own), timeout_s, what)
    return None if joined is None else _unpickled(*joined)


def join(
    comm: Communicator, own: NDArray[np.float32], timeout_s: float, what: str
) -> NDArray[np.float32] | None:
    """Join flat arrays of all ranks, in their order, on rank 0; None on the others. Collective.

    Raises DeadlineError.
    """
    joined = _joined(comm, own, timeout_s, what)
    return None if joined is None else joined[0]


def _joined(
    comm: Communicator, own: NDArray[Any], timeout_s: float, what: str
) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """Flat arrays of all ranks and their lengths, on rank 0."""
    sizes = _gathered_sizes(comm, own, timeout_s, what)
    is_root = comm.rank == 0
    received = np.empty(sizes.sum() if is_root else 0, own.dtype)
    gathering = comm.Igatherv(own, [received, sizes] if is_root else None)
    wait_request(gathering, timeout_s, what, longest_s=_BETWEEN_ROUNDS_S)
    return (received, sizes) if is_root else None


def allgather(comm: Communicator, own: Value, timeout_s: float, what: str) -> list[Value]:
    """Return the values of all ranks, in their order, on all ranks. Collective. Raises DeadlineError."""
    data = _pickled(own)
    sizes = _gathered_sizes(comm, data, timeout_s, what)
    received = np.empty(sizes.sum(), np.uint8)
    gathering = comm.Iallgatherv(data, [received, sizes])
    wait_request(gathering, timeout_s, what, longest_s=_BETWEEN_ROUNDS_S)
    return _unpickled(received, sizes)


def _gathered_sizes(comm: Communicator, data: NDArray[Any], timeout_s: float, what: str) -> NDArray[np.int64]:
    """Length of each rank's flat data."""
    sizes = np.empty(comm.size, np.int64)
    wait_request(comm.Iallgather(np.array([len(data)]), sizes), timeout_s, what)
    return sizes


def _pickled(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(MPI.pickle.dumps(value), np.uint8)


def _unpickled(data: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[Any]:
    ends = np.cumsum(sizes)
    return [MPI.pickle.loads(data[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def receive(comm: MPI.Intracomm, source: int, tag: int, timeout_s: float, what: str) -> Any:
    """Return the object that ``source`` sends with ``tag``. Raises DeadlineError."""
    message: MPI.Message | None = None

    def has_come() -> bool:
        nonlocal message
        message = comm.improbe(source, tag)
        return message is not None

    wait_until(has_come, timeout_s, what)
    receiving, received = cast(MPI.Message, message).irecv(), None

    def is_complete() -> bool:
        nonlocal received
        is_whole, received = receiving.test()
        return is_whole

    wait_until(is_complete, timeout_s, what)
    return received


def free(comms: Sequence[Communicator], timeout_s: float, what: str) -> None:
    """Release communicators once all ranks of the first one are here; COMM_NULL is skipped. Collective.

    The ranks of the others are among those of the first. Raises DeadlineError.
    """
    barrier(comms[0], timeout_s, what)
    for comm in comms:
        if comm != MPI.COMM_NULL:
            comm.Free()


def allocate_shared(
    node: MPI.Intracomm, num_bytes: int, comm: Communicator, timeout_s: float, what: str
) -> MPI.Win:
    """Window of zeros shared by the ranks of ``node``, ``num_bytes`` of this rank, locked for all.

    Collective over ``comm``, whose ranks on this node are those of ``node``. what: the window holds, in the
    plural. Its memory is taken at once: a page that finds no room later would be a bus error, and the next
    window finds the room that is left. Raises GridError on the ranks of a node that has too little shared
    memory, PeerError on all others, DeadlineError.
    """
    with together(comm, timeout_s):
        check_room(sum(allgather(node, num_bytes, timeout_s, what)), what)
    window = MPI.Win.Allocate_shared(num_bytes, 1, comm=node)
    window.Lock_all(MPI.MODE_NOCHECK)
    np.frombuffer(window.tomemory(), np.uint8)[:] = 0  # type: ignore[call-overload]
    window.Sync()
    barrier(comm, timeout_s, what)
    return window


def free_window(comm: Communicator, window: MPI.Win, timeout_s: float, what: str) -> None:
    """Release a window of shared memory, locked for all, once all ranks of ``comm`` are here. Collective.

    Releasing it waits for all ranks and spins, so they meet asleep first. Raises DeadlineError.
    """
    barrier(comm, timeout_s, what)
    window.Unlock_all()
    window.Free()


def dup(comm: Communicator, timeout_s: float, what: str) -> Communicator:
    """New communicator of the same ranks. Collective. Raises DeadlineError."""
    copy, request = comm.Idup()
    wait_request(request, timeout_s, what, longest_s=_BETWEEN_ROUNDS_S)
    return copy


def split(comm: Communicator, color: int, timeout_s: float, what: str, *, key: int = 0) -> Communicator:
    """New communicator of the ranks with the same color, by ascending ``key`` and rank, once all are here.

    MPI has no split that can be given up, so the ranks meet asleep first. Collective. Raises DeadlineError.
    """
    barrier(comm, timeout_s, what)
    return comm.Split(color, key)


def node_comm_of(comm: Communicator, timeout_s: float) -> MPI.Intracomm:
    """New communicator of the ranks that share memory with this one, in their order. Collective.

    Raises DeadlineError.
    """
    barrier(comm, timeout_s, "all ranks to find those of their node")
    return cast(MPI.Intracomm, comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank))


def raise_together(
    comm: Communicator, error: Exception | None, timeout_s: float, what: str = "the other ranks' verdict"
) -> None:
    """Raise on every rank of ``comm`` if any rank has an error. Collective.

    A failing rank raises its own error, its peers PeerError("rank 1: …") of the lowest failing rank.
    """
    failed = np.array([error is not None], np.int64)
    sum_in_place(comm, failed, timeout_s, what)
    if not failed[0]:
        return
    own = None if error is None else f"{error}" or type(error).__name__
    messages = allgather(comm, own, timeout_s, what)
    if error is not None:
        raise error
    rank, message = next((rank, text) for rank, text in enumerate(messages) if text is not None)
    raise PeerError(f"rank {rank}: {message}")


@contextmanager
def together(comm: Communicator, timeout_s: float, what: str = "the other ranks' verdict") -> Iterator[None]:
    """Run a block on this rank, and fail on all ranks of ``comm`` if it fails on one. Collective.

    what: the others do in the meantime, for the message of a wait that is too long.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    raise_together(comm, failure, timeout_s, what)


def decide_together(comm: Communicator, decide: Callable[[], Value], timeout_s: float, what: str) -> Value:
    """Return what ``decide()`` returns on the first rank, on all ranks of ``comm``. Collective.

    what: the first rank does, for the message. Its error is raised on the first rank, and PeerError on the
    others. Raises DeadlineError.
    """
    decision, what = None, f"the first rank to {what}"
    with together(comm, timeout_s, what):
        if comm.rank == 0:
            decision = decide()
    return bcast(comm, decision, timeout_s, what)


def alone() -> Communicator:
    """Communicator of this process only, whatever the number of processes that were started."""
    return MPI.COMM_SELF
