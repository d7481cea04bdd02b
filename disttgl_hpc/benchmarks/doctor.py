"""The doctor: gathers facts about a machine or an allocation on all ranks, and checks whether a job would run.

Checks are pure functions of the facts.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from disttgl_hpc import __version__
from disttgl_hpc.compiled import cache_folder
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import DisttglError, GridError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import Communicator, allgather, barrier, bcast
from disttgl_hpc.grid.mpi_probe import mpi_stack, try_shared_memory
from disttgl_hpc.grid.process_grid import check_slices, nodes_of, place
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.grid.shared_memory import free_shared_memory
from disttgl_hpc.log import mebibytes
from disttgl_hpc.model.input_builder import num_parameters
from disttgl_hpc.planning.grid_choice import grid_shape, shared_bytes
from disttgl_hpc.planning.machine import own_cores, versions
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import write_text
from disttgl_hpc.training.run_events import with_inputs


class Verdict(Enum):
    """The result of a check."""

    GOOD = "ok"
    UNKNOWN = "not known"
    SLOW = "warning"
    FAILS = "FAILS"


@dataclass(frozen=True)
class Check:
    """A row of the table. what: the subject. found: the facts. remedy: if the verdict is bad."""

    what: str
    found: str
    verdict: Verdict = Verdict.GOOD
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class RankFacts:
    """Facts of one rank.

    node: name of its machine. home: first of the ranks that share memory with it, according to MPI. launched: name
    of the launcher and the processes that it started; None without one. window: error of memory shared by the ranks
    of its node, or "". cores: numbers of those on which it may run. clock_s: its clock at a moment common to all
    ranks. store: checksum of the events, or "" with ``store_error``. run_error: error of the run directory, or "".
    free_shared, free_disk: bytes. cache: folder of compiled loops, or "".
    """

    node: str
    home: int
    launched: tuple[str, int] | None
    mpi: str
    versions: tuple[tuple[str, str], ...]
    window: str
    cores: frozenset[int]
    omp_threads: str
    clock_s: float
    store: str
    store_error: str
    run_error: str
    free_disk: int
    free_shared: int
    cache: str
    gpus: int


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """Facts of all ranks, and of the job.

    trainers: world ranks. grid: its shape in words, or "" with ``grid_error``. shared_bytes, disk_bytes: needed by
    the windows of a node and by the checkpoints; None without events.
    """

    ranks: Sequence[RankFacts]
    trainers: Sequence[int]
    grid: str
    grid_error: str
    threads: int
    device: str
    events: str
    shared_bytes: int | None
    disk_bytes: int | None
    run: str

    def nodes(self) -> list[list[int]]:
        """Ranks of each node."""
        homes = sorted({rank.home for rank in self.ranks})
        return [[number for number, rank in enumerate(self.ranks) if rank.home == home] for home in homes]


_CLOCK_S = 1.0  # difference of clocks from which on log lines are hard to order


def diagnose(job: JobFacts) -> list[Check]:
    """All checks, causes before consequences."""
    checks: tuple[Callable[[JobFacts], Check], ...] = (
        check_launcher,
        check_mpi,
        check_nodes,
        check_windows,
        check_grid,
        check_cores,
        check_threads,
        check_shared_memory,
        check_events,
        check_run,
        check_clocks,
        check_versions,
        check_cache,
    )
    has_gpus = job.device != "cpu" and job.trainers
    return [check(job) for check in (*checks, check_gpus)[: None if has_gpus else -1]]


def check_launcher(job: JobFacts) -> Check:
    """MPI has all processes that the launcher started."""
    launched, size = job.ranks[0].launched, len(job.ranks)
    if launched is None:
        return Check("launcher", f"none, {count_of(size, 'rank')}")
    found = f"{launched[0]} started {count_of(launched[1], 'process')}, MPI has {count_of(size, 'rank')}"
    if launched[1] == size:
        return Check("launcher", found)
    return Check(
        "launcher",
        found,
        Verdict.FAILS,
        "the launcher belongs to another MPI than mpi4py, or uses another protocol: load one MPI only; with "
        "srun try --mpi=pmi2 (MPICH, Intel) or --mpi=pmix (Open MPI)",
    )


def check_mpi(job: JobFacts) -> Check:
    """All ranks use one MPI library."""
    return _same(
        job,
        "MPI library",
        lambda rank: rank.mpi,
        Verdict.FAILS,
        "load the same modules and environment on all nodes",
    )


def check_nodes(job: JobFacts) -> Check:
    """Ranks of one machine share memory."""
    nodes = job.nodes()
    names = [job.ranks[node[0]].node for node in nodes]
    found = ", ".join(
        f"{name}: {count_of(len(node), 'rank')}" for name, node in zip(names, nodes, strict=True)
    )
    if len(set(names)) < len(names):
        remedy = "ranks of one machine do not share memory: start them in one container, with one /dev/shm"
        return Check("nodes", found, Verdict.SLOW, remedy)
    return Check("nodes", found)


def check_windows(job: JobFacts) -> Check:
    """The ranks of a node read what one of them writes to shared memory."""
    bad = [f"rank {number}: {rank.window}" for number, rank in enumerate(job.ranks) if rank.window]
    if not bad:
        return Check("shared windows", f"written and read on {count_of(len(job.nodes()), 'node')}")
    remedy = "MPI's shared memory does not work there: check the size and permissions of /dev/shm"
    return Check("shared windows", bad[0], Verdict.FAILS, remedy)


def check_grid(job: JobFacts) -> Check:
    """The grid fits the ranks."""
    if job.grid_error:
        problem, _, remedy = job.grid_error.partition(": ")
        return Check("grid", problem, Verdict.FAILS, remedy)
    return Check("grid", job.grid)


def check_cores(job: JobFacts) -> Check:
    """Each node has a core for every thread of its trainers, among those on which the trainer may run.

    A daemon sleeps nearly all the time and needs none.
    """
    crowded, free = [], []
    for node in job.nodes():
        trainers = [number for number in node if number in job.trainers]
        masks = {job.ranks[number].cores for number in trainers}
        for mask in [*masks, frozenset[int]().union(*masks)]:
            inside = [number for number in trainers if job.ranks[number].cores <= mask]
            if len(inside) * job.threads > len(mask):
                crowded.append((job.ranks[node[0]].node, inside, mask))
        free.append(len(frozenset[int]().union(*masks)))
    if not crowded:
        threads = f"{job.threads} thread{'' if job.threads == 1 else 's'} a trainer"
        return Check("cores", f"{_spread(free)} for the trainers of a node, {threads}")
    name, inside, mask = min(crowded, key=lambda one: len(one[2]))
    cores = ", ".join(map(str, sorted(mask)[:8])) + (", …" if len(mask) > 8 else "")
    found = (
        f"{name}: {count_of(len(inside), 'trainer')} of {count_of(job.threads, 'thread')} (rank"
        f"{'' if len(inside) == 1 else 's'} {', '.join(map(str, inside[:8]))}) on {count_of(len(mask), 'core')} "
        f"({cores})"
    )
    remedy = (
        "they slow each other down: use fewer trainers or --threads, more --cpus-per-task (srun does not "
        "inherit it from sbatch), or another binding (mpiexec -bind-to none, srun --cpu-bind=cores)"
    )
    return Check("cores", found, Verdict.SLOW, remedy)


def check_threads(job: JobFacts) -> Check:
    """OMP_NUM_THREADS is set to the threads of a trainer before libraries start theirs."""
    wanted, odd = f"{job.threads}", sorted({rank.omp_threads for rank in job.ranks} - {f"{job.threads}"})
    if not odd or len(job.ranks) == 1:
        return Check("threads", f"OMP_NUM_THREADS={job.ranks[0].omp_threads or '(not set)'}")
    found = f"OMP_NUM_THREADS={odd[0] or '(not set)'}, --threads {wanted}"
    return Check("threads", found, Verdict.SLOW, f"export OMP_NUM_THREADS={wanted}")


def check_shared_memory(job: JobFacts) -> Check:
    """Shared memory holds all windows of a node."""
    if len(job.ranks) == 1:
        return Check("shared memory", "not needed by one process")
    free = min(rank.free_shared for rank in job.ranks)
    if job.shared_bytes is None:
        return Check("shared memory", f"{mebibytes(free)} free on a node", Verdict.UNKNOWN, "give EVENTS")
    found = f"{mebibytes(job.shared_bytes)} needed on a node, {mebibytes(free)} free"
    if job.shared_bytes <= free:
        return Check("shared memory", found)
    remedy = (
        "enlarge /dev/shm (in a container, --shm-size), more nodes, fewer replicas, or a smaller --dim-memory"
    )
    return Check("shared memory", found, Verdict.FAILS, remedy)


def check_events(job: JobFacts) -> Check:
    """All nodes read the same events."""
    if not job.events:
        return Check("events", "not given", Verdict.UNKNOWN, "give the EVENTS to train on")
    bad = [rank for rank in job.ranks if rank.store_error]
    if bad:
        problem, _, remedy = bad[0].store_error.rpartition(": ")
        return Check("events", f"{bad[0].node}: {problem}", Verdict.FAILS, remedy)
    if len({rank.store for rank in job.ranks}) > 1:
        other = next(rank for rank in job.ranks if rank.store != job.ranks[0].store)
        found = f"{job.events} differs between {job.ranks[0].node} and {other.node}"
        return Check("events", found, Verdict.FAILS, "put one copy on a file system that all nodes see")
    return Check("events", f"{job.events}, checksum {job.ranks[0].store[:16]}… on every rank")


def check_run(job: JobFacts) -> Check:
    """The run directory is writable, the same on all nodes, and has room for checkpoints."""
    bad = [rank for rank in job.ranks if rank.run_error]
    if bad:
        problem, _, remedy = bad[0].run_error.rpartition(": ")
        return Check("run directory", f"{bad[0].node}: {problem}", Verdict.FAILS, remedy)
    free = job.ranks[0].free_disk
    found = f"{job.run}: {mebibytes(free)} free"
    if job.disk_bytes is None:
        return Check("run directory", found)
    found += f", checkpoints need {mebibytes(job.disk_bytes)}"
    if job.disk_bytes <= free:
        return Check("run directory", found)
    return Check(
        "run directory", found, Verdict.FAILS, "free some, or use another --run or fewer --keep-checkpoints"
    )


def check_clocks(job: JobFacts) -> Check:
    """Clocks agree, so that log lines can be ordered; nothing else depends on them."""
    clocks = [rank.clock_s for rank in job.ranks]
    apart = max(clocks) - min(clocks)
    found = f"{apart:.2f} s apart"
    if apart <= _CLOCK_S:
        return Check("clocks", found)
    return Check(
        "clocks",
        found,
        Verdict.SLOW,
        "synchronise the clocks of the nodes (NTP): log lines will not be in order",
    )


def check_versions(job: JobFacts) -> Check:
    """All ranks use the same software: results depend on it."""
    return _same(
        job,
        "software",
        lambda rank: ", ".join(f"{name} {version}" for name, version in rank.versions),
        Verdict.FAILS,
        "use one environment, on a file system that all nodes see",
    )


def check_cache(job: JobFacts) -> Check:
    """Compiled loops are cached."""
    bad = [rank for rank in job.ranks if not rank.cache]
    if not bad:
        return Check("compiled loops", f"cached in {job.ranks[0].cache}")
    remedy = "every start compiles for some 15 s on every rank: set NUMBA_CACHE_DIR to a writable folder"
    return Check("compiled loops", f"{bad[0].node}: no folder to cache them", Verdict.SLOW, remedy)


def check_gpus(job: JobFacts) -> Check:
    """Every trainer has a GPU."""
    fewest = min((job.ranks[number] for number in job.trainers), key=lambda rank: rank.gpus)
    most = max(sum(number in job.trainers for number in node) for node in job.nodes())
    found = f"{fewest.node}: {count_of(fewest.gpus, 'GPU')} for {count_of(most, 'trainer')} of a node"
    if not fewest.gpus:
        remedy = "request GPUs from the scheduler, install a torch with CUDA, or use --device cpu"
        return Check("GPUs", found, Verdict.FAILS, remedy)
    if fewest.gpus < most:
        return Check("GPUs", found, Verdict.SLOW, "trainers share GPUs: one for each is faster")
    return Check("GPUs", found)


def _same(
    job: JobFacts, what: str, of: Callable[[RankFacts], Hashable], verdict: Verdict, remedy: str
) -> Check:
    """A check that all ranks have the same facts."""
    first = of(job.ranks[0])
    for number, rank in enumerate(job.ranks):
        if of(rank) != first:
            return Check(what, f"rank 0: {first}; rank {number}: {of(rank)}", verdict, remedy)
    return Check(what, f"{first}")


def _spread(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return count_of(least, "core") if least == most else f"{least} to {most} cores"


def count_of(number: int, noun: str) -> str:
    """A number with its noun: "1 rank", "2 processes"."""
    plural = noun if number == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {plural}"


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


def examine(events: Path | None, run: Path, config: TrainConfig, world: Communicator) -> JobFacts:
    """Facts for a job of these settings on all ranks of ``world``, an MPI communicator. Collective.

    Allocates some shared memory and writes a small file, and removes both.
    """
    nodes = nodes_of(world, config.timeout_s)
    home = next(node[0] for node in nodes if world.rank in node)
    store, store_error = _open(events, config)
    launch = launched_by(dict(os.environ))
    run_error = _try_run(run, world, config.timeout_s)
    own = RankFacts(
        node=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        home=home,
        launched=launch and launch[:2],
        mpi=mpi_stack(),
        versions=(("disttgl", __version__), *versions("numba", "h5py").items()),
        window=try_shared_memory(world, config.timeout_s),
        cores=own_cores(),
        omp_threads=os.environ.get("OMP_NUM_THREADS", ""),
        clock_s=_clock_s(world, config.timeout_s),
        store=store.checksum if store else "",
        store_error=store_error,
        run_error=run_error,
        free_disk=shutil.disk_usage(_existing(run)).free,
        free_shared=free_shared_memory(),
        cache=cache_folder(),
        gpus=torch.cuda.device_count() if config.device == "cuda" else 0,
    )
    ranks = allgather(world, own, config.timeout_s, "the ranks' facts")
    has_events = all(rank.store for rank in ranks)
    stream = store.stream if store and has_events else None
    return _job(stream, nodes, ranks, config, world, events=f"{events or ''}", run=f"{run}")


def _job(
    stream: EventStream | None,
    nodes: Any,
    ranks: list[RankFacts],
    config: TrainConfig,
    world: Communicator,
    *,
    events: str,
    run: str,
) -> JobFacts:
    """Facts of the job, with its grid and sizes. Collective, because the automatic grid is."""
    trainers = tuple(rank for node in nodes for rank in (node[:-1] if len(ranks) > 1 else node))
    grid, grid_error, needed, disk_bytes = "", "", None, None
    try:
        placement = place(nodes, _shape(stream, config, world))
        trainers = placement.trainers
        roles = count_of(len(trainers), "trainer"), count_of(len(placement.daemons), "daemon")
        grid = f"{placement.shape}: {' and '.join(roles)}"
        if stream is not None:
            check_slices(placement.shape, stream.split.train_end)
            sizes = RunPlan.of(stream, config, placement.shape).sizes
            parameters = num_parameters(stream, config)
            needed = shared_bytes(stream, config, placement.shape, max(1, len(placement.daemons)), parameters)
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
        shared_bytes=needed,
        disk_bytes=disk_bytes,
        run=run,
    )


def _shape(stream: EventStream | None, config: TrainConfig, world: Communicator) -> GridShape | None:
    """The grid of the settings; None for the automatic one without events. Collective."""
    if stream is not None:
        return grid_shape(stream, config, world, num_parameters(stream, config))
    return GridShape.parse(config.grid) if config.grid not in ("", "auto") else None


def _open(events: Path | None, config: TrainConfig) -> tuple[EventStore | None, str]:
    """The events and "", or None and the reason why they cannot be trained on."""
    if events is None:
        return None, ""
    try:
        store = with_inputs(EventStore.open(events, check=True), config)
    except DisttglError as error:
        return None, f"{error}"
    return store, ""


def _existing(run: Path) -> Path:
    """The run directory, or its nearest existing parent."""
    return next(place for place in (run.absolute(), *run.absolute().parents) if place.exists())


def _try_run(run: Path, world: Communicator, timeout_s: float) -> str:
    """The error of a file that rank 0 writes to the run directory and all ranks look for, or "". Collective."""
    folder, error, what = _existing(run), "", "the first rank to write to the run directory"
    name = f".disttgl-doctor-{socket.gethostname()}-{os.getpid()}"
    trace = folder / bcast(world, name, timeout_s, what)
    if world.rank == 0:
        try:
            write_text(trace, "a test of whether all nodes see this folder\n")
        except OSError as failure:
            error = f"{folder} cannot be written ({failure.strerror}): choose another --run"
    is_written = bcast(world, not error, timeout_s, what)
    if is_written and not trace.exists():
        error = f"{folder} is not the folder of rank 0: choose a --run on a file system that all nodes see"
    barrier(world, timeout_s, "the other ranks to look for the file")
    if world.rank == 0:
        with suppress(OSError):
            trace.unlink()
    return error


def _clock_s(world: Communicator, timeout_s: float) -> float:
    """The clock of this rank after a barrier. Collective."""
    barrier(world, timeout_s, "the other ranks to read the clock")
    return time.time()
