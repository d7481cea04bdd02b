"""Time by activity: seconds by name and, on request, single spans; the phases of a training step."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of work, in seconds of a clock that all processes of a node share (``time.perf_counter``).

    counter: of the batch it is for, −1 for none. replica, minibatch: of the request, on daemons.
    """

    name: str
    begin_s: float
    end_s: float
    counter: int = -1
    replica: int = -1
    minibatch: int = -1


class SpanClock:
    """Seconds by name since the last :meth:`take`: of the wall clock, or of another ``timer``.

    spans: while it is a list, every block is appended to it when it ends. One thread at a time uses a clock.
    """

    def __init__(self, names: Sequence[str], timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer = timer
        self._seconds = dict.fromkeys(names, 0.0)
        self.spans: list[Span] | None = None

    @contextmanager
    def __call__(self, name: str, counter: int = -1) -> Iterator[None]:
        """Count the enclosed block to ``name``, one of those that the clock was made with."""
        started_s = self._timer()
        try:
            yield
        finally:
            ended_s = self._timer()
            self._seconds[name] += ended_s - started_s
            if self.spans is not None:
                self.spans.append(Span(name, started_s, ended_s, counter))

    def take(self) -> dict[str, float]:
        """Seconds by name, and start again from zero."""
        taken = {name: round(seconds, 6) for name, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return taken


@dataclass(frozen=True)
class DaemonFigures:
    """What a memory daemon has done since it began: seconds by name, memory in MiB, and spans of a window."""

    seconds: Mapping[str, float]
    resident_mib: float
    peak_mib: float
    spans: Sequence[Span]


def process_memory_mib() -> tuple[float, float]:
    """Resident memory of this process, now and at its peak, shared pages included. The former is 0 off Linux."""
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0.0, peak_mib
    resident_mib = pages * resource.getpagesize() / 2**20
    return resident_mib, max(peak_mib, resident_mib)  # the kernel updates the peak now and then only


PHASES = (
    "sample",
    "read",
    "inputs",
    "forward",
    "write",
    "backward",
    "reduce",
    "optimiser",
    "checkpoint",
)


class PhaseClock(SpanClock):
    """Seconds per phase of a training step, one of PHASES."""

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(PHASES, timer)
