"""Arrays from files of NumPy (``.npy`` mapped, ``.npz`` read) and tensors from files of torch; never a pickle.

The only module of ``ingest`` that imports torch, and only for files that need it.
"""

from __future__ import annotations

import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError

# The error of NumPy and zipfile for a damaged file depends on which byte is wrong.
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
_REMEDY = "save plain tensors, or a dict of them, with torch.save"


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn errors of a damaged file into InputError."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: must be a complete {kind} without pickled objects ({reason}): write it again"
        ) from None


def map_array(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file as a read-only map. Raises InputError."""
    with readable(path, ".npy file"):
        # A plain array over the map: the memmap class itself makes every small operation slower.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def read_arrays(path: Path, known: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` file by name, in memory. Raises InputError, for unknown names too."""
    # Opened here, because NumPy does not close a damaged file that it opened.
    with readable(path, ".npz file"), path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        unknown = sorted(set(file.files).difference(known))
        if unknown:
            raise InputError(
                f"{path}: arrays must be named {', '.join(known)}, found {', '.join(unknown[:5])}: rename or omit "
                "them"
            )
        return {name: np.asarray(file[name]) for name in file.files}


def load_tensors(path: Path) -> Any:
    """Tensors and plain containers from a file of ``torch.save``, by ``weights_only``, so that no code is run.

    Tensors are maps of the file if its layout allows. Raises InputError.
    """
    import torch  # noqa: PLC0415 (takes seconds, which other formats do not need)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files of before torch 1.6 cannot be mapped
                return torch.load(path, map_location="cpu", weights_only=True)
        # A damaged file can raise any exception.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise InputError(
                f"{path}: must be a complete file of torch.save with tensors only ({reason}): {_REMEDY}"
            ) from None


def load_array(path: Path) -> NDArray[Any]:
    """The one tensor of a file as an array, possibly a map. Raises InputError."""
    return as_array(load_tensors(path), path)


def as_array(value: Any, place: Path | str, name: str = "contents") -> NDArray[Any]:
    """A tensor, or an array, as an array; bfloat16 becomes float32. Raises InputError for anything else."""
    if isinstance(value, np.ndarray):
        return value
    import torch  # noqa: PLC0415

    if not isinstance(value, torch.Tensor):
        raise InputError(f"{place}: {name} must be a tensor, found {type(value).__name__}: {_REMEDY}")
    try:
        tensor = value.detach().cpu()
        return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{place}: {name} must be a dense tensor ({reason}): {_REMEDY}") from None
