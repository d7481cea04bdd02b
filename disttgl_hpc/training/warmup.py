"""Compiling once per node: its first trainer compiles all loops, the others load what it has left on disk.

Machine code is kept in a cache (``compiled.compiled``). With a cold one, trainers that start together would each
compile the same; the results are equal and replace each other whole, but it takes every core as long. A node that
shares its cache with others compiles for itself all the same: nodes need not be of one processor type.
"""

from __future__ import annotations

import time
from typing import Any

from disttgl_hpc.grid.collectives import sleeping_barrier
from disttgl_hpc.log import get_logger
from disttgl_hpc.training.trainer import Trainer

log = get_logger(__name__)

_WORTH_TELLING_S = 2.0


def compile_once(trainer: Trainer, node_trainers: Any, timeout_s: float) -> None:
    """Have rank 0 of ``node_trainers`` rehearse a step, then the others. Collective over this communicator."""
    started_s = time.perf_counter()
    for is_turn in (node_trainers.rank == 0, node_trainers.rank > 0):
        if is_turn:
            trainer.rehearse()
        sleeping_barrier(node_trainers, timeout_s, "the node's first trainer to compile its loops")
    spent_s = time.perf_counter() - started_s
    if node_trainers.rank == 0 and spent_s > _WORTH_TELLING_S:
        log.info("compiled for this processor in %.0f s; the next start loads it", spent_s)
