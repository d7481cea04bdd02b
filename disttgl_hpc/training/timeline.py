"""How ranks spend their time: figures per sweep, and a timeline of some steps as a Chrome trace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.grid.mpi_probe import clock_offsets
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.spans import DaemonFigures, Span, process_memory_mib
from disttgl_hpc.memory.client import MemoryClient
from disttgl_hpc.memory.node_memory import MemoryService
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.training.resume import Job
from disttgl_hpc.training.trainer import Trainer

Columns = dict[str, list[Any]]


class RankFigures:
    """Figures of this trainer and, on a node's first trainer, of the daemon, since the last :meth:`gather`."""

    def __init__(self, grid: Grid, trainer: Trainer, memory: MemoryService) -> None:
        self._grid, self._trainer, self._memory = grid, trainer, memory
        trainer.loading.take()  # discards the time of compilation
        found = daemon_figures(memory)
        self._daemon_before: Mapping[str, float] = {} if found is None else found.seconds

    def gather(self, train_s: float, evaluate_s: float) -> dict[str, Columns]:
        """{"trainers": columns, "daemons": columns} with an entry for each rank; empty but on the first trainer.

        Columns of trainers: rank, node, seconds of each phase, load (the loading thread, in parallel), train,
        evaluate, resident_mib and peak_mib. Columns of daemons: rank, node, seconds by work, and memory.
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
        """Figures of the node's daemon on its first trainer; nothing on the others."""
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
    """Figures of the node's daemon so far; None in a single process, which has no daemon."""
    return memory.daemon_figures if isinstance(memory, MemoryClient) else None


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(spent_s, 4) for name, spent_s in seconds.items()}


def _columns(rows: list[dict[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


TRACE_VERSION = 1
_STEPS, _LOADING = 0, 1  # tracks of a trainer; a daemon has one per replica


def traced_steps(config: TrainConfig, plan: RunPlan, first_step: int) -> range:
    """Steps of the plan that a job starting at ``first_step`` traces.

    These are ``trace_steps`` steps after the first ``trace_after`` ones, if the job is long enough. The job
    always has one more step: when its reads are answered, the daemon has completed the requests of the traced
    steps.
    """
    count = min(config.trace_steps, max(0, plan.num_steps - first_step - 1))
    begin = min(first_step + config.trace_after, plan.num_steps - 1 - count)
    return range(begin, begin + count)


class Timeline:
    """Records the spans of this trainer in the steps of ``window``, and gathers those of all ranks afterwards."""

    def __init__(self, job: Job, memory: MemoryService, trainer: Trainer, window: range) -> None:
        self._job, self._memory, self._trainer, self._window = job, memory, trainer, window
        self._spans: list[Span] = []
        self._loads: list[Span] = []

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Context of one step; after the window, collective over all trainers, which write trace.json."""
        window = self._window
        if step == window.start and window:
            self._trainer.clock.spans, self._trainer.loading.spans = self._spans, self._loads
        begin_s = time.perf_counter()
        yield
        if step in window:
            self._spans.append(Span("step", begin_s, time.perf_counter(), step))
        elif step == window.stop and window:
            self._trainer.clock.spans = self._trainer.loading.spans = None
            self._write()

    def _write(self) -> None:
        """Gather the spans of all ranks on one clock and write them."""
        grid, plan = self._job.grid, self._job.plan
        offsets = []
        if not grid.local_trainer:
            offsets = clock_offsets(grid.leader_comm, self._job.config.timeout_s)
        end_s = max(span.end_s for span in self._spans if span.name == "step")
        tracks = [
            (_STEPS, "steps", [span for span in self._spans if span.end_s <= end_s]),
            (_LOADING, "loading thread", [span for span in self._loads if span.begin_s <= end_s]),
        ]
        found = daemon_figures(self._memory)
        served = [] if found is None or grid.local_trainer else list(found.spans)
        rows = grid.trainer_comm.gather((grid.world.rank, grid.node, grid.role, tracks, served))
        if rows is None:
            return
        ranks = [(rank, node, role, tracks) for rank, node, role, tracks, _ in rows]
        for _, node, _, _, spans in rows:
            if spans:
                ranks.append(
                    (grid.placement.daemons[node], node, f"daemon of node {node}", _by_replica(spans))
                )
        events = trace_events(sorted(ranks), [offset_s for offset_s, _ in offsets], plan.before.steps)
        first = plan.before.steps + self._window.start
        about = {
            "kind": "disttgl-trace",
            "schema_version": TRACE_VERSION,
            "grid": plan.shape.option,
            "first_step": first,
            "last_step": first + len(self._window) - 1,
            "clock_error_us": round(1e6 * max(error_s for _, error_s in offsets), 1),
        }
        self._job.run.write_trace({"traceEvents": events, "displayTimeUnit": "ms", "otherData": about})


Track = tuple[int, str, list[Span]]
Rank = tuple[int, int, str, list[Track]]


def _by_replica(spans: Sequence[Span]) -> list[Track]:
    """A daemon's spans in one track per replica."""
    replicas = sorted({span.replica for span in spans})
    return [
        (number, f"replica {replica}", [span for span in spans if span.replica == replica])
        for number, replica in enumerate(replicas)
    ]


def trace_events(
    ranks: Sequence[Rank], offsets_s: Sequence[float], steps_before: int
) -> list[dict[str, Any]]:
    """Events of Chrome's trace format: a process per rank, a thread per track.

    ranks: (rank, node, role, tracks). offsets_s: how far each node's clock is ahead. Times are microseconds
    since the first step began, on the first node's clock. steps_before: added to the numbers of steps.
    """
    starts = [
        span.begin_s - offsets_s[node]
        for _, node, _, tracks in ranks
        for _, _, spans in tracks
        for span in spans
        if span.name == "step"
    ]
    zero_s = min(starts)
    events: list[dict[str, Any]] = []
    for rank, node, role, tracks in ranks:
        where = {"pid": rank, "tid": 0}
        events.append({"ph": "M", "name": "process_name", **where, "args": {"name": f"rank {rank}: {role}"}})
        events.append({"ph": "M", "name": "process_sort_index", **where, "args": {"sort_index": rank}})
        for number, name, spans in tracks:
            where = {"pid": rank, "tid": number}
            events.append({"ph": "M", "name": "thread_name", **where, "args": {"name": name}})
            for span in sorted(spans, key=lambda span: (span.begin_s, -span.end_s)):
                begin_us = 1e6 * (span.begin_s - offsets_s[node] - zero_s)
                events.append(
                    {
                        "ph": "X",
                        "name": span.name,
                        **where,
                        "ts": round(begin_us, 1),
                        "dur": round(1e6 * (span.end_s - span.begin_s), 1),
                        **_details(span, steps_before),
                    }
                )
    return events


def _details(span: Span, steps_before: int) -> dict[str, Any]:
    """The known details of a span."""
    if span.name == "step":
        return {"args": {"step": steps_before + span.counter}}
    details = {"counter": span.counter, "replica": span.replica, "slice": span.minibatch}
    known = {name: number for name, number in details.items() if number >= 0}
    return {"args": known} if known else {}
