"""Settings of the process that computes: its threads, and what it does with memory it has freed.

Compiled loops on several threads: rows are cut into as many parts as torch has threads.

Loops run without the interpreter's lock, so Python's own threads do. What a part adds up it adds up alone, and
the parts' sums are added in order: one number of threads gives one result.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

# Numbers of glibc's mallopt().
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


_LARGEST_MMAP_THRESHOLD = 32 << 20  # what glibc accepts


_KEPT_BYTES = 256 << 20


def prepare_process(threads: int) -> None:
    """Let torch, products and compiled loops use so many ``threads``, and keep freed memory.

    A step needs the same megabytes as the step before. Given back to the system in between, they come back as
    fresh pages that must be cleared: with glibc, which is told so here, up to a tenth of a step.
    """
    torch.set_num_threads(threads)
    threadpool_limits(1, user_api="blas")  # see products.on_all_threads
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            allocator = ctypes.CDLL(None)
            allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
            allocator.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


Sums = TypeVar("Sums")


def in_parts(rows: int, work: Callable[[int, int], Sums]) -> list[Sums]:
    """What ``work(first, last)`` returns for each part of [0, rows), the parts worked on at the same time."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, rows)]
    edges = [rows * part // threads for part in range(threads + 1)]
    return list(_pool(threads).map(work, edges[:-1], edges[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; they start with the first of it."""
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")
