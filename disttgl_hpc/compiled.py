"""Decorators for loops that NumPy cannot express, compiled by numba with one set of options."""

from __future__ import annotations

import contextlib
import inspect
import logging
import pickle
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numba
import numpy as np
from numba import njit
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

Loop = TypeVar("Loop", bound=Callable[..., object])


def compiled(loop: Loop) -> Loop:
    """Compile a function of numbers and arrays on its first call and cache the machine code on disk.

    It releases the interpreter lock, so that a thread can prepare the next batch; division by zero follows
    NumPy. The code is cached per processor type beside the source, or in the user's cache if that is not
    writable (numba: ``NUMBA_CACHE_DIR``); if neither is writable, every process compiles. After an edit of the
    loop's module, or of a module of its package that this one imports, the loop is compiled again.
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
    cache = _cache_of(_nothing, "")
    return cache.cache_path if cache else ""


@dataclass(frozen=True)
class Compilations:
    """Numbers of cached loops: compiled by this process, and stored for the next start."""

    compiled: int
    stored: int

    @classmethod
    def so_far(cls) -> Compilations:
        """Those since the process began."""
        return cls(CodeCache.compiled, CodeCache.stored)

    def outcome(self, spent_s: float) -> str:
        """What happened in the ``spent_s`` seconds after these compilations, as a sentence for the log."""
        now = Compilations.so_far()
        if not cache_folder():
            return (
                f"compiled for this processor in {spent_s:.0f} s, as at every start: no folder for the machine code "
                "is writable; set NUMBA_CACHE_DIR to one that is"
            )
        if now.compiled == self.compiled:
            return f"rehearsed a step in {spent_s:.0f} s; nothing had to be compiled"
        if now.compiled - self.compiled > now.stored - self.stored:
            return (
                f"compiled for this processor in {spent_s:.0f} s, but not stored for the next start: set "
                "NUMBA_CACHE_DIR to a folder with room"
            )
        return f"compiled for this processor in {spent_s:.0f} s; the next start loads it"


def _nothing() -> None:
    """A function that is never compiled, to find numba's cache folder."""


class CodeCache(FunctionCache):
    """numba's cache of a function, with one file for each key instead of an index of numbered files.

    The key consists of argument types, processor, ``source`` (a hash of everything that is compiled), options
    and versions. Processes that write at the same time write different files, or the same content. A file
    starts with the SHA-256 of the rest. A file that cannot be read or written costs a compilation and is
    logged once per process. Files of earlier sources remain.
    """

    compiled: ClassVar[int] = 0
    stored: ClassVar[int] = 0
    _warned: ClassVar[bool] = False

    def __init__(self, loop: Callable[..., Any], source: str) -> None:
        """Choose the folder. Raises RuntimeError if none is writable."""
        super().__init__(loop)  # type: ignore[no-untyped-call]
        self._source = source

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Compiled code for the types ``sig``; None if there is none."""
        target_context.refresh()
        path = self._file(sig, target_context.codegen())
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._warn(f"{path}: cannot be read ({error.strerror}); compiling again")
        if sha256(content[32:]).digest() != content[:32]:
            return self._warn(f"{path}: damaged; compiling again")
        code = pickle.loads(content[32:])  # noqa: S301 (as trusted as the machine code in it)
        return self._impl.rebuild(target_context, code)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store the compiled code ``data`` for the types ``sig``."""
        CodeCache.compiled += 1
        if not self._impl.check_cachable(data):
            return
        path = self._file(sig, data.codegen)
        code = dumps(self._impl.reduce(data))  # type: ignore[no-untyped-call]
        partial = path.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(sha256(code).digest() + code)
            partial.replace(path)
            CodeCache.stored += 1
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            self._warn(
                f"{path.parent}: cannot store compiled code ({error.strerror}), so the next start compiles again: "
                "make room there, or set NUMBA_CACHE_DIR to another folder"
            )

    def _file(self, sig: Any, codegen: Any) -> Path:
        versions = numba.__version__, np.__version__
        key = repr((self._index_key(sig, codegen), self._source, versions))  # type: ignore[no-untyped-call]
        name = f"{self._impl.filename_base}.{sha256(key.encode()).hexdigest()[:20]}.nbc"
        return Path(self.cache_path) / name

    @classmethod
    def _warn(cls, message: str) -> None:
        if not CodeCache._warned:
            CodeCache._warned = True
            logging.getLogger(__name__).warning("%s", message)


def _compile(loop: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile with numba, cached if a cache folder is writable."""
    dispatcher = cast(Any, njit(**options)(loop))
    if hasattr(dispatcher, "_cache"):  # absent with NUMBA_DISABLE_JIT
        described = repr([(name, sorted(v) if isinstance(v, set) else v) for name, v in options.items()])
        cache = _cache_of(loop, described)
        if cache:
            dispatcher._cache = cache
    return cast(Callable[..., Any], dispatcher)


def _cache_of(loop: Callable[..., Any], options: str) -> CodeCache | None:
    """Cache for ``loop``; None if no folder is writable or the source is not a file."""
    try:
        # The source is read now: a file that is edited before the first call is not what was imported.
        sources = [path.read_bytes() for path in sorted(_sources(loop))]
        return CodeCache(loop, sha256(repr((options, sources)).encode()).hexdigest())
    except (RuntimeError, OSError):
        return None


def _sources(loop: Callable[..., Any]) -> set[Path]:
    """Files of a loop's module and of all modules of its package that it imports, directly or not."""
    file, package = Path(inspect.getfile(loop)), loop.__module__.partition(".")[0]
    root = file.parents[loop.__module__.count(".") + (file.name == "__init__.py")]
    statement = re.compile(
        rf"^[ \t]*(?:from ({package}(?:\.\w+)*) import (\([^)]*\)|.*)|import ({package}(?:\.\w+)*))",
        re.MULTILINE,
    )
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            for module, names, imported in statement.findall(path.read_text(encoding="utf-8")):
                base = root.joinpath(*(module or imported).split("."))
                waiting += _files([base, *(base / name for name in re.findall(r"\w+", names))])
    return found


def _files(modules: list[Path]) -> Iterator[Path]:
    """Source files of modules given by paths without suffix; names that are no modules have none."""
    for module in modules:
        yield from (path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file())
