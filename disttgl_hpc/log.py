"""What people read on a terminal or in a job log: log lines with ranks, progress, numbers and tables."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_LINES_EVERY_S = 30.0


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text for a terminal: control characters other than tab and newline as escapes such as \x1b.

    A name in a file could otherwise move the cursor, change colours or reverse the direction of writing.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _PrintableFormatter(logging.Formatter):
    """Formats records without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def get_logger(name: str) -> logging.Logger:
    """Logger of a module; silent before :func:`configure`."""
    return logging.getLogger(name)


def configure(rank: int = 0, *, verbose: bool = False) -> None:
    """Send the package's log to stderr; ranks other than 0 log only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter(f"%(asctime)s [{rank}] %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("disttgl_hpc")
    logger.handlers[:] = [handler]
    logger.propagate = False
    quiet = logging.WARNING if rank else logging.INFO
    logger.setLevel(logging.DEBUG if verbose else quiet)


class Progress:
    """A progress bar on a terminal; in a log file a line every half minute."""

    def __init__(self, total: int | None, unit: str, description: str, *, shown: bool) -> None:
        self._description, self._unit, self._total = description, unit, total
        on_terminal = shown and sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total, unit=unit, unit_scale=True, desc=description, disable=not on_terminal, leave=False
        )
        self._lines = shown and not on_terminal
        self._done = 0
        self._started_s = self._last_line_s = time.monotonic()

    def advance(self, amount: int, note: str = "") -> None:
        """Add ``amount`` completed units; ``note``, for example the loss, is shown beside the rate."""
        self._done += amount
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(amount)
        now_s = time.monotonic()
        if self._lines and now_s - self._last_line_s >= _LINES_EVERY_S:
            self._last_line_s = now_s
            get_logger(__name__).info("%s", self._line(now_s - self._started_s, note))

    def _line(self, elapsed_s: float, note: str) -> str:
        rate = self._done / elapsed_s
        parts = [f"{self._description}: {self._done:,} {self._unit}", f"{rate:,.0f} {self._unit}/s"]
        if self._total and rate > 0:
            parts.append(f"{(self._total - self._done) / rate:,.0f} s left")
        return ", ".join([*parts, note] if note else parts)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


@contextmanager
def progress(
    total: int | None, description: str, *, unit: str = "events", shown: bool = True
) -> Iterator[Progress]:
    """Progress over ``total`` units; ``shown=False`` on ranks that print nothing."""
    bar = Progress(total, unit, description, shown=shown)
    try:
        yield bar
    finally:
        bar.close()


def mebibytes(number: int) -> str:
    """A number of bytes in MiB."""
    return f"{number / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there are at least two, up to days."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with right-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
