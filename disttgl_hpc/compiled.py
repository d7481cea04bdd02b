"""Decorators for loops that NumPy cannot express, compiled by numba with one set of options."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import IndexDataCacheFile

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(loop: Loop) -> Loop:
    """Compile a function of numbers and arrays on its first call and cache the machine code on disk.

    It releases the interpreter lock, so that a thread can prepare the next batch; division by zero follows
    NumPy. The code is cached per processor type beside the source, or in the user's cache if that is not
    writable (numba: ``NUMBA_CACHE_DIR``); if neither is writable, every process compiles.
    """
    return cast(Loop, _compile(loop, nogil=True, error_model="numpy"))


def vectorized(loop: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`compiled`, for arithmetic: sums may be reordered for vector instructions.

    The order is fixed at compilation, so results repeat bit for bit on one processor type. Infinities and NaN
    are preserved. Such a loop may call only :func:`inlined` functions: another vectorized function would have
    its own order of sums after compilation, but that of a copy inside the caller when loaded from the cache.
    """
    reordered = {"reassoc", "contract", "nsz"}
    return _compile(loop, nogil=True, error_model="numpy", fastmath=reordered)


def inlined(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A part of compiled loops that is inlined where it is called, with the caller's arithmetic.

    A real call passes every array field by field, which takes longer than a row of a hundred numbers. Called
    from Python, the function is compiled for that process only.
    """
    return cast(Callable[..., Any], njit(inline="always")(loop))


def cache_folder() -> str:
    """Folder of the cached machine code; "" if no folder is writable and every process compiles."""
    return cast(Any, compiled(_nothing))._cache.cache_path or ""


def _nothing() -> None:
    """A function that is never compiled, to find numba's cache folder."""


class CacheFile(IndexDataCacheFile):
    """numba's index of cached code, whose files are named after their content instead of a running number.

    Two processes that extend an index at once would use the same number, and an entry of one could then refer
    to the file of the other: code for another processor or for other types. With distinct names an entry is
    lost at worst, and compiled again.
    """

    def save(self, key: Any, data: Any) -> None:
        """Store ``data`` for ``key``: types, processor and source."""
        name = sha256(repr((self._source_stamp, key)).encode()).hexdigest()[:16]
        self._data_name_pattern = f"{self._index_name.removesuffix('.nbi')}.{name}.{{number:d}}.nbc"
        super().save(key, data)  # type: ignore[no-untyped-call]


def _compile(loop: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile with numba, cached if a cache folder is writable."""
    try:
        cached = njit(cache=True, **options)(loop)
    except RuntimeError:  # numba: no locator available
        return cast(Callable[..., Any], njit(**options)(loop))
    if hasattr(cached, "_cache"):  # absent with NUMBA_DISABLE_JIT
        cached._cache._cache_file.__class__ = CacheFile
    return cast(Callable[..., Any], cached)
