"""Threads of one process that stand for the ranks of a communicator."""

import threading


class Done:
    """A request that is complete."""

    def Test(self):  # noqa: N802
        return True


class ThreadRank:
    """What one of several threads has of a communicator: barriers, and broadcasts of buffers."""

    def __init__(self, rank, meeting, board):
        self.rank, self.size = rank, meeting.parties
        self._meeting, self._board = meeting, board

    def Ibarrier(self):  # noqa: N802
        self._meeting.wait()
        return Done()

    def Ibcast(self, buf, root=0):  # noqa: N802
        if self.rank == root:
            self._board["buffer"] = buf
        self._meeting.wait()
        if self.rank != root:
            buf[:] = self._board["buffer"]
        self._meeting.wait()
        return Done()


def thread_ranks(size):
    """One communicator for each of ``size`` threads."""
    meeting, board = threading.Barrier(size, timeout=20), {}
    return [ThreadRank(rank, meeting, board) for rank in range(size)]
