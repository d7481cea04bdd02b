import pytest

from disttgl_hpc.grid.spans import Span, SpanClock, process_memory_mib


class Ticking:
    """A timer that moves on by a second whenever it is asked."""

    def __init__(self):
        self.now_s = 0

    def __call__(self):
        self.now_s += 1
        return self.now_s


def test_seconds_are_counted_by_name_and_start_again_when_taken():
    clock = SpanClock(("read", "write"), Ticking())
    with clock("read"):
        pass
    with clock("write"), clock("read"):
        pass
    assert clock.take() == {"read": 2.0, "write": 3.0}
    assert clock.take() == {"read": 0.0, "write": 0.0}


def test_spans_are_kept_only_while_somebody_wants_them():
    clock = SpanClock(("read",), Ticking())
    with clock("read"):
        pass
    clock.spans = kept = []
    with clock("read", 7):
        pass
    clock.spans = None
    with clock("read"):
        pass
    assert kept == [Span("read", 3, 4, 7)]


def test_a_block_that_fails_is_counted():
    clock = SpanClock(("read",), Ticking())
    with pytest.raises(ZeroDivisionError), clock("read"):
        raise ZeroDivisionError
    assert clock.take() == {"read": 1.0}


def test_unknown_names_are_no_new_phase():
    clock = SpanClock(("read",))
    with pytest.raises(KeyError), clock("raed"):
        pass


def test_this_process_has_memory():
    resident_mib, peak_mib = process_memory_mib()
    assert 1 < resident_mib <= peak_mib
