"""Loops that numpy cannot express, compiled by numba: two decorators, so that all are compiled alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(loop: Loop) -> Loop:
    """Compile a function of numbers and arrays on its first call, and keep the machine code on disk.

    It runs without the interpreter's lock, so that a thread may prepare the next batch meanwhile; a division by
    zero gives what it gives in numpy. The code is kept per processor type beside the source, or in the user's
    cache where that is not writable (numba: ``NUMBA_CACHE_DIR``).
    """
    return cast(Loop, njit(cache=True, nogil=True, error_model="numpy")(loop))


def vectorized(loop: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`compiled`, for arithmetic: sums may be taken in another order, by vector instructions.

    The order is fixed when the loop is compiled, so results repeat bit for bit on one processor type. Infinities
    and NaN stay what they are.
    """
    reordered = {"reassoc", "contract", "nsz"}
    compile_it = njit(cache=True, nogil=True, error_model="numpy", fastmath=reordered)
    return cast(Callable[..., Any], compile_it(loop))
