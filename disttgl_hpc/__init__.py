"""Distributed training of memory-based temporal graph neural networks under MPI (DistTGL, SC'23).

From Python: see :mod:`disttgl_hpc.api`, whose names are this package's.
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
    """A name of the library, imported when it is asked for: the command line should not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("disttgl_hpc.api"), name)


def __dir__() -> list[str]:
    """The names of the library, too."""
    return sorted([*globals(), *__all__])
