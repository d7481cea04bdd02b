"""A job under a launcher, watched from outside: its processes, its last words, its files in shared memory."""

import os
import re
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

LONG_S = 120
"""A deadline that only a hang exceeds, however busy the machine is."""
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc")


def wait_for(condition, seconds):
    """Whether ``condition()`` becomes true within so many seconds."""
    deadline_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


class WatchedJob:
    """A command and all that it starts, known by a mark in their environment; a context that ends them."""

    def __init__(self, command, folder, **environment):
        self._mark = uuid.uuid4().hex
        self._log = folder / "job.log"
        with self._log.open("w") as log:
            self._launcher = subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"WATCHED_JOB": self._mark} | environment,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._launcher.terminate()
        if not wait_for(lambda: self._launcher.poll() is not None, LONG_S):
            self._launcher.kill()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launcher.wait()

    @property
    def launcher(self):
        """Process id of the command itself."""
        return self._launcher.pid

    @property
    def output(self):
        """What it has printed so far."""
        return self._log.read_text()

    @property
    def has_ended(self):
        """Whether the command itself has ended."""
        return self._launcher.poll() is not None

    def wait(self, seconds):
        """Exit status of the launcher."""
        return self._launcher.wait(seconds)

    def processes(self, *, mapping=""):
        """Ids of its living processes; of those only that have a file mapped whose name contains ``mapping``."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = self._mark.encode() in (process / "environ").read_bytes()
                if is_ours and mapping in (process / "maps").read_text():
                    found.append(int(process.name))
            except OSError:  # it ended meanwhile, or is not ours to read
                continue
        return found

    def shared_files(self):
        """Files of /dev/shm that its processes have mapped, unlinked or not."""
        maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in self.processes(mapping="/dev/shm/"))
        return {Path(name) for name in re.findall(r"/dev/shm/\S+", maps)}

    def roster(self):
        """Rank → (role, process id), from the lines that a run logs at its start."""
        found = re.findall(r"rank (\d+): (.+), process (\d+) on ", self.output)
        return {int(rank): (role, int(pid)) for rank, role, pid in found}
