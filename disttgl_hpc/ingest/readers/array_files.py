"""Arrays of NumPy's files, ``.npy`` mapped and ``.npz`` read; never a pickle."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError

# What NumPy and zipfile raise for damaged files depends on which byte is wrong.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Complaints about a damaged file in our words."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: must be a whole {kind} without pickled objects ({reason}): write it anew"
        ) from None


def map_array(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file as a read-only map. Raises InputError."""
    with readable(path, ".npy file"):
        # A plain array over the map: the memmap class itself makes every small operation slower.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def read_arrays(path: Path, known: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` file by name, in memory. Raises InputError; unknown names are refused."""
    # Opened here: what NumPy opens it does not close if the file is damaged.
    with readable(path, ".npz file"), path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        unknown = sorted(set(file.files).difference(known))
        if unknown:
            raise InputError(
                f"{path}: arrays must be named {', '.join(known)}, found {', '.join(unknown[:5])}: rename or leave "
                "them out"
            )
        return {name: np.asarray(file[name]) for name in file.files}
