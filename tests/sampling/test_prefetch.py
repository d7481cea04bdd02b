import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.errors import DeadlineError
from disttgl_hpc.sampling.local_batch import prefetched


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers()), st.integers(0, 5))
def test_items_and_their_order_do_not_depend_on_the_depth(items, depth):
    assert list(prefetched(items, depth, 60, "items")) == items


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_at_most_depth_items_are_made_ahead(depth):
    made, begun = [], threading.Semaphore(0)

    def items():
        for number in range(10):
            made.append(number)
            begun.release()
            yield number

    taken = prefetched(items(), depth, 60, "items")
    for number in range(5):
        assert next(taken) == number
        for _ in range(1 + (depth if number == 0 else 0)):
            assert begun.acquire(timeout=60)
        assert made == list(range(number + 1 + depth))


def test_items_are_made_in_a_thread_of_their_own():
    makers = list(prefetched((threading.current_thread() for _ in range(3)), 2, 60, "items"))
    assert len(set(makers)) == 1
    assert makers[0] is not threading.current_thread()


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError("of the disk")])
def test_an_error_is_raised_when_its_turn_comes(depth, error):
    def items():
        yield 1
        raise error

    taken = prefetched(items(), depth, 60, "items")
    assert next(taken) == 1
    with pytest.raises(type(error), match=str(error)):
        next(taken)


def test_an_item_that_never_comes_is_named():
    blocked = threading.Event()
    taken = prefetched((blocked.wait() for _ in range(1)), 1, 0.05, "the next batch")
    with pytest.raises(DeadlineError, match=r"waited 0.05 s for the next batch"):
        next(taken)
    blocked.set()


STUCK = """
import threading
from disttgl_hpc.errors import DeadlineError
from disttgl_hpc.sampling.local_batch import prefetched
try:
    next(prefetched((threading.Event().wait() for _ in range(1)), 1, 0.05, "the next batch"))
except DeadlineError as error:
    raise SystemExit(str(error))
"""


def test_a_process_ends_though_its_storage_is_stuck():
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], check=False, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 1
    assert "waited 0.05 s for the next batch" in ended.stderr


def test_closing_it_ends_the_thread():
    before = set(threading.enumerate())
    taken = prefetched(range(100), 2, 60, "items")
    next(taken)
    (worker,) = set(threading.enumerate()) - before
    taken.close()
    worker.join(60)
    assert not worker.is_alive()
