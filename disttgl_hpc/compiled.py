"""Loops that numpy cannot express, compiled by numba: three decorators, so that all are compiled alike."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import IndexDataCacheFile

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(loop: Loop) -> Loop:
    """Compile a function of numbers and arrays on its first call, and keep the machine code on disk.

    It runs without the interpreter's lock, so that a thread may prepare the next batch meanwhile; a division by
    zero gives what it gives in numpy. The code is kept per processor type beside the source, or in the user's
    cache where that is not writable (numba: ``NUMBA_CACHE_DIR``); where nothing is, every process compiles anew.
    """
    return cast(Loop, _compile(loop, nogil=True, error_model="numpy"))


def vectorized(loop: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`compiled`, for arithmetic: sums may be taken in another order, by vector instructions.

    The order is fixed when the loop is compiled, so results repeat bit for bit on one processor type. Infinities
    and NaN stay what they are. What such a loop is made of is :func:`inlined`, never another one of these: a
    function that it calls has its own order of sums when it has just been compiled, and that of a copy within
    the caller's code when it comes from the disk.
    """
    reordered = {"reassoc", "contract", "nsz"}
    return _compile(loop, nogil=True, error_model="numpy", fastmath=reordered)


def inlined(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A piece of compiled loops, written out wherever one of them calls it, with that loop's arithmetic.

    Else a call hands every array over field by field, which takes longer than a row of a hundred numbers.
    Called from Python, it is compiled on its own and for that process only.
    """
    return cast(Callable[..., Any], njit(inline="always")(loop))


def cache_folder() -> str:
    """Where machine code of this package's loops is kept; "" if nowhere: every process compiles anew then."""
    return cast(Any, compiled(_nothing))._cache.cache_path or ""


def _nothing() -> None:
    """A loop that is never compiled, to see what numba would do with the code of others here."""


class CacheFile(IndexDataCacheFile):
    """numba's index of machine code, with files named after what they are for and not by the next number.

    Two processes that add to an index at once would take the same number, and the one's entry might come to mean
    the other's file: code for another processor, or for other types. With names of their own an entry may be lost
    at worst, and is compiled again.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep ``data`` for ``key``: types, processor and source."""
        name = sha256(repr((self._source_stamp, key)).encode()).hexdigest()[:16]
        self._data_name_pattern = f"{self._index_name.removesuffix('.nbi')}.{name}.{{number:d}}.nbc"
        super().save(key, data)  # type: ignore[no-untyped-call]


def _compile(loop: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function that numba compiles, with its cache if there is a place for one."""
    try:
        cached = njit(cache=True, **options)(loop)
    except RuntimeError:  # numba: no locator available
        return cast(Callable[..., Any], njit(**options)(loop))
    if hasattr(cached, "_cache"):  # it has none where nothing is compiled (NUMBA_DISABLE_JIT)
        cached._cache._cache_file.__class__ = CacheFile
    return cast(Callable[..., Any], cached)
