"""What the doctor finds out about a machine or an allocation, and how it tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What a finding means for a job."""

    GOOD = "ok"
    UNKNOWN = "not known"
    SLOW = "warning"
    FAILS = "FAILS"


@dataclass(frozen=True)
class Check:
    """A row of the table: what was looked at, what was found, what that means, and the remedy if it is bad."""

    what: str
    found: str
    verdict: Verdict = Verdict.GOOD
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class RankFacts:
    """What one rank has found.

    node: name of its machine. home: first rank of those with which MPI says that it shares memory. launched:
    processes that the launcher says it has started, and its name; None without one. window: what went wrong with
    memory shared by the ranks of its node, or "". cores: numbers of those on which it may run. clock_s: its clock
    at a moment common to all ranks. store: the events' checksum, or "" with ``store_error``. run_error: what keeps
    it from the run directory. free_shared, free_disk: bytes. cache: where compiled loops are kept, "" if nowhere.
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
    """What all ranks have found, and what the job is to be.

    trainers: world ranks of them. grid: its shape in words; or "" with ``grid_error``. shared_bytes: what a node's
    tables need; disk_bytes: what the checkpoints need; both None without events.
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
