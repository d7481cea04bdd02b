"""PyTorch Geometric's TGN on the same events, batches and widths, through its public API.

It attends once for each distinct node of a batch, at no particular time, where we attend once for each root and
time; so it does less work for an event. After its documentation of ``TGNMemory``; version 2.6 or later
(``[bench]``).
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream

_COUNTERPART = {
    "negatives_per_event": 1,
    "comb": TrainConfig().comb,
    "node_memory": True,
    "pair_features": False,
}


def check_comparable(config: TrainConfig) -> None:
    """Raise ConfigError for a setting that PyTorch Geometric's TGN lacks, and if it is not installed."""
    for name, value in _COUNTERPART.items():
        found = getattr(config, name)
        if found != value:
            raise ConfigError(
                f"--against pyg needs a model that both have, with {name} {value}: got {found}; leave it out"
            )
    if find_spec("torch_geometric") is None:
        raise ConfigError("--against pyg needs PyTorch Geometric: pip install '.[bench]'")


class PygTrainer:
    """TGN of PyTorch Geometric in training: memory, one attention layer, link head, optimiser, batch by batch.

    It takes widths, batch, dropout and learning rate from ``config`` and always computes in float32. It begins with
    any step, on an empty memory and with the neighbours of all earlier events. See :func:`check_comparable`.
    """

    def __init__(self, stream: EventStream, config: TrainConfig) -> None:
        from torch_geometric.nn import TransformerConv  # noqa: PLC0415 - the extra "bench"
        from torch_geometric.nn.models.tgn import (  # noqa: PLC0415
            IdentityMessage,
            LastAggregator,
            LastNeighborLoader,
            TGNMemory,
        )

        torch.manual_seed(config.seed)
        self._batch, self._candidates = config.local_batch, (stream.num_src, stream.num_nodes)
        last = stream.split.train_end
        self._src, self._dst, self._time = (
            torch.from_numpy(np.array(column[:last], np.int64))
            for column in (stream.src, stream.dst, stream.time)
        )
        features = np.zeros((last, 1)) if stream.edge_features is None else stream.edge_features[:last]
        scale = 1 if stream.edge_scale is None else stream.edge_scale
        self._message = torch.from_numpy((features * scale).astype(np.float32, copy=False))
        dim_edge, num_nodes = self._message.shape[1], stream.num_nodes
        self._memory = TGNMemory(
            num_nodes,
            dim_edge,
            config.dim_memory,
            config.dim_time,
            message_module=IdentityMessage(dim_edge, config.dim_memory, config.dim_time),
            aggregator_module=LastAggregator(),
        )
        width = config.dim_embedding // config.num_heads
        self._attention = TransformerConv(
            config.dim_memory,
            width,
            config.num_heads,
            dropout=config.dropout,
            edge_dim=dim_edge + config.dim_time,
        )
        dim = config.dim_embedding
        self._head = nn.ModuleDict(
            {"src": nn.Linear(dim, dim), "dst": nn.Linear(dim, dim), "out": nn.Linear(dim, 1)}
        )
        self._neighbors = LastNeighborLoader(num_nodes, size=config.num_neighbors)
        self._row_of = torch.empty(num_nodes, dtype=torch.int64)
        modules = (self._memory, self._attention, self._head)
        parameters = {parameter for module in modules for parameter in module.parameters()}
        self._optimiser = torch.optim.Adam(parameters, config.lr)

    def step(self, step: int) -> tuple[float, int]:
        """Train on the batch of a step, counted over sweeps; → its mean loss and number of events."""
        first = step % -(-len(self._src) // self._batch) * self._batch
        if first == 0:
            self._memory.reset_state()
            self._neighbors.reset_state()
        elif self._neighbors.cur_e_id == 0:  # nothing has been inserted yet
            for begin in range(0, first, self._batch):
                past = slice(begin, begin + self._batch)
                self._neighbors.insert(self._src[past], self._dst[past])
        src, dst, time, message = (
            column[first : first + self._batch]
            for column in (self._src, self._dst, self._time, self._message)
        )
        negative = torch.randint(*self._candidates, src.shape)
        self._optimiser.zero_grad()
        h_src, h_dst, h_negative = self._embed([src, dst, negative])
        positive, other = self._score(h_src, h_dst), self._score(h_src, h_negative)
        entropy = nn.functional.binary_cross_entropy_with_logits
        loss = entropy(positive, torch.ones_like(positive)) + entropy(other, torch.zeros_like(other))
        self._memory.update_state(src, dst, time, message)
        self._neighbors.insert(src, dst)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._memory.detach()
        return loss.item(), len(src)

    def _embed(self, roles: list[Tensor]) -> list[Tensor]:
        """Embeddings of nodes (b,) in several roles; each distinct node is embedded once."""
        distinct = torch.unique(torch.cat(roles))
        nodes, edges, events = self._neighbors(distinct)
        self._row_of[nodes] = torch.arange(len(nodes))
        memory, last_update = self._memory(nodes)
        elapsed = (last_update[edges[0]] - self._time[events]).to(memory.dtype)
        features = torch.cat([self._memory.time_enc(elapsed), self._message[events]], 1)
        h = self._attention(memory, edges, features)
        return [h[self._row_of[role]] for role in roles]

    def _score(self, h_src: Tensor, h_dst: Tensor) -> Tensor:
        """Logits (b,) of pairs."""
        logits: Tensor = self._head["out"]((self._head["src"](h_src) + self._head["dst"](h_dst)).relu())
        return logits.squeeze(1)
