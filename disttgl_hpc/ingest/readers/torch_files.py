"""Tensors of torch's files as arrays: the only module of this part that loads torch, and only when it is asked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError

_REMEDY = "save plain tensors, or a dict of them, with torch.save"


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote, tensors and plain containers only: ``weights_only``, so that no code is run.

    Tensors are maps of the file where its layout allows. Raises InputError.
    """
    import torch  # noqa: PLC0415 (seconds that other formats need not pay)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # files of before torch 1.6 cannot be mapped
                return torch.load(path, map_location="cpu", weights_only=True)
        # A damaged file raises whatever its bytes happen to stand for.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise InputError(
                f"{path}: must be a whole file of torch.save, without other objects than tensors ({reason}): "
                f"{_REMEDY}"
            ) from None


def load_array(path: Path) -> NDArray[Any]:
    """The one tensor of a file as an array, possibly a map. Raises InputError."""
    return as_array(load_tensors(path), path)


def as_array(value: Any, place: Path | str, name: str = "it") -> NDArray[Any]:
    """A tensor, or an array, as an array; bfloat16 becomes float32. Raises InputError for anything else."""
    if isinstance(value, np.ndarray):
        return value
    import torch  # noqa: PLC0415

    if not isinstance(value, torch.Tensor):
        raise InputError(f"{place}: {name} must be a tensor, it is {type(value).__name__}: {_REMEDY}")
    try:
        tensor = value.detach().cpu()
        return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{place}: {name} must be a dense tensor ({reason}): {_REMEDY}") from None
