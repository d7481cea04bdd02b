"""What comes in at a memory daemon: messages, and what each trainer may ask for next."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from mpi4py import MPI

from disttgl_hpc.grid.schedule import OperationKind
from disttgl_hpc.memory.messages import CLOSE, NUM_FIELDS, REQUEST_TAG


@dataclass
class Desk:
    """What the daemon knows of one trainer: what it may ask for next, and what it waits for.

    served: batch of the last read served. waiting: requests before their turn, (counter, nodes) by kind.
    """

    num_steps: int
    epoch: int
    next_read: int
    next_write: int
    served: int = -1
    waiting: dict[OperationKind, tuple[int, int]] = field(default_factory=dict)

    def expected(self, kind: OperationKind) -> int | None:
        """The batch for which a request of this kind would be in order now, if there is one."""
        if kind is OperationKind.READ and kind not in self.waiting and self.next_read < self.num_steps:
            return self.next_read
        if kind is OperationKind.WRITE and self.next_write <= self.served:
            return self.next_write
        return None

    def accept(self, kind: OperationKind, counter: int, count: int) -> None:
        """Keep a request that is in order; the lane's next one is j batches on."""
        self.waiting[kind] = (counter, count)
        if kind is OperationKind.READ:
            self.next_read = counter + self.epoch
        elif kind is OperationKind.WRITE:
            self.next_write = counter + self.epoch


class Inbox:
    """Receives of one request per trainer, always posted, so that looking for requests is one call."""

    def __init__(self, comm: MPI.Intracomm, num_trainers: int) -> None:
        self._fields = np.zeros((num_trainers, NUM_FIELDS), np.int64)
        self._receives = [comm.Recv_init(self._fields[t], t, REQUEST_TAG) for t in range(num_trainers)]
        MPI.Prequest.Startall(self._receives)

    def take(self) -> list[tuple[int, tuple[int, int, int]]]:
        """(trainer, (kind, counter, nodes)) of every request that has arrived; nothing follows a CLOSE."""
        # Open MPI fetches messages when a test finds none, and tells of them in the next test only.
        arrived = MPI.Request.Testsome(self._receives) or MPI.Request.Testsome(self._receives) or ()
        requests = []
        for trainer in arrived:
            kind, counter, count = self._fields[trainer].tolist()
            requests.append((trainer, (kind, counter, count)))
            if kind != CLOSE:
                self._receives[trainer].Start()
        return requests

    def free(self) -> None:
        """Release the receives."""
        for receive in self._receives:
            receive.Free()
