"""The model as the papers write it, slot by slot, without folding; and random batches to compare on."""

from dataclasses import fields, replace

import torch
from torch import Tensor

from disttgl_hpc.model.inputs import EventFeatures, GraphInputs, ModelDims, NodeInputs
from disttgl_hpc.model.tgn import Tgn

TINY = ModelDims(memory=3, time=2, embedding=4, edge=2, node=2, num_heads=2)


def textbook_encoding(elapsed: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """cos(Δ·ω + b), all of it in float64."""
    return (elapsed.double().unsqueeze(-1) * frequency.double() + phase.double()).cos().to(elapsed.dtype)


def textbook_memory(model: Tgn, nodes: NodeInputs) -> Tensor:
    """torch.nn.GRUCell on every row; rows without mail then take their stored memory back."""
    dims, update = model.dims, model.memory_update
    cell = torch.nn.GRUCell(2 * dims.memory + dims.edge + dims.time, dims.memory)
    weight_hh = torch.cat([update.reset_weight.new_zeros(2 * dims.memory, dims.memory), update.reset_weight])
    bias_hh = torch.cat([update.reset_bias.new_zeros(2 * dims.memory), update.reset_bias])
    weights = {"weight_ih": update.mail_weight, "weight_hh": weight_hh}
    weights |= {"bias_ih": update.mail_bias, "bias_hh": bias_hh}
    time = model.time_encoding
    memory = nodes.state[:, : dims.memory]
    parts = [] if nodes.mail_edges is None else [nodes.mail_edges.gather(memory.dtype)]
    parts.append(textbook_encoding(nodes.mail_elapsed, time.frequency, time.phase))
    received = memory.new_zeros(len(memory), dims.edge + dims.time)
    received = received.index_copy(0, nodes.mail_rows, torch.cat(parts, 1))
    mail = torch.cat([nodes.state, received], 1)
    updated = torch.func.functional_call(cell, weights, (mail, memory))
    has_mail = torch.zeros(len(memory), 1, dtype=torch.bool)
    has_mail[nodes.mail_rows] = True
    return torch.where(has_mail, updated, memory)


def textbook_embed(model: Tgn, h: Tensor, graph: GraphInputs) -> Tensor:
    """Project k and v of every slot, then attend, one root and one head after the other."""
    dims, layer, time = model.dims, model.attention, model.time_encoding
    width = dims.embedding // dims.num_heads
    embeddings = []
    for r, root in enumerate(graph.roots):
        count = int(graph.counts[r])
        now = textbook_encoding(h.new_zeros(()), time.frequency, time.phase)
        q = layer.query.weight @ torch.cat([h[root], now]) + layer.query.bias
        slots = [h[graph.neighbors[r, :count]]]
        slots.append(textbook_encoding(graph.elapsed[r, :count], time.frequency, time.phase))
        if graph.edges is not None:
            slots.append(graph.edges.gather(h.dtype)[r, :count])
        x = torch.cat(slots, 1)
        k = x @ layer.key.weight.T + layer.key.bias
        v = x @ layer.value.weight.T + layer.value.bias
        heads = []
        for head in range(dims.num_heads):
            part = slice(head * width, (head + 1) * width)
            weights = torch.nn.functional.leaky_relu(k[:, part] @ q[part], 0.2).softmax(0)
            if graph.keep is not None:
                weights = weights * graph.keep[r, head, :count] / (1 - layer.dropout)
            heads.append(weights @ v[:, part])
        out = torch.relu(layer.out.weight @ torch.cat([*heads, h[root]]) + layer.out.bias)
        norm = layer.norm
        embeddings.append(torch.nn.functional.layer_norm(out, out.shape, norm.weight, norm.bias, norm.eps))
    return torch.stack(embeddings)


def textbook_model(model: Tgn, nodes: NodeInputs, graph: GraphInputs) -> Tensor:
    """Embeddings of the roots from the stored state."""
    h = textbook_memory(model, nodes)
    return textbook_embed(
        model, h if model.static is None else h + nodes.node_features @ model.static.T, graph
    )


def random_inputs(
    dims: ModelDims,
    *,
    num_nodes: int = 7,
    num_roots: int = 6,
    num_slots: int = 3,
    longest: float = 1e6,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[NodeInputs, GraphInputs]:
    """A float32 batch in which the first root has no neighbour, the last all, and two nodes have no mail."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    def whole(bound: int, *shape: int) -> Tensor:
        return torch.randint(bound, shape, generator=draw)

    table = normal(20, dims.edge) if dims.edge else None

    def features(*shape: int) -> EventFeatures | None:
        return None if table is None else EventFeatures(table, whole(len(table), *shape))

    rows = torch.randperm(num_nodes, generator=draw)[: max(num_nodes - 2, 0)].sort().values
    counts = whole(num_slots + 1, num_roots)
    counts[0], counts[-1] = 0, num_slots
    keep = torch.rand(num_roots, dims.num_heads, num_slots, generator=draw) >= dropout
    nodes = NodeInputs(
        state=normal(num_nodes, 2 * dims.memory),
        mail_rows=rows,
        mail_elapsed=torch.rand(len(rows), generator=draw) * longest,
        mail_edges=features(len(rows)),
        node_features=normal(num_nodes, dims.node) if dims.node else None,
    )
    graph = GraphInputs(
        roots=whole(num_nodes, num_roots),
        neighbors=whole(num_nodes, num_roots, num_slots),
        counts=counts,
        elapsed=torch.rand(num_roots, num_slots, generator=draw) * longest,
        edges=features(num_roots, num_slots),
        keep=keep if dropout else None,
    )
    return nodes, graph


def in_float64(inputs):
    """The same inputs with their floating tensors in float64."""
    values = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    doubled = {k: v.double() for k, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return replace(inputs, **doubled)
