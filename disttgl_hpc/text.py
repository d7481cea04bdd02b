"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Sequence


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
