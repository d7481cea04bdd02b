"""A parent for each rank of a job, which names the rank when it is killed.

Launchers end a job when one of its processes dies, but not all can name it: MPICH's kills the others first, and
may name one of those. Whatever watches a rank from inside the job races against the launcher, and loses on a
busy machine. Therefore a rank is the child of the process that the launcher started. This parent sleeps, passes
signals on, and writes a line when its child dies; the launcher hears of the death only afterwards.

MPI must not be initialised before the fork, so this module does not import mpi4py.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress

from disttgl_hpc.errors import EXIT_BY_SIGNAL

_NUMBERS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_PASSED_ON = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_PR_SET_PDEATHSIG = 1
_LOOK_UP_S = 1.0  # how soon the death of the launcher is noticed
_CAUSES = {
    signal.SIGBUS: ": a mapped file was cut short or removed, or /dev/shm is full",
    signal.SIGKILL: ": by hand, by the scheduler, or because memory ran out",
}


def fork_rank() -> None:
    """Return in a child process, which becomes the rank; this process waits for it and exits with its status.

    A job of one process, or on a system other than Linux, has no parent: this one returns. When the launcher
    dies, which would otherwise leave the ranks at work that nobody waits for, the rank is asked to stop by
    SIGTERM. A rank dies with its parent.
    """
    if sys.platform != "linux" or max(int(os.environ.get(name, "1")) for name in _SIZES) == 1:
        return
    parent, launcher = os.getpid(), os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child:
        _leave_with(child, _wait_for(child, launcher))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(EXIT_BY_SIGNAL + signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})


def _wait_for(child: int, launcher: int) -> int:
    """Pass signals on to a child until it ends; returns its exit code, −n after signal n."""
    while True:
        arrived = signal.sigtimedwait({*_PASSED_ON, signal.SIGCHLD}, _LOOK_UP_S)
        if arrived is None:
            if os.getppid() != launcher:
                launcher = os.getppid()
                os.kill(child, signal.SIGTERM)
        elif arrived.si_signo != signal.SIGCHLD:
            os.kill(child, arrived.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def _leave_with(child: int, code: int) -> None:
    """Name the rank if a signal has ended it, in one line of the error output, and end this process."""
    if code < 0:
        number = next((os.environ[name] for name in _NUMBERS if name in os.environ), "?")
        cause = signal.Signals(-code)
        words = f"died of {cause.name}{_CAUSES.get(cause, '')}"
        with suppress(OSError):
            os.write(2, f"rank {number}, process {child} on {socket.gethostname()}, {words}\n".encode())
        code = EXIT_BY_SIGNAL - code
    os._exit(code)
