"""Items made ahead of their use, by one thread, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

from disttgl_hpc.errors import DeadlineError

Item = TypeVar("Item")
_END = object()


def prefetched(items: Iterable[Item], depth: int, timeout_s: float, what: str) -> Iterator[Item]:
    """The items, of which a thread makes up to ``depth`` while the caller works on earlier ones.

    What they are and their order do not depend on ``depth``; 0 makes each when it is asked for, without a thread.
    An error in making an item is raised when its turn comes. Raises DeadlineError, naming ``what``, for an item
    that takes longer than ``timeout_s``. Closing the iterator ends the thread after the item in hand.
    """
    source = iter(items)
    if depth == 0:
        yield from source
        return
    executor = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        ahead: deque[Future[object]] = deque(executor.submit(next, source, _END) for _ in range(depth))
        while (item := _result(ahead.popleft(), timeout_s, what)) is not _END:
            ahead.append(executor.submit(next, source, _END))
            yield cast(Item, item)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _result(made: Future[object], timeout_s: float, what: str) -> object:
    try:
        return made.result(timeout_s)
    except TimeoutError as late:
        if made.done():  # an error of the item itself
            raise
        raise DeadlineError(
            f"waited {timeout_s:g} s for {what}: its storage is stuck or very slow; look there, or allow more "
            "time with --timeout-s"
        ) from late
