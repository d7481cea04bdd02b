"""Requests to stop: a scheduler's signal before the time limit, or Ctrl-C."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
EXIT_STATUS = 75  # EX_TEMPFAIL: try again later
_ONE_KEYPRESS_S = 0.5  # in which it may arrive twice, from the terminal and from the launcher


class StopRequest:
    """Whether this process was asked to stop at the next step."""

    def __init__(self) -> None:
        self._is_made = False
        self._interrupted_s = math.inf  # when Ctrl-C was first pressed

    def is_made(self) -> bool:
        """Whether a signal has come."""
        return self._is_made

    def make(self, number: int, _: FrameType | None = None) -> None:
        """Note a signal. Raises KeyboardInterrupt at a second Ctrl-C: whoever is at the keyboard will not wait."""
        self._is_made = True
        if number == signal.SIGINT:
            now_s = time.monotonic()
            if now_s - self._interrupted_s > _ONE_KEYPRESS_S:
                raise KeyboardInterrupt
            self._interrupted_s = min(self._interrupted_s, now_s)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """While the context lasts SIGTERM, SIGUSR1 and SIGINT ask to stop and do nothing else."""
    request = StopRequest()
    before = {number: signal.signal(number, request.make) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """For a process about to end with a status of its own, which launchers hurry when one rank has ended."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
