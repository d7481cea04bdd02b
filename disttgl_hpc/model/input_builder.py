"""From a batch's index arrays to the model's tensors: features gathered, cast and copied to the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream, Targets, model_unit
from disttgl_hpc.model.inputs import EventFeatures, GraphInputs, ModelDims, NodeInputs
from disttgl_hpc.model.products import choose_product
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.model.time_encoding import TimeMode
from disttgl_hpc.sampling.class_features import dim_facts, event_rows, event_scale
from disttgl_hpc.sampling.local_batch import Pass
from disttgl_hpc.sampling.mail import Groups, MeanMail, PendingMail
from disttgl_hpc.sampling.mfg import Mfg
from disttgl_hpc.sampling.pair_features import DIM_PAIR


def device_of(config: TrainConfig, local_trainer: int) -> torch.device:
    """Device of a trainer; a node's trainers are spread over its GPUs. Raises ConfigError without a GPU."""
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device {config.device} needs a GPU and a CUDA build of torch, neither was found: use --device cpu"
        )
    return torch.device("cuda", local_trainer % torch.cuda.device_count())


def build_model(stream: EventStream, config: TrainConfig) -> Tgn:
    """Model for a stream's features, with the initial weights of ``config.seed``, on the CPU.

    Raises ConfigError if the task has classes and the stream has no targets (see
    ``training.run_events.with_task``).
    """
    if config.class_kind and stream.targets is None:
        raise ConfigError(f"task {config.task} is supported by train, evaluate and doctor only: leave it out")
    dims = ModelDims(
        memory=config.dim_memory,
        time=config.dim_time,
        embedding=config.dim_embedding,
        edge=stream.dim_edge,
        node=stream.dim_node,
        static=config.dim_memory if config.static == CO_TRAINED else stream.dim_static,
        num_heads=config.num_heads,
        pair=DIM_PAIR if config.pair_features else 0,
        **_class_dims(stream.targets),
    )
    return Tgn(
        dims,
        config.dropout,
        seed=config.seed,
        time_mode=TimeMode(config.time_encoding),
        time_unit=model_unit(stream, config.time_unit),
        product=choose_product(config.precision, config.device),
    )


def num_parameters(stream: EventStream, config: TrainConfig) -> int:
    """Number of the weights of the model for a stream; raises as :func:`build_model`."""
    return sum(parameter.numel() for parameter in build_model(stream, config).parameters())


def _class_dims(targets: Targets | None) -> dict[str, Any]:
    """Widths of the class head, or nothing without classes."""
    if targets is None:
        return {}
    return {"classes": targets.num_classes, "facts": dim_facts(targets), "of_pair": targets.of_pair}


@dataclass(frozen=True)
class PassInputs:
    """Inputs of a pass without the memory of its nodes, which is read last; copies to a GPU may still be in flight.

    nodes: with an empty state, to be replaced. arrived: event to wait for before use, or None.
    """

    nodes: NodeInputs
    graph: GraphInputs
    arrived: torch.cuda.Event | None


class InputBuilder:
    """Converts a stream's batches to tensors on one device; on the CPU edge features are not copied.

    co_trained: (N, d), a static memory that changes with every step, used instead of the stream's own.
    Copies to a GPU start from pinned memory. The GPU path has not been run on a GPU yet.
    """

    def __init__(
        self, stream: EventStream, device: torch.device, co_trained: NDArray[np.float32] | None = None
    ) -> None:
        self._device, self._node_features = device, stream.node_features
        self._static_memory, self.co_trained = stream.static_memory, co_trained
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._stream, features = stream, stream.edge_features
        self._edge_table = None  # used in place on the CPU, unless codes of classes follow the features
        if device.type == "cpu" and features is not None and features.shape[1] == stream.dim_edge:
            self._edge_table = _tensor_over(features)
        scale = event_scale(stream)
        self._edge_scale = None if scale is None else self._tensor(scale)

    def ahead(self, own: Pass) -> PassInputs:
        """Inputs of a pass, prepared while another batch is computed; copies to a GPU use their own CUDA stream."""
        if self._copies is None:
            nodes, graph = self._nodes_ahead(own), self.graph(own.mfg, own.pairs, own.keep, own.facts)
            return PassInputs(nodes, graph, None)
        with torch.cuda.stream(self._copies):
            nodes, graph = self._nodes_ahead(own), self.graph(own.mfg, own.pairs, own.keep, own.facts)
            return PassInputs(nodes, graph, self._copies.record_event())

    def _nodes_ahead(self, own: Pass) -> NodeInputs:
        """Node inputs of a pass before its memory is read."""
        nodes, no_state = own.mfg.nodes, np.empty((0, 0), np.float32)
        static = _rows(self._static_memory, nodes, own.keep_static)
        return self._node_inputs(nodes, own.mail, no_state, static)

    def co_trained_rows(self, own: Pass) -> Tensor | None:
        """Current rows (U, d) of a co-trained static memory for :meth:`complete`; they receive a gradient."""
        rows = _rows(self.co_trained, own.mfg.nodes, own.keep_static)
        return None if rows is None else self._tensor(rows).requires_grad_()

    def complete(
        self, inputs: PassInputs, state: NDArray[np.float32], co_trained: Tensor | None = None
    ) -> tuple[NodeInputs, GraphInputs]:
        """Inputs with the memory of their nodes, ``state`` (U, 2·dim_memory), once all copies have arrived."""
        if inputs.arrived is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(inputs.arrived)
            for tensor in (*_tensors(inputs.nodes), *_tensors(inputs.graph)):
                # Otherwise its memory could be reused by the next copy while it is still in use.
                tensor.record_stream(computing)
        static = inputs.nodes.static_memory if co_trained is None else co_trained
        return replace(inputs.nodes, state=self._tensor(state), static_memory=static), inputs.graph

    def nodes(self, nodes: NDArray[np.int64], mail: PendingMail, state: NDArray[np.float32]) -> NodeInputs:
        """Node inputs of distinct ``nodes`` (U,) with stored state ``state`` (U, 2·dim_memory)."""
        static = self._static_memory if self.co_trained is None else self.co_trained
        return self._node_inputs(nodes, mail, state, _rows(static, nodes))

    def _node_inputs(
        self,
        nodes: NDArray[np.int64],
        mail: PendingMail,
        state: NDArray[np.float32],
        static: NDArray[np.float32] | None,
    ) -> NodeInputs:
        features = _rows(self._node_features, nodes)
        return NodeInputs(
            state=self._tensor(state),
            mail_rows=self._tensor(mail.rows),
            mail_elapsed=self._tensor(mail.elapsed),
            mail_edges=self._mean_edges(mail.events)
            if isinstance(mail, MeanMail)
            else self._edges(mail.event_ids),
            node_features=None if features is None else self._tensor(features),
            static_memory=None if static is None else self._tensor(static),
        )

    def graph(
        self,
        mfg: Mfg,
        pairs: NDArray[np.float32] | None = None,
        keep: NDArray[np.bool_] | None = None,
        facts: NDArray[np.float32] | None = None,
    ) -> GraphInputs:
        """Graph inputs of a message flow graph, with features of its events and pairs."""
        return GraphInputs(
            roots=self._tensor(mfg.roots),
            neighbors=self._tensor(mfg.neighbors),
            counts=self._tensor(mfg.counts),
            elapsed=self._tensor(mfg.elapsed),
            edges=self._edges(mfg.event_ids),
            keep=None if keep is None else self._tensor(keep),
            pairs=None if pairs is None else self._tensor(pairs),
            facts=None if facts is None else self._tensor(facts),
        )

    def truth(self, values: NDArray[np.integer]) -> Tensor:
        """Classes of events, (b,) or (b, C), on the model's device."""
        return self._tensor(np.array(values))

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._copies is None else tensor.pin_memory().to(self._device, non_blocking=True)

    def _edges(self, events: NDArray[np.int64]) -> EventFeatures | None:
        """Features of ``events``, any shape; unless the table is used in place, the rows needed are gathered."""
        if not self._stream.dim_edge:
            return None
        if self._edge_table is not None:
            return EventFeatures(self._edge_table, torch.from_numpy(events), self._edge_scale)
        distinct, rows = np.unique(events, return_inverse=True)
        gathered = self._tensor(event_rows(self._stream, distinct))
        return EventFeatures(gathered, self._tensor(rows.reshape(events.shape)), self._edge_scale)

    def _mean_edges(self, events: Groups) -> EventFeatures | None:
        """Mean features of groups of events."""
        if not self._stream.dim_edge:
            return None
        in_order = replace(events, items=np.arange(len(events.items)))
        means = self._tensor(in_order.mean(event_rows(self._stream, events.items)))
        return EventFeatures(means, torch.arange(len(means), device=self._device), self._edge_scale)


def _rows(
    table: NDArray[np.floating] | None, nodes: NDArray[np.int64], keep: NDArray[np.bool_] | None = None
) -> NDArray[np.float32] | None:
    """Rows of ``nodes`` as float32, zero where ``keep`` is False; of a memory map only their pages are read."""
    if table is None:
        return None
    rows = np.take(table, nodes, axis=0).astype(np.float32, copy=False)
    if keep is not None:
        rows[~keep] = 0
    return rows


def _tensors(inputs: object) -> Iterator[Tensor]:
    """All tensors in the fields of ``inputs``."""
    for value in vars(inputs).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, EventFeatures):
            yield from _tensors(value)


def _tensor_over(table: NDArray[np.generic]) -> Tensor:
    """A tensor over a table that is never written; torch's warning about read-only maps is silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(table)
