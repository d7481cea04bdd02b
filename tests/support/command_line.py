"""``disttgl`` as a user types it, alone or under mpiexec."""

import contextlib
import io
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest

from disttgl_hpc import cli

DISTTGL = [sys.executable, "-m", "disttgl_hpc"]
needs_mpi = pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")


def disttgl(*arguments: object, ranks: int = 0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command line: under mpiexec on so many ``ranks``, or alone, in this process.

    A process that is started imports torch first, which takes longer than most of what the tests ask for.
    """
    words = [f"{argument}" for argument in arguments]
    if ranks:
        launcher = ["timeout", "100", "mpiexec", "-n", f"{ranks}"]
        done = subprocess.run([*launcher, *DISTTGL, *words], capture_output=True, text=True, check=False)
    else:
        done = _run_here(words)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def with_small_shared_memory(size: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a /dev/shm of its own of so many bytes, such as "40m"."""
    mount = 'mount -t tmpfs -o "size=$0" tmpfs /dev/shm'
    unshare = ["unshare", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, mount, "1m"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    words = ["timeout", "200", *unshare, f'{mount} && exec "$@"', size, *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _run_here(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Call the program's entry point, with standard output and error of its own."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        _log_kept(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["disttgl", *words]),
        mock.patch("faulthandler.enable"),  # pytest has its own
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(words, left.value.code or 0, *said)


@contextlib.contextmanager
def _log_kept() -> Iterator[None]:
    """The command sends the package's log to its standard error; afterwards it goes where it went before."""
    logger = logging.getLogger("disttgl_hpc")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before[:2]
        logger.setLevel(before[2])
