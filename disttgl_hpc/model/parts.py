"""Compiled loops on several threads: rows are cut into as many parts as torch has threads.

Loops run without the interpreter's lock, so Python's own threads do. What a part adds up it adds up alone, and
the parts' sums are added in order: one number of threads gives one result.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

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
