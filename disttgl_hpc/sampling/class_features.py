"""Features of events by their classes: codes behind their own features, and inputs of the class head.

The class head's inputs beside embeddings are all known before the event happens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.draws import Purpose, philox_words
from disttgl_hpc.events.stream import EventStream, Targets
from disttgl_hpc.events.tcsr import Ints, TCsrArrays, position_before
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors

WINDOW = 256
"""An event's forerunners are searched among this many last events of a node."""
WINDOWS = (4, 16, 64)
"""Numbers of last events over which class shares are computed."""
LARGEST_ONE_HOT = 32
"""Largest number of classes with one column each; more classes are encoded by random signs."""
_LOG_SCALE = np.float32(1 / 8)  # as in pair features
_FORERUNNERS = 3  # of the pair, of the source, of the destination


def class_codes(num_classes: int) -> NDArray[np.int8]:
    """Codes of the classes, (C, w): one-hot, or w = 32 random signs each for many classes.

    Random signs of two classes agree in 16 ± 3 of 32 places, so that a linear layer can distinguish them.
    """
    if num_classes <= LARGEST_ONE_HOT:
        return np.eye(num_classes, dtype=np.int8)
    words = philox_words(0, Purpose.CLASS_CODES, (0, 0, 0), 0, num_classes)
    bits = np.unpackbits(np.ascontiguousarray(words, "<u8").view(np.uint8), axis=1)[:, :LARGEST_ONE_HOT]
    return 2 * bits.astype(np.int8) - 1


def encode_classes(values: NDArray[np.integer], codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Codes (n, w) of classes (n,), zeros for −1; or of (n, C) zeros and ones, with summed codes."""
    if values.ndim > 1:
        sums = values.astype(np.float32) @ codes.astype(np.float32)  # exact, and faster than in integers
        return np.asarray(sums.clip(-127, 127), np.int8)
    encoded: NDArray[np.int8] = codes[values]
    encoded[values < 0] = 0
    return encoded


def event_rows(stream: EventStream, events: NDArray[np.int64]) -> NDArray[np.floating] | NDArray[np.int8]:
    """Features (n, dim_edge) of ``events`` (n,): their own and, behind them, the codes of their classes.

    A copy in the dtype of the stream's edge features, int8 without any. Raises ValueError if there are neither.
    """
    parts: list[NDArray[Any]] = []
    if stream.edge_features is not None:
        parts.append(np.take(stream.edge_features, events, axis=0))
    if stream.targets is not None and stream.targets.codes is not None:
        parts.append(encode_classes(stream.targets.values[events], stream.targets.codes))
    rows: NDArray[Any] = np.concatenate(parts, axis=1, dtype=parts[0].dtype, casting="unsafe")
    return rows


def event_scale(stream: EventStream) -> NDArray[np.float32] | None:
    """Factors (dim_edge,) of :func:`event_rows` if these are int8, otherwise None; those of codes are 1."""
    if stream.edge_features is not None and stream.edge_scale is None:
        return None
    scale = np.ones(stream.dim_edge, np.float32)
    if stream.edge_scale is not None:
        scale[: len(stream.edge_scale)] = stream.edge_scale
    return scale


def dim_facts(targets: Targets) -> int:
    """Width of the result of :func:`class_facts`."""
    known = 0 if targets.known is None else targets.known.shape[1]
    encoded = 0 if targets.codes is None else targets.codes.shape[1]
    num_ends = 2 if targets.of_pair else 1
    num_forerunners = _FORERUNNERS if targets.of_pair else 1
    history = num_forerunners * (2 + encoded) + len(WINDOWS) * (1 + num_ends) * encoded if encoded else 0
    return int(targets.of_pair) + known + history


def class_facts(stream: EventStream, targets: Targets, first: int, last: int) -> NDArray[np.float32]:
    """Class features (n, dim_facts) of events [first, last).

    For pairs: whether the event is a self-loop. Known features of the event, if any. With class history: for each of
    its :func:`forerunners` whether it exists, log(1 + events since) / 8 and its class codes; and the
    :func:`recent_shares` of stream, source and destination. For classes of sources the destination is omitted.
    """
    if first == last:  # an empty slice of a short last batch
        return np.empty((0, dim_facts(targets)), np.float32)
    columns: list[NDArray[np.generic]] = [np.empty((last - first, 0), np.float32)]
    if targets.of_pair:
        columns.append((stream.src[first:last] == stream.dst[first:last])[:, None])
    if targets.known is not None:
        known = targets.known[first:last]
        columns.append(known if targets.known_scale is None else known * targets.known_scale)
    if targets.codes is not None:
        bounds = event_bounds(stream.time, first, last)
        found = forerunners(stream, first, last, bounds)
        for events in found.T if targets.of_pair else found.T[1:2]:
            is_known = (events >= 0)[:, None]
            age = np.log1p(bounds - events, dtype=np.float32)[:, None] * _LOG_SCALE
            encoded = encode_classes(targets.values[events], targets.codes)
            columns += [is_known, is_known * age, is_known * encoded]
        columns += recent_shares(stream, targets, first, last, bounds)
    return np.concatenate(columns, axis=1, dtype=np.float32)


def recent_shares(
    stream: EventStream, targets: Targets, first: int, last: int, bounds: NDArray[np.int64]
) -> list[NDArray[np.float32]]:
    """Mean codes of the last 4, 16, 64 events (``WINDOWS``) of the whole stream, and of each end.

    For each of events [first, last), over events before ``bounds`` (n,); zeros if there are none → (n, w) each. Shares
    of the whole stream show what affects all nodes at a time, such as a storm.
    """
    if targets.codes is None:
        return []
    begin = max(0, int(bounds[0]) - WINDOWS[-1])
    encoded = encode_classes(targets.values[begin:last], targets.codes)
    sums = np.concatenate([np.zeros((1, encoded.shape[1]), np.int64), encoded.cumsum(axis=0, dtype=np.int64)])
    ends = bounds - begin
    shares = [_mean(sums[ends] - sums[np.maximum(0, ends - size)], ends, size) for size in WINDOWS]
    for nodes in (stream.src, stream.dst) if targets.of_pair else (stream.src,):
        hood = recent_neighbors(stream.tcsr, nodes[first:last], stream.time[first:last], bounds, WINDOWS[-1])
        encoded = encode_classes(targets.values[hood.event_ids.ravel()], targets.codes)
        encoded = encoded.reshape(*hood.event_ids.shape, -1)
        encoded[np.arange(WINDOWS[-1]) >= hood.counts[:, None]] = 0
        shares += [_mean(encoded[:, :size].sum(axis=1), hood.counts, size) for size in WINDOWS]
    return shares


def _mean(sums: NDArray[np.integer], counts: NDArray[np.int64], window: int) -> NDArray[np.float32]:
    """Mean codes: sums (n, w) over the last events of a window, of ``counts`` (n,) events in all."""
    means: NDArray[np.float32] = np.divide(sums, np.clip(counts, 1, window)[:, None], dtype=np.float32)
    return means


def forerunners(stream: EventStream, first: int, last: int, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last event before each of [first, last) with its source and destination, its source, its destination.

    bounds: (n,), upper bounds of the event ids. → (n, 3) event ids, −1 if none is among a node's last ``WINDOW``
    events; events of the pair are searched among those of the end that has fewer.
    """
    found = np.full((last - first, _FORERUNNERS), -1, np.int64)
    ends = [np.asarray(ids[first:last], np.int64) for ids in (stream.src, stream.dst)]
    _find(stream.tcsr.arrays, stream.src, stream.dst, ends[0], ends[1], bounds, found)
    return found


@compiled
def _find(  # noqa: PLR0917
    tcsr: TCsrArrays,
    src: Ints,
    dst: Ints,
    sources: NDArray[np.int64],
    destinations: NDArray[np.int64],
    bounds: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    """Fill ``found`` (n, 3)."""
    indptr, _, event_ids, _ = tcsr
    for row in range(len(sources)):
        source, destination = sources[row], destinations[row]
        ours, theirs = indptr[source], indptr[destination]
        our_end = position_before(event_ids, ours, indptr[source + 1], bounds[row])
        their_end = position_before(event_ids, theirs, indptr[destination + 1], bounds[row])
        for entry in range(our_end - 1, max(ours, our_end - WINDOW) - 1, -1):
            if src[event_ids[entry]] == source:
                found[row, 1] = event_ids[entry]
                break
        for entry in range(their_end - 1, max(theirs, their_end - WINDOW) - 1, -1):
            if dst[event_ids[entry]] == destination:
                found[row, 2] = event_ids[entry]
                break
        begin, end = ours, our_end
        if their_end - theirs < our_end - ours:
            begin, end = theirs, their_end
        for entry in range(end - 1, max(begin, end - WINDOW) - 1, -1):
            event = event_ids[entry]
            if src[event] == source and dst[event] == destination:
                found[row, 0] = event
                break
