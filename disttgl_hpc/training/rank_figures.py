"""What each rank spent a sweep on, and how much memory it takes: gathered once a sweep, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.spans import DaemonFigures, process_memory_mib
from disttgl_hpc.memory.client import MemoryClient
from disttgl_hpc.memory.node_memory import MemoryService
from disttgl_hpc.training.trainer import Trainer

Columns = dict[str, list[Any]]


class RankFigures:
    """Figures of this trainer and, on the first one of a node, of the node's daemon, since the last gathering."""

    def __init__(self, grid: Grid, trainer: Trainer, memory: MemoryService) -> None:
        self._grid, self._trainer, self._memory = grid, trainer, memory
        trainer.loading.take()  # what was loaded to compile the loops
        found = daemon_figures(memory)
        self._daemon_before: Mapping[str, float] = {} if found is None else found.seconds

    def gather(self, train_s: float, evaluate_s: float) -> dict[str, Columns]:
        """{"trainers": columns, "daemons": columns} with an entry for each rank; empty but on the first trainer.

        Columns of trainers: rank, node, seconds of each phase, load (what the loading thread worked beside them),
        train, evaluate, and resident_mib and peak_mib. Of daemons: rank, node, seconds by work, and memory.
        Collective over all trainers.
        """
        resident_mib, peak_mib = process_memory_mib()
        own = {
            "rank": self._grid.world.rank,
            "node": self._grid.node,
            **_rounded(self._trainer.clock.take()),
            **_rounded(self._trainer.loading.take()),
            "train": round(train_s, 4),
            "evaluate": round(evaluate_s, 4),
            "resident_mib": round(resident_mib, 1),
            "peak_mib": round(peak_mib, 1),
        }
        rows = self._grid.trainer_comm.gather((own, self._daemon()))
        if rows is None:
            return {}
        daemons = [daemon for _, daemon in rows if daemon]
        return {"trainers": _columns([trainer for trainer, _ in rows]), "daemons": _columns(daemons)}

    def _daemon(self) -> dict[str, Any]:
        """Figures of the node's daemon for one of its trainers to bring along; nothing for the others."""
        found = daemon_figures(self._memory)
        if found is None or self._grid.local_trainer:
            return {}
        before, self._daemon_before = self._daemon_before, found.seconds
        spent = {work: seconds - before.get(work, 0.0) for work, seconds in found.seconds.items()}
        return {
            "rank": self._grid.placement.daemons[self._grid.node],
            "node": self._grid.node,
            **_rounded(spent),
            "resident_mib": round(found.resident_mib, 1),
            "peak_mib": round(found.peak_mib, 1),
        }


def daemon_figures(memory: MemoryService) -> DaemonFigures | None:
    """What the node's daemon has done so far; None for a single process, which has none."""
    return memory.daemon_figures if isinstance(memory, MemoryClient) else None


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(spent_s, 4) for name, spent_s in seconds.items()}


def _columns(rows: list[dict[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
