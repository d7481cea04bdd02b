"""Items prepared in advance by one thread, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar, cast

from disttgl_hpc.errors import DeadlineError

Item = TypeVar("Item")
_END = object()
_LEAVES_IN_S = 5.0


def prefetched(items: Iterable[Item], depth: int, timeout_s: float, what: str) -> Iterator[Item]:
    """Yield the items; a thread prepares up to ``depth`` of them while the caller works on earlier ones.

    Items and order do not depend on ``depth``; with 0 each item is made on request, without a thread. An
    error in making an item is raised when it is the item's turn. Raises DeadlineError, naming ``what``, if an
    item takes longer than ``timeout_s``; the process can then exit although the thread is stuck. Closing the
    iterator ends the thread after the current item.
    """
    source = iter(items)
    if depth == 0:
        yield from source
        return
    made: SimpleQueue[tuple[object, Exception | None]] = SimpleQueue()
    wanted, is_closed = Semaphore(depth), Event()

    def make() -> None:
        item: object = None
        while item is not _END:
            wanted.acquire()
            if is_closed.is_set():
                return
            try:
                item = next(source, _END)
            except Exception as error:
                made.put((None, error))
                return
            made.put((item, None))

    # A daemon thread, so that the interpreter does not wait for it at exit.
    maker = Thread(target=make, name="prefetch", daemon=True)
    maker.start()
    is_stuck = False
    try:
        while True:
            try:
                item, error = made.get(timeout=timeout_s)
            except Empty:
                is_stuck = True
                raise DeadlineError(
                    f"waited {timeout_s:g} s for {what}: the storage is stuck or very slow; check it, or allow "
                    "more time with --timeout-s"
                ) from None
            if error is not None:
                raise error
            if item is _END:
                return
            wanted.release()
            yield cast(Item, item)
    finally:
        is_closed.set()
        wanted.release()
        if not is_stuck:
            maker.join(_LEAVES_IN_S)
