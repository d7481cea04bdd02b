"""Any grid in one process, with stored mail: the slow and simple form of training that real runs must equal.

No schedule, no daemon, and no T-CSR but for pair features: neighbours come from a walk over the events, mail and
memory times are kept in dictionaries as TGN keeps them, and the trainers of a step take turns.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field

import numpy as np
import torch

from disttgl_hpc.config import CO_TRAINED
from disttgl_hpc.draws import Purpose
from disttgl_hpc.evaluation.candidates import Candidates
from disttgl_hpc.model.heads import class_loss, link_loss
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.model.inputs import EventFeatures, GraphInputs, NodeInputs
from disttgl_hpc.sampling.class_features import event_rows, event_scale
from disttgl_hpc.sampling.negatives import NegativeSampler, training_candidates
from disttgl_hpc.sampling.pair_features import pair_features


@dataclass
class Replica:
    """A copy of the node memory, with what TGN stores beside it."""

    state: np.ndarray
    mail: dict = field(default_factory=dict)  # node → events, the last of which it is dated by
    memory_time: dict = field(default_factory=dict)

    @classmethod
    def empty(cls, num_nodes, dim_memory):
        return cls(np.zeros((num_nodes, 2 * dim_memory), np.float32))


def neighbors_of(stream, node, event, count):
    """Events of ``node`` strictly before the time of ``event``, newest first."""
    found = []
    for past in range(event - 1, -1, -1):
        if stream.time[past] < stream.time[event] and node in (stream.src[past], stream.dst[past]):
            other = stream.dst[past] if stream.src[past] == node else stream.src[past]
            found.append((int(other), past))
        if len(found) == count:
            break
    return found


def model_inputs(stream, config, replica, roots, events, static=None):
    """Nodes and graph of ``roots`` at the times of ``events``, on a replica's memory, with rows of ``static``."""
    hoods = [
        neighbors_of(stream, node, event, config.num_neighbors)
        for node, event in zip(roots, events, strict=True)
    ]
    nodes = sorted({*roots, *(node for hood in hoods for node, _ in hood)})
    row = {node: index for index, node in enumerate(nodes)}
    mailed = [node for node in nodes if node in replica.mail]
    mail_time = [stream.time[replica.mail[node][-1]] for node in mailed]
    elapsed = [
        float(time - replica.memory_time.get(node, time))
        for node, time in zip(mailed, mail_time, strict=True)
    ]
    slots = np.zeros((3, len(roots), config.num_neighbors))
    for root, hood in enumerate(hoods):
        for slot, (node, past) in enumerate(hood):
            slots[:, root, slot] = row[node], past, stream.time[events[root]] - stream.time[past]

    def edges_of(events):
        if not stream.dim_edge:
            return None
        table, scale = event_rows(stream, np.arange(stream.num_events)), event_scale(stream)
        return EventFeatures(
            torch.from_numpy(table),
            torch.from_numpy(events),
            None if scale is None else torch.from_numpy(scale),
        )

    def mean_edges(mails):
        if not stream.dim_edge:
            return None
        means = [event_rows(stream, np.array(events)).mean(axis=0) for events in mails]
        table = torch.tensor(np.array(means, np.float32).reshape(len(mails), stream.dim_edge))
        return EventFeatures(table, torch.arange(len(mails)))

    inputs = NodeInputs(
        state=torch.from_numpy(replica.state[nodes]),
        mail_rows=torch.tensor([row[node] for node in mailed], dtype=torch.int64),
        mail_elapsed=torch.tensor(elapsed, dtype=torch.float32),
        mail_edges=mean_edges([replica.mail[node] for node in mailed]),
        node_features=None if stream.node_features is None else torch.from_numpy(stream.node_features[nodes]),
        static_memory=None if static is None else static[nodes],
    )
    graph = GraphInputs(
        roots=torch.tensor([row[node] for node in roots]),
        neighbors=torch.from_numpy(slots[0].astype(np.int64)),
        counts=torch.tensor([len(hood) for hood in hoods]),
        elapsed=torch.from_numpy(slots[2].astype(np.float32)),
        edges=edges_of(slots[1].astype(np.int64)),
        keep=None,
    )
    return inputs, graph, row


def pairs_of(stream, config, event, candidates):
    """Features of the source of ``event`` with each of ``candidates``, or None without pair features."""
    if not config.pair_features:
        return None
    bound = int(np.flatnonzero(stream.time == stream.time[event])[0])
    features = pair_features(
        stream.tcsr, stream.src[event : event + 1], np.array([candidates]), np.array([bound])
    )
    return torch.from_numpy(features[0])


class CoTrained:
    """A table that learns along: an optimiser for each row, which steps when the row has been seen."""

    def __init__(self, num_nodes, config):
        self.rows = [torch.nn.Parameter(torch.zeros(config.dim_memory)) for _ in range(num_nodes)]
        decay = config.static_decay
        self.optimisers = [torch.optim.AdamW([row], config.lr, weight_decay=decay) for row in self.rows]

    def __getitem__(self, nodes):
        return torch.stack([self.rows[node] for node in nodes])

    def array(self):
        return torch.stack(self.rows).detach().numpy()

    def step(self):
        for row, optimiser in zip(self.rows, self.optimisers, strict=True):
            if row.grad is not None and row.grad.any():
                optimiser.step()
            optimiser.zero_grad()


def frozen_static(stream):
    """A stream's static memory as a tensor, or None."""
    return None if stream.static_memory is None else torch.from_numpy(np.array(stream.static_memory))


def write_batch(stream, model, config, replica, first, last):
    """Process events [first, last) one after the other on the memory that the whole batch has read."""
    roots = [int(node) for event in range(first, last) for node in (stream.src[event], stream.dst[event])]
    inputs, _, row = model_inputs(stream, config, replica, roots, [first] * len(roots))
    with torch.no_grad():
        memory = model.update_memory(inputs).numpy()
    for node in set(roots):
        if node in replica.mail:
            replica.memory_time[node] = stream.time[replica.mail[node][-1]]
    mails = {}
    for event in range(first, last):
        source, destination = int(stream.src[event]), int(stream.dst[event])
        for node, peer in {(source, destination), (destination, source)}:  # a self-loop is one mail
            if config.comb == "most-recent":
                mails[node] = []
            mails.setdefault(node, []).append((event, peer))
    for node, mail in mails.items():
        peer_memory = np.mean([memory[row[peer]] for _, peer in mail], axis=0)
        replica.state[node] = np.concatenate([memory[row[node]], peer_memory])
        replica.mail[node] = [event for event, _ in mail]


def slices(first, last, parts):
    """Bounds of ``parts`` contiguous slices."""
    edges = [first + (last - first) * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(edges))


def facts_of(stream, event):
    """What the class head is told of ``event``, one look at the past after the other; of small one-hot codes."""
    targets, source, destination = stream.targets, stream.src[event], stream.dst[event]
    facts = [float(source == destination)] if targets.of_pair else []
    if targets.known is not None:
        facts += (targets.known[event] * (1 if targets.known_scale is None else targets.known_scale)).tolist()
    past = [e for e in range(event) if stream.time[e] < stream.time[event]]
    own = [e for e in past if stream.src[e] == source]
    kinds = [[e for e in own if stream.dst[e] == destination], own]
    kinds.append([e for e in past if stream.dst[e] == destination])
    for found in kinds if targets.of_pair else kinds[1:2]:
        if targets.codes is not None:
            told = np.zeros(2 + targets.num_classes)
            if found:
                told[:2] = 1, np.log1p(len(past) - found[-1]) / 8
                told[2:] = np.eye(targets.num_classes)[targets.values[found[-1]]]
            facts += told.tolist()
    if targets.codes is not None:
        ends = [source, destination] if targets.of_pair else [source]
        pasts = [past, *([e for e in past if end in (stream.src[e], stream.dst[e])] for end in ends)]
        for events in pasts:
            for size in (4, 16, 64):
                told = np.eye(targets.num_classes)[targets.values[events[-size:]]]
                facts += (told.mean(axis=0) if events else np.zeros(targets.num_classes)).tolist()
    return facts


def class_terms(stream, model, first, by_role):
    """Summed loss of the classes of the events from ``first`` on, whose roots have embeddings ``by_role``."""
    events = range(first, first + by_role.shape[1])
    facts = torch.tensor([facts_of(stream, event) for event in events], dtype=torch.float32)
    truth = torch.from_numpy(np.array(stream.targets.values[events.start : events.stop]))
    weights = stream.targets.weights
    return class_loss(
        model.classify(by_role[0], by_role[1], facts),
        truth,
        None if weights is None else torch.from_numpy(weights),
    )


def emulate(stream, config, shape, num_steps):
    """Train ``num_steps`` steps; → (loss per event of every step, model, replicas). Dropout must be 0.

    A frozen static memory is the stream's; of a co-trained one the model's attribute ``table`` is what was learned.
    """
    model = build_model(stream, config)
    optimiser = torch.optim.Adam(model.parameters(), config.lr)
    frozen = frozen_static(stream)
    learning = CoTrained(stream.num_nodes, config) if config.static == CO_TRAINED else None
    negatives = NegativeSampler(stream, training_candidates(stream), config.seed, Purpose.TRAINING_NEGATIVES)
    train_end, size = stream.split.train_end, config.local_batch * shape.minibatch
    num_batches = -(-train_end // size)
    replicas = [Replica.empty(stream.num_nodes, config.dim_memory) for _ in range(shape.memory)]
    held = {}  # (replica, lane) → (batch counter, memory as its batch was read)
    losses = []
    for step in range(num_steps):
        optimiser.zero_grad()
        total, count = torch.zeros(()), 0
        for number in range(shape.memory):
            start = number * num_batches // shape.memory
            batch = (step + start) % num_batches
            if batch == 0:
                replicas[number] = Replica.empty(stream.num_nodes, config.dim_memory)
            held[number, step % shape.epoch] = step, copy.deepcopy(replicas[number])
            for lane in range(min(step + 1, shape.epoch)):
                counter, memory = held[number, lane]
                sweep, at = divmod(counter + start, num_batches)
                for first, last in slices(at * size, min((at + 1) * size, train_end), shape.minibatch):
                    if first == last:
                        continue
                    fresh = (sweep * shape.memory + number) * shape.epoch + step - counter
                    drawn = negatives.draw(
                        first,
                        last,
                        config.negatives_per_event,
                        negative_set=fresh % config.negative_sets if config.negative_sets else fresh,
                    )
                    if not config.predicts_links:
                        drawn = drawn[:, :0]
                    events = list(range(first, last))
                    roots = [*stream.src[first:last], *stream.dst[first:last], *drawn.T.ravel()]
                    repeats = len(roots) // len(events)
                    inputs, graph, _ = model_inputs(
                        stream,
                        config,
                        memory,
                        [int(node) for node in roots],
                        events * repeats,
                        frozen if learning is None else learning,
                    )
                    h = model.represent(model.update_memory(inputs), inputs)
                    by_role = model.embed(h, graph).view(repeats, len(events), -1)
                    if config.predicts_links:
                        pairs = [
                            pairs_of(stream, config, event, [stream.dst[event], *drawn[event - first]])
                            for event in events
                        ]
                        pairs = torch.stack(pairs, 1) if config.pair_features else None
                        logits = model.scores(by_role[0], by_role[1:], pairs)
                        total = total + link_loss(logits[0], logits[1:])
                    if stream.targets is not None:
                        total = total + class_terms(stream, model, first, by_role)
                    count += len(events)
            bounds = batch * size, min((batch + 1) * size, train_end)
            write_batch(stream, model, config, replicas[number], *bounds)
        (total / count).backward()
        optimiser.step()
        if learning is not None:
            learning.step()
            model.table = learning.array()
        losses.append(total.item() / count)
    return losses, model, replicas


def emulate_evaluation(stream, config, model, replica, part):
    """Scores (n, 1 + negatives) of a held-out part, one event at a time; the replica moves on batch by batch."""
    candidates, size, scores = Candidates(stream, config), config.evaluation_batch, []
    static = frozen_static(stream)
    for first in range(part.first, part.last, size):
        last = min(first + size, part.last)
        for event in range(first, min(last, part.scored_last)):
            roots = [int(stream.src[event]), *candidates.of(event, event + 1)[0].tolist()]
            inputs, graph, _ = model_inputs(stream, config, replica, roots, [event] * len(roots), static)
            with torch.no_grad():
                h = model.embed(model.represent(model.update_memory(inputs), inputs), graph)
                pairs = pairs_of(stream, config, event, roots[1:])
                scores.append(model.scores(h[:1], h[1:], pairs).numpy())
        write_batch(stream, model, config, replica, first, last)
    return np.array(scores)
