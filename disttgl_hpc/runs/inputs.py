"""From a batch's index arrays to the model's tensors: features gathered, cast and put on the device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.batch import Mfg
from disttgl_hpc.core.mail import PendingMail
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.nn.inputs import GraphInputs, ModelDims, NodeInputs
from disttgl_hpc.nn.model import Tgn
from disttgl_hpc.nn.time_encoding import TimeMode


def device_of(config: TrainConfig, local_trainer: int) -> torch.device:
    """Where a trainer computes: on GPUs the trainers of a node take turns. Raises ConfigError without a GPU."""
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(f"device {config.device} needs a GPU and a torch built for it: none here, use cpu")
    return torch.device("cuda", local_trainer % torch.cuda.device_count())


def build_model(stream: EventStream, config: TrainConfig) -> Tgn:
    """Model for a stream's features, with the initial weights of ``config.seed``, on the CPU."""
    dims = ModelDims(
        memory=config.dim_memory,
        time=config.dim_time,
        embedding=config.dim_embedding,
        edge=stream.dim_edge,
        node=stream.dim_node,
        num_heads=config.num_heads,
    )
    return Tgn(dims, config.dropout, seed=config.seed, time_mode=TimeMode(config.time_encoding))


class InputBuilder:
    """Gathers a stream's features for batches and moves them to one device."""

    def __init__(self, stream: EventStream, device: torch.device) -> None:
        self._edge_features, self._node_features = stream.edge_features, stream.node_features
        self._edge_scale = stream.edge_scale
        self._device = device

    def nodes(self, nodes: NDArray[np.int64], mail: PendingMail, state: NDArray[np.float32]) -> NodeInputs:
        """Memory and mail of distinct ``nodes`` (U,) whose stored state is ``state`` (U, 2·dim_memory)."""
        return NodeInputs(
            state=self._tensor(state),
            mail_rows=self._tensor(mail.rows),
            mail_elapsed=self._tensor(mail.elapsed),
            mail_edge=self._gather(self._edge_features, mail.event_ids, self._edge_scale),
            node_features=self._gather(self._node_features, nodes),
        )

    def graph(self, mfg: Mfg, keep: NDArray[np.bool_] | None = None) -> GraphInputs:
        """Roots and neighbour slots of a message flow graph, with the features of its events."""
        return GraphInputs(
            roots=self._tensor(mfg.roots),
            neighbors=self._tensor(mfg.neighbors),
            counts=self._tensor(mfg.counts),
            elapsed=self._tensor(mfg.elapsed),
            edge_features=self._gather(self._edge_features, mfg.event_ids, self._edge_scale),
            keep=None if keep is None else self._tensor(keep),
        )

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _gather(
        self,
        table: NDArray[np.generic] | None,
        rows: NDArray[np.int64],
        scale: NDArray[np.float32] | None = None,
    ) -> Tensor | None:
        """Rows of a feature table, float32, times the scale of a table of int8; None without the table."""
        if table is None:
            return None
        # take() on a map reads only the pages that the rows lie in.
        values = np.take(table, rows, axis=0).astype(np.float32, copy=False)
        return self._tensor(values if scale is None else values * scale)
