"""Gathers facts about a machine or an allocation on all ranks, before a job."""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from disttgl_hpc import __version__
from disttgl_hpc.benchmarks.diagnosis import JobFacts, RankFacts, count_of
from disttgl_hpc.compiled import cache_folder
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import DisttglError, GridError
from disttgl_hpc.events.stream import EventStream, check_split
from disttgl_hpc.grid.mpi_probe import mpi_stack, try_shared_memory
from disttgl_hpc.grid.process_grid import check_slices, nodes_of, place
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.memory.shared_tables import num_bytes, table_shapes
from disttgl_hpc.planning.grid_choice import grid_shape
from disttgl_hpc.planning.machine import free_shared_memory, own_cores, versions
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.store.event_store import EventStore

_LAUNCHERS = (
    ("launcher", "PMI_SIZE", "PMI_RANK"),
    ("mpiexec", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # set even without an MPI protocol
)
_BATCH_STEP = ("", "batch", "4294967291", "-5")
_FLOAT32_BYTES = 4
_MORE_CHECKPOINTS = 3  # the best one, that of the last sweep, and the one being written


def launched_by(environment: dict[str, str]) -> tuple[str, int, int] | None:
    """(launcher, processes, number of this one) from the launcher's environment; None without a launcher."""
    for launcher, size, rank in _LAUNCHERS:
        is_step = launcher != "srun" or environment.get("SLURM_STEP_ID", "") not in _BATCH_STEP
        if is_step and environment.get(size, "").isdecimal():
            return launcher, int(environment[size]), int(environment.get(rank, "0") or 0)
    return None


def examine(events: Path | None, run: Path, config: TrainConfig, world: Any) -> JobFacts:
    """Facts for a job of these settings on all ranks of ``world``, an MPI communicator. Collective.

    Allocates some shared memory and writes a small file, and removes both.
    """
    nodes = nodes_of(world)
    home = next(node[0] for node in nodes if world.rank in node)
    store, store_error = _open(events)
    launch = launched_by(dict(os.environ))
    run_error = _try_run(run, world)
    own = RankFacts(
        node=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        home=home,
        launched=launch and launch[:2],
        mpi=mpi_stack(),
        versions=(("disttgl", __version__), *versions("numba", "h5py").items()),
        window=try_shared_memory(world),
        cores=own_cores(),
        omp_threads=os.environ.get("OMP_NUM_THREADS", ""),
        clock_s=_clock_s(world),
        store=store.checksum if store else "",
        store_error=store_error,
        run_error=run_error,
        free_disk=shutil.disk_usage(_existing(run)).free,
        free_shared=free_shared_memory(),
        cache=cache_folder(),
        gpus=torch.cuda.device_count() if config.device == "cuda" else 0,
    )
    ranks = world.allgather(own)
    has_events = all(rank.store for rank in ranks)
    stream = store.stream if store and has_events else None
    return _job(stream, nodes, ranks, config, world, events=f"{events or ''}", run=f"{run}")


def _job(
    stream: EventStream | None,
    nodes: Any,
    ranks: list[RankFacts],
    config: TrainConfig,
    world: Any,
    *,
    events: str,
    run: str,
) -> JobFacts:
    """Facts of the job, with its grid and sizes. Collective, because the automatic grid is."""
    trainers = tuple(rank for node in nodes for rank in (node[:-1] if len(ranks) > 1 else node))
    grid, grid_error, shared_bytes, disk_bytes = "", "", None, None
    try:
        placement = place(nodes, _shape(stream, config, world))
        trainers = placement.trainers
        roles = count_of(len(trainers), "trainer"), count_of(len(placement.daemons), "daemon")
        grid = f"{placement.shape}: {' and '.join(roles)}"
        if stream is not None:
            check_slices(placement.shape, stream.split.train_end)
            sizes = RunPlan.of(stream, config, placement.shape).sizes
            replicas = max(1, placement.replicas_per_node)
            shared_bytes = num_bytes(table_shapes(sizes, placement.shape, replicas))
            one = placement.shape.memory * sizes.num_nodes * sizes.dim_row * _FLOAT32_BYTES
            disk_bytes = one * (config.keep_checkpoints + _MORE_CHECKPOINTS)
    except GridError as error:
        grid_error = f"{error}"
    return JobFacts(
        ranks=ranks,
        trainers=trainers,
        grid=grid,
        grid_error=grid_error,
        threads=config.threads,
        device=config.device,
        events=events,
        shared_bytes=shared_bytes,
        disk_bytes=disk_bytes,
        run=run,
    )


def _shape(stream: EventStream | None, config: TrainConfig, world: Any) -> GridShape | None:
    """The grid of the settings; None for the automatic one without events. Collective."""
    if stream is not None:
        return grid_shape(stream, config, world)
    return GridShape.parse(config.grid) if config.grid not in ("", "auto") else None


def _open(events: Path | None) -> tuple[EventStore | None, str]:
    """The events and "", or None and the reason why they cannot be trained on."""
    if events is None:
        return None, ""
    try:
        store = EventStore.open(events)
        check_split(store.stream)
    except DisttglError as error:
        return None, f"{error}"
    return store, ""


def _existing(run: Path) -> Path:
    """The run directory, or its nearest existing parent."""
    return next(place for place in (run.absolute(), *run.absolute().parents) if place.exists())


def _try_run(run: Path, world: Any) -> str:
    """The error of a file that rank 0 writes to the run directory and all ranks look for, or "". Collective."""
    folder, error = _existing(run), ""
    trace = folder / world.bcast(f".disttgl-doctor-{socket.gethostname()}-{os.getpid()}")
    if world.rank == 0:
        try:
            trace.write_text("a test of whether all nodes see this folder\n", encoding="utf-8")
        except OSError as failure:
            error = f"{folder} cannot be written ({failure.strerror}): choose another --run"
    is_written = world.bcast(not error)
    if is_written and not trace.exists():
        error = f"{folder} is not the folder of rank 0: choose a --run on a file system that all nodes see"
    world.Barrier()
    if world.rank == 0:
        with suppress(OSError):
            trace.unlink()
    return error


def _clock_s(world: Any) -> float:
    """The clock of this rank after a barrier. Collective."""
    world.Barrier()
    return time.time()
