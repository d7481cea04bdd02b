"""Settings of the process that computes: its threads, and what it does with memory it has freed."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

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
