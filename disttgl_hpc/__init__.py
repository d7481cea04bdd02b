"""Distributed training of memory-based temporal graph neural networks under MPI (DistTGL, SC'23).

The Python interface is documented in :mod:`disttgl_hpc.api`, whose names this package exports.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from disttgl_hpc.api import (
        Embeddings,
        EventStore,
        Recommendations,
        Run,
        TrainConfig,
        load_run,
        prepare,
        prepare_frame,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "Embeddings",
    "EventStore",
    "Recommendations",
    "Run",
    "TrainConfig",
    "load_run",
    "prepare",
    "prepare_frame",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a name of the library on first use, so that the command line does not import torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module("disttgl_hpc.grid.shared_memory").check_room_for_mpi()
    return getattr(importlib.import_module("disttgl_hpc.api"), name)


def __dir__() -> list[str]:
    """All names, including those imported on first use."""
    return sorted([*globals(), *__all__])
