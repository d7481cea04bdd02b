"""Sampling in advance: all ranks write parts of a batch store, which rank 0 joins.

A part is a range of global batches that does not depend on the number of ranks, and its content depends only
on the key. Any number of ranks therefore makes the same store, and parts finished by an interrupted run are
reused.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.events.stream import EventStream, check_split
from disttgl_hpc.grid.collectives import Communicator, decide_together, together
from disttgl_hpc.grid.schedule import batch_bounds, slice_bounds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.sampling.graph_records import split_graph
from disttgl_hpc.sampling.local_batch import LiveGraphs, Slice, batch_key, record_format
from disttgl_hpc.store.batch_store import KIND, BatchKey, BatchStore, is_part, join_parts, write_part
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import check_no_link, check_output, remove_files, remove_folder

log = get_logger(__name__)

_PART_SLOTS = 2_000_000  # neighbour slots of a part: some twenty megabytes, about a second
_TRIED_BATCHES = 4


def sample(
    store: EventStore,
    config: TrainConfig,
    minibatch: int,
    output: Path,
    world: Communicator,
    *,
    force: bool = False,
) -> BatchStore | None:
    """Write the batch store of a run's settings, with all ranks of ``world``, an MPI communicator (collective).

    Returns the store on rank 0. Raises ConfigError if the settings have no fixed negative sets or ``output``
    must not be replaced, StoreError if there is no room for it or it cannot be written; then on all ranks.
    """
    check_output(output, KIND, force=force)
    if not config.negative_sets:
        raise ConfigError("a batch store needs fixed negative sets: give their number with --negative-sets")
    decide_together(world, store.check_contents, config.timeout_s, "check the events")
    check_split(store.stream)
    key = batch_key(store, config, minibatch)
    maker = _Maker(store.stream, key, LiveGraphs(store.stream, config))
    folder = output.with_name(f".{output.name}.parts")
    own_names = rf"part-\d+\.h5|{re.escape(output.name)}"
    parts = {folder / f"part-{first:09d}.h5": (first, last) for first, last in maker.part_bounds()}
    is_root = world.rank == 0
    with together(world, config.timeout_s, "the first rank to check the events"):
        if is_root:
            _prepare(maker, folder, own_names, parts, world.size)
    with progress(key.train_end, "sampling", shown=is_root) as bar:
        for begin in range(0, len(parts), world.size):
            turn = list(parts.items())[begin : begin + world.size]
            with together(world, config.timeout_s, "the other ranks to write their parts"):
                for part in turn[world.rank : world.rank + 1]:
                    maker.write(*part)
            bar.advance(sum(maker.num_events(batches) for _, batches in turn))
    with together(world, config.timeout_s, "the first rank to join the parts"):
        if is_root:
            log.info("joining %d parts", len(parts))
            join_parts(output, list(parts))
            remove_folder(folder, own_names)
    return BatchStore.open(output) if is_root else None


@dataclass(frozen=True)
class _Maker:
    """Writes the records of global batches."""

    stream: EventStream
    key: BatchKey
    graphs: LiveGraphs

    def part_bounds(self) -> list[tuple[int, int]]:
        """Global batches [first, last) of each part."""
        key = self.key
        slots = key.num_neighbors * (2 + key.negatives_per_event * key.negative_sets)
        size = max(1, _PART_SLOTS // (slots * key.local_batch * key.minibatch))
        return list(pairwise([*range(0, key.num_batches, size), key.num_batches]))

    def num_events(self, batches: tuple[int, int]) -> int:
        """Events of the global batches [first, last)."""
        global_batch = self.key.local_batch * self.key.minibatch
        (first, _), (_, last) = (
            batch_bounds(batch, global_batch, self.key.train_end) for batch in (batches[0], batches[1] - 1)
        )
        return last - first

    def write(self, path: Path, batches: tuple[int, int]) -> None:
        """Write a part unless an interrupted run has written it."""
        if not path.exists():
            write_part(path, self.key, batches, list(chain.from_iterable(map(self.records, range(*batches)))))

    def records(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        """Records of a global batch: slice by slice the positives, then every negative set."""
        key, layout = self.key, record_format(self.stream, self.key)
        bounds = batch_bounds(batch, key.local_batch * key.minibatch, key.train_end)
        for minibatch in range(key.minibatch):
            first, last = slice_bounds(*bounds, key.minibatch, minibatch)
            part = Slice(batch, minibatch, first, last)
            for number in range(key.negative_sets):
                positives, negatives = split_graph(self.graphs.graph(part, number), 2 * (last - first))
                if number == 0:
                    yield layout.pack(positives)
                yield layout.pack(negatives)

    def estimate(self) -> tuple[float, float]:
        """Estimated bytes of the whole store and seconds of one process, from a few batches spread over it."""
        parts = 2 * _TRIED_BATCHES
        batches = sorted({self.key.num_batches * middle // parts for middle in range(1, parts, 2)})
        list(self.records(batches[0]))  # compiles the loops
        started_s = time.perf_counter()
        size = sum(len(record) for batch in batches for record in self.records(batch))
        events = sum(self.num_events((batch, batch + 1)) for batch in batches)
        share = self.key.train_end / events
        return size * share, (time.perf_counter() - started_s) * share


def _prepare(
    maker: _Maker, folder: Path, own_names: str, parts: dict[Path, tuple[int, int]], num_ranks: int
) -> None:
    """Log the estimate and create the folder of parts, keeping only complete parts of this store.

    Raises StoreError if there is not enough space or no permission to write.
    """
    size, seconds = maker.estimate()
    log.info(
        "%d global batches in %d slices, %d negative sets: about %.0f MB in about %.0f s on %d rank%s",
        maker.key.num_batches,
        maker.key.minibatch,
        maker.key.negative_sets,
        size / 1e6,
        seconds / num_ranks,
        num_ranks,
        "" if num_ranks == 1 else "s",
    )
    kept = [path for path, batches in parts.items() if is_part(path, maker.key, batches)]
    if kept:
        log.info("continuing with %d of %d parts of an interrupted run", len(kept), len(parts))
    needed = 2 * size - sum(path.stat().st_size for path in kept)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise StoreError(
            f"{folder.parent}: a batch store of about {size / 1e6:,.0f} MB needs twice that until its parts are "
            f"joined, {free / 1e6:,.0f} MB are free: free space, use another folder or fewer --negative-sets"
        )
    try:
        check_no_link(folder)
        folder.mkdir(exist_ok=True)
        remove_files(folder, own_names, but=kept)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be created ({error.strerror}): choose another output") from error
