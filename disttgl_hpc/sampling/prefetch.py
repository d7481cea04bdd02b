"""Items made ahead of their use, by one thread, in order."""

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
    """The items, of which a thread makes up to ``depth`` while the caller works on earlier ones.

    What they are and their order do not depend on ``depth``; 0 makes each when it is asked for, without a thread.
    An error in making an item is raised when its turn comes. Raises DeadlineError, naming ``what``, for an item
    that takes longer than ``timeout_s``: the process can end then, though the thread is stuck. Closing the
    iterator ends the thread after the item in hand.
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

    # A daemon, or the interpreter would wait for it in the end.
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
                    f"waited {timeout_s:g} s for {what}: its storage is stuck or very slow; look there, or allow "
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
