"""The compiled loops of ``attention.attend``, without its products: one root at a time, its slots in cache.

The vectors x = [h ‖ φ(Δ) ‖ e ‖ 1] of a root are assembled in a buffer of K rows, forward and again backward:
edge features are read in place, and encoding a time is faster than loading it from memory.
"""

# Loops take many untyped arrays; numba infers their types.
# mypy: allow-untyped-defs
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import inlined, vectorized
from disttgl_hpc.model.loops.slot_loops import (
    add_rows,
    add_slope,
    copy_row,
    dots,
    encode,
    encode_with_slope,
    exponential,
    padded,
    read_features,
)

Floats = NDArray[np.float32]


class Slots(NamedTuple):
    """The neighbour slots of R roots as arrays; see ``inputs.GraphInputs``.

    h: (U, d) float32. order: (R,) int64, the order in which roots are processed; roots of the same node are
    adjacent, since they share the query and most neighbours. nodes: (R,) int64, the query of each root.
    neighbors: (R, K) and counts: (R,) int64. elapsed: (R, K) float32. frequency, phase: (T,) float64, in
    turns. table: (E, e) stored edge features, float16 as bits in uint16; events: (R, K) int64, its rows;
    scale: (e,) float32 or empty; e is 0 without features. keep: (R, H, K) bool or empty, the weights that
    dropout keeps; kept: their factor, float32.
    """

    h: Floats
    order: NDArray[np.int64]
    nodes: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    counts: NDArray[np.int64]
    elapsed: Floats
    frequency: NDArray[np.float64]
    phase: NDArray[np.float64]
    table: NDArray[np.generic]
    events: NDArray[np.int64]
    scale: Floats
    keep: NDArray[np.bool_]
    kept: np.float32


@inlined
def _weigh(logits, count, softmax):
    """Softmax of the first ``count`` logits → softmax (…,), 0 beyond them."""
    top, norm = np.float32(-np.inf), np.float32(0)
    for s in range(count):
        top = max(top, logits[s])
    for s in range(len(softmax)):
        softmax[s] = exponential(logits[s] - top) if s < count else np.float32(0)
        norm += softmax[s]
    for s in range(count):
        softmax[s] /= norm


@inlined
def _leaky(x, slope):
    """LeakyReLU."""
    return x if x > 0 else slope * x


@inlined
def _take(vectors, i, j, out):
    """vectors[i, j] (n,) → out[:n]."""
    for at in range(vectors.shape[2]):
        out[at] = vectors[i, j, at]


@inlined
def _logit_slopes(logits, softmax, keep, kept, slope, r, head, count, share, change):
    """One head of a root: attention weights → share; gradient of the weights → gradient of the logits, in change.

    Only the first ``count`` elements are used; change is 0 beyond them.
    """
    mean = np.float32(0)
    for s in range(count):
        factor = np.float32(1)
        if len(keep):
            factor = kept * keep[r, head, s]
        share[s] = softmax[r, head, s] * factor
        mean += share[s] * change[s]
        change[s] *= factor
    for s in range(count):
        change[s] = softmax[r, head, s] * (change[s] - mean)
        if logits[r, head, s] <= 0:
            change[s] *= slope
    change[count:] = 0


@vectorized
def mix_forward(
    first, last, query, slope, mixed, logits, softmax,
    h, order, nodes, neighbors, counts, elapsed, frequency, phase, table, events, scale, keep, kept,
):  # fmt: skip
    """Weighted sums of the roots ``order[first:last]``.

    query: (H, n, d + T + e + 1); slope: LeakyReLU's. → mixed (H, R, d + T + e + 1), in the order of
    ``order``, and for the backward pass logits and softmax (R, H, K). The other arguments are :class:`Slots`.
    """
    heads, _, width = query.shape
    timed, edged = h.shape[1], h.shape[1] + len(frequency)
    slots = -(-neighbors.shape[1] // 4) * 4  # rows are processed by fours; surplus rows have weight 0
    x = np.zeros((slots, padded(width)), np.float32)
    x[:, width - 1] = 1
    q, sums = np.zeros((2, padded(width)), np.float32)
    logit, weight = np.zeros((2, slots), np.float32)
    for at in range(first, last):
        r = order[at]
        node, count = nodes[r], counts[r]
        for s in range(count):
            read_features(table, events[r, s], scale, x, s, edged)
        for s in range(count):
            copy_row(h, neighbors[r, s], x, s)
            encode(np.float64(elapsed[r, s]), frequency, phase, x, s, timed)
        for head in range(heads):
            _take(query, head, node, q)
            for s in range(0, count, 4):
                a, b, c, d = dots(q, x, s)
                logit[s], logit[s + 1] = _leaky(a, slope), _leaky(b, slope)
                logit[s + 2], logit[s + 3] = _leaky(c, slope), _leaky(d, slope)
            _weigh(logit, count, weight)
            for s in range(count):
                logits[r, head, s], softmax[r, head, s] = logit[s], weight[s]
                if len(keep):
                    weight[s] *= kept * keep[r, head, s]
            sums[:] = 0
            for s in range(0, count, 4):
                add_rows(weight, x, s, sums)
            for i in range(width):
                mixed[head, at, i] = sums[i]


@vectorized
def mix_backward(
    first, last, query, d_mixed, slope, logits, softmax, d_h, d_query, d_time,
    h, order, nodes, neighbors, counts, elapsed, frequency, phase, table, events, scale, keep, kept,
):  # fmt: skip
    """Add the gradients of the roots ``order[first:last]`` to d_h (U, d), d_query (H, n, d + T + e + 1), d_time.

    d_mixed: (H, last − first, d + T + e + 1), of these roots. d_time: (2, T) float64, of the angular
    frequency and of the phase in radians.
    """
    heads, _, width = query.shape
    timed, edged = h.shape[1], h.shape[1] + len(frequency)
    slots = -(-neighbors.shape[1] // 4) * 4
    x = np.zeros((slots, padded(width)), np.float32)
    x[:, width - 1] = 1
    sines, d_angle = np.empty((slots, len(frequency)), np.float32), np.zeros((2, len(frequency)), np.float32)
    q, g, d_q = np.zeros((3, padded(width)), np.float32)
    share, change = np.zeros((2, slots), np.float32)
    d_x = np.zeros((slots, edged), np.float32)  # edge features have no gradient
    for at in range(first, last):
        r = order[at]
        node, count = nodes[r], counts[r]
        for s in range(count):
            read_features(table, events[r, s], scale, x, s, edged)
        for s in range(count):
            copy_row(h, neighbors[r, s], x, s)
            encode_with_slope(np.float64(elapsed[r, s]), frequency, phase, x, s, timed, sines)
        d_x[:] = 0
        for head in range(heads):
            _take(query, head, node, q)
            _take(d_mixed, head, at - first, g)
            for s in range(0, count, 4):
                change[s], change[s + 1], change[s + 2], change[s + 3] = dots(g, x, s)
            _logit_slopes(logits, softmax, keep, kept, slope, r, head, count, share, change)
            d_q[:] = 0
            for s in range(0, count, 4):
                add_rows(change, x, s, d_q)
            for i in range(width):
                d_query[head, node, i] += d_q[i]
            # x takes part in the weighted sums and in the logits.
            for s in range(count):
                in_sum, in_logit = share[s], change[s]
                for i in range(edged):
                    d_x[s, i] += in_sum * g[i] + in_logit * q[i]
        d_angle[:] = 0
        for s in range(count):
            neighbor = neighbors[r, s]
            for i in range(timed):
                d_h[neighbor, i] += d_x[s, i]
            add_slope(elapsed[r, s], d_x, s, timed, sines, s, d_angle)
        for i in range(len(frequency)):
            d_time[0, i] += d_angle[0, i]
            d_time[1, i] += d_angle[1, i]
