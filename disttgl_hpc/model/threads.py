"""Threads of a process: its settings, and compiled loops on as many parts of the rows as torch has threads.

Compiled loops release the interpreter lock, so Python's threads suffice. Each part has its own sums, which
are added in order: for one number of threads the result is always the same.
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
_LARGEST_MMAP_THRESHOLD = 32 << 20  # the largest that glibc accepts
_KEPT_BYTES = 256 << 20


def prepare_process(threads: int) -> None:
    """Let torch, products and compiled loops use ``threads`` threads, and keep freed memory in the process.

    Every step needs the same megabytes. Memory that is returned to the system comes back as pages to be
    cleared, which takes up to a tenth of a step; glibc is set to keep it.
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
    """Results of ``work(first, last)`` for each part of [0, rows); the parts run at the same time."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, rows)]
    edges = [rows * part // threads for part in range(threads + 1)]
    return list(_pool(threads).map(work, edges[:-1], edges[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads, started on first use."""
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")
