"""One trainer of the grid: loads the batches that the schedule assigns, and computes gradients.

``compile_once`` lets the first trainer of a node compile all loops, so that the others load them from the
cache instead of compiling the same code at the same time. Every node compiles for itself, since processors
may differ.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttgl_hpc.compiled import Compilations
from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import Communicator, barrier
from disttgl_hpc.grid.gradients import GradientSum
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import Assignment, assignment, first_counter
from disttgl_hpc.grid.spans import PhaseClock, SpanClock
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.co_trained import RowGradients, StaticTable
from disttgl_hpc.memory.node_memory import MemoryService
from disttgl_hpc.model.heads import class_loss, link_loss
from disttgl_hpc.model.input_builder import InputBuilder, PassInputs, build_model, device_of
from disttgl_hpc.model.inputs import GraphInputs, NodeInputs
from disttgl_hpc.model.parameters import Adam
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import BatchSampler, GraphSource, LocalBatch, Pass, prefetched
from disttgl_hpc.sampling.mfg import Mfg

log = get_logger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A local batch and the inputs of each of its passes."""

    batch: LocalBatch
    inputs: tuple[PassInputs, ...]


@dataclass(frozen=True)
class Reading:
    """A loaded batch and the memory of its nodes, state (n, 2·dim_memory), as it was when its turn came."""

    loaded: Loaded
    state: NDArray[np.float32]


class Trainer:
    """A copy of the model, its optimiser and the current batch.

    clock: times the phases of steps. loading: times the batches that a thread prepares in parallel.
    """

    def __init__(  # noqa: PLR0917
        self,
        stream: EventStream,
        config: TrainConfig,
        plan: RunPlan,
        grid: Grid,
        memory: MemoryService,
        graphs: GraphSource | None = None,
    ) -> None:
        """Collective over all trainers. ``graphs``: source of the batches' graphs; None samples them."""
        device = device_of(config, grid.local_trainer)
        learning_rate = scaled_rate(config, grid.shape.num_trainers)
        self.static: StaticTable | None = None
        if config.static == CO_TRAINED:
            rows = stream.num_nodes, config.dim_memory, plan.sizes.read_rows
            self.static = StaticTable(grid, *rows, learning_rate, config.static_decay, config.timeout_s)
        self.inputs = InputBuilder(stream, device, None if self.static is None else self.static.table.rows)
        self.model = build_model(stream, config).to(device)
        self.optimiser = Adam(self.model.parameters(), learning_rate)
        self.gradients = GradientSum(self.model.parameters(), grid.trainer_comm, config.timeout_s)
        self.clock, self.loading = PhaseClock(), SpanClock(("load",))
        self._config, self._plan, self._grid, self._memory = config, plan, grid, memory
        self._targets, weights = stream.targets, None if stream.targets is None else stream.targets.weights
        self._class_weights = None if weights is None else torch.from_numpy(weights).to(device)
        self._sampler = BatchSampler(
            stream, config, plan.shape, plan.batching, grid.coordinates, graphs=graphs
        )
        self._readings = self._read_batches()
        self._reading: Reading | None = None
        self._row_gradients: RowGradients = self._no_rows()
        self._first_step = 0

    def go_on(self, step: int, held: NDArray[np.float32] | None) -> None:
        """Start at ``step`` of the plan, with the result of :meth:`held` after the step before."""
        self._first_step = step
        work = self.work(step - 1) if step else None
        if work is not None and held is not None:
            self._reading = Reading(self._load(work.counter), held)

    def held(self, step: int) -> NDArray[np.float32] | None:
        """Memory (n, 2·dim_memory) held for the pass after ``step``; None if that pass reads a new batch."""
        work = self.work(step)
        is_last_pass = work is None or work.pass_index == self._plan.shape.epoch - 1
        return None if is_last_pass or self._reading is None else self._reading.state

    def work(self, step: int) -> Assignment | None:
        """Assignment of this trainer in ``step``; None while its lane has no batch yet."""
        plan = self._plan
        return assignment(
            step,
            self._grid.coordinates,
            plan.shape,
            plan.num_batches,
            sweeps_before=plan.sweeps_before,
        )

    def step(self, step: int) -> tuple[float, int]:
        """One synchronous gradient step; returns the summed loss of this trainer's events and their number."""
        self.gradients.zero()
        self._row_gradients = self._no_rows()
        work = self.work(step)
        loss, num_events = 0.0, 0
        if work is not None:
            if work.reads or self._reading is None:
                self._reading = next(self._readings)
            num_events = self._reading.loaded.batch.num_events
            loss = self._learn(work, self._reading) if num_events else self._pass_by(work)
        with self.clock("reduce"):
            total = self.gradients.sum(num_events, loss)
        with self.clock("optimiser"):
            self.optimiser.step()
            if self.static is not None:
                self.static.update(self._row_gradients, total)
        return loss, num_events

    def close(self) -> None:
        """End the loading thread and release the shared memory. Collective over all trainers."""
        self._readings.close()
        self.gradients.free()
        if self.static is not None:
            self.static.free()

    def rehearse(self) -> None:
        """Compute a step on an empty memory without any effect, which compiles all loops."""
        lane = self._grid.coordinates.epoch
        if lane >= self._plan.num_steps:
            return
        loaded = self._load(lane)
        batch, own = loaded.batch, loaded.batch.passes[0]
        if batch.num_events:
            state = np.zeros((len(batch.nodes), 2 * self._config.dim_memory), np.float32)
            static = self.inputs.co_trained_rows(own)
            inputs = self.inputs.complete(loaded.inputs[0], state[own.positions], static)
            _, loss = self._compute(batch, *inputs)
            loss.backward()  # type: ignore[no-untyped-call]
        self.gradients.zero()
        if self.static is not None:
            self.static.compile()

    def _read_batches(self) -> Generator[Reading]:
        """The batches of this trainer's lane, each read when its turn comes.

        A batch is at hand one turn ahead, while the read of the one before may still be waiting; its own read
        is posted before that one is computed, and is served during its backward pass. Only this thread calls
        MPI.
        """
        shape, config = self._plan.shape, self._config
        first, stride = first_counter(self._first_step, self._grid.coordinates.epoch, shape), shape.epoch
        loading = map(self._load, range(first, self._plan.num_steps, stride))
        batches = prefetched(loading, config.prefetch, config.timeout_s, "the next batch to be loaded")
        loaded = self._next(batches)
        if loaded is not None:
            self._memory.post_read(first, loaded.batch.nodes)
        for counter in itertools.count(first, stride):
            if loaded is None:
                return
            following = self._next(batches)
            with self.clock("read"):
                state = self._memory.wait_read(counter)
            if following is not None:
                self._memory.post_read(counter + stride, following.batch.nodes)
            yield Reading(loaded, state)
            loaded = following

    def _load(self, counter: int) -> Loaded:
        """Sample or read the batch that this trainer's lane begins in step ``counter``."""
        work = self.work(counter)
        if work is None:
            raise ValueError(f"no batch begins in step {counter} of this lane")
        try:
            with self.loading("load", counter):
                batch = self._sampler.sample(work)
                return Loaded(batch, tuple(self.inputs.ahead(own) for own in batch.passes))
        except Exception:
            log.error("the batch that begins in step %d cannot be loaded", self._plan.before.steps + counter)
            raise

    def _next(self, batches: Iterator[Loaded]) -> Loaded | None:
        """Wait for the next batch, or load it; None after the last one."""
        with self.clock("sample"):
            return next(batches, None)

    def _learn(self, work: Assignment, reading: Reading) -> float:
        """One pass over a batch: update the memory, attend, score, write, backward."""
        batch, own = reading.loaded.batch, reading.loaded.batch.passes[work.pass_index]
        with self.clock("inputs"):
            inputs, static = reading.loaded.inputs[work.pass_index], self.inputs.co_trained_rows(own)
            nodes, graph = self.inputs.complete(inputs, reading.state[own.positions], static)
        with self.clock("forward"):
            memory, loss = self._compute(batch, nodes, graph)
        if work.writes:
            with self.clock("write"):
                self._write(work, batch, own.mfg, memory.detach())
        with self.clock("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        if static is not None and static.grad is not None:
            self._row_gradients = _row_gradients(own, static.grad)
        return loss.item()

    def _compute(self, batch: LocalBatch, nodes: NodeInputs, graph: GraphInputs) -> tuple[Tensor, Tensor]:
        """Updated memory (U, dim_memory) of the batch's nodes, and its summed loss."""
        memory = self.model.update_memory(nodes)
        roots = self.model.embed(self.model.represent(memory, nodes), graph)
        by_role = roots.view(2 + self._config.drawn_negatives, batch.num_events, -1)
        loss = roots.new_zeros(())
        if self._config.predicts_links:
            # First the true destinations, then the negatives.
            logits = self.model.scores(by_role[0], by_role[1:], graph.pairs)
            loss = loss + link_loss(logits[0], logits[1:])
        if self._targets is not None:
            truth = self.inputs.truth(self._targets.values[batch.first : batch.last])
            predicted = self.model.classify(by_role[0], by_role[1], graph.facts)
            loss = loss + class_loss(predicted, truth, self._class_weights)
        return memory, loss

    def _write(self, work: Assignment, batch: LocalBatch, mfg: Mfg, memory: Tensor) -> None:
        """Write [memory ‖ peer] of the batch's positive nodes; ``memory`` (U, dim_memory) is of ``mfg.nodes``."""
        updated, writes = memory.cpu().numpy(), batch.writes
        own = updated[mfg.roots[writes.own]]
        peer = updated[mfg.roots[writes.peer]] if batch.peers is None else batch.peers.mean(updated)
        self._memory.write(work.counter, writes.nodes, np.concatenate([own, peer], axis=1))

    def _no_rows(self) -> RowGradients:
        """Row gradients of a trainer without events."""
        return np.empty(0, np.int64), np.empty((0, self._config.dim_memory), np.float32)

    def _pass_by(self, work: Assignment) -> float:
        """Write nothing for an empty slice of a short last batch, as the daemon expects a write."""
        if work.writes:
            nothing = np.empty((0, 2 * self._config.dim_memory), np.float32)
            self._memory.write(work.counter, np.empty(0, np.int64), nothing)
        return 0.0


def _row_gradients(own: Pass, gradient: Tensor) -> RowGradients:
    """Gradients of the static rows that a pass used, from those (U, d) of all its nodes."""
    nodes, rows = own.mfg.nodes, gradient.cpu().numpy()
    used = rows.any(axis=1)
    if own.keep_static is not None:
        used &= own.keep_static
    return nodes[used], rows[used]


def scaled_rate(config: TrainConfig, num_trainers: int) -> float:
    """Learning rate of a step that ``num_trainers`` trainers make together.

    Linear is the paper's rule. Adam's steps do not grow with the gradient, and its noise falls with the root
    of the number of events: the square root suits it better from four trainers on
    (jobs/experiments/README.md).
    """
    factors = {"none": 1.0, "linear": float(num_trainers), "sqrt": math.sqrt(num_trainers)}
    return config.lr * factors[config.scale_lr]


_WORTH_TELLING_S = 2.0


def compile_once(trainer: Trainer, node_trainers: Communicator, timeout_s: float) -> None:
    """Compile all loops on rank 0 of ``node_trainers``, then load them on the others. Collective over it."""
    before, started_s = Compilations.so_far(), time.perf_counter()
    for is_turn in (node_trainers.rank == 0, node_trainers.rank > 0):
        if is_turn:
            trainer.rehearse()
        barrier(node_trainers, timeout_s, "the node's first trainer to compile its loops")
    spent_s = time.perf_counter() - started_s
    if node_trainers.rank == 0 and spent_s > _WORTH_TELLING_S:
        log.info("%s", before.outcome(spent_s))
