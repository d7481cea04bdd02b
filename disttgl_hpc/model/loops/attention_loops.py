"""The compiled form of ``mixing.attend``, but for its products: one root after the other, its slots in cache.

A root's x = [h ‖ φ(Δ) ‖ e ‖ 1] are put together in a buffer of K rows, forward and again backward: edge features
are read where they lie, and encoding a time takes less time than fetching it from memory.
"""

# Loops take their arrays one by one and without types, which the compiler finds out.
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
    """What roots attend to, as arrays; see ``inputs.GraphInputs``.

    h: (U, d) float32. order: (R,) int64, the roots as they are taken, those of one node one after the other: they
    share most of their neighbours, and all of a query. nodes: (R,), neighbors: (R, K), counts: (R,) int64, of which
    ``nodes`` names the queries. elapsed: (R, K) float32. frequency, phase: (T,) float64, in turns. table: (E, e)
    stored edge features, float16 as the bits in uint16, of which ``events`` (R, K) int64 are meant; scale: (e,)
    float32 or empty; without features e is 0. keep: (R, H, K) bool or empty, weights that dropout leaves alone,
    which are then multiplied by ``kept`` (float32).
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
    """Of a root's head: weights in the sums → share; from their gradient in change, that of its logits → change.

    Of both, (…,), the first ``count`` are meant; change is 0 beyond them.
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

    query: (H, n, d + T + e + 1); slope: LeakyReLU's. → mixed (H, R, d + T + e + 1), in the order of ``order``, and
    for the backward pass logits and softmax (R, H, K). What follows is :class:`Slots`.
    """
    heads, _, width = query.shape
    timed, edged = h.shape[1], h.shape[1] + len(frequency)
    slots = -(-neighbors.shape[1] // 4) * 4  # rows are taken by fours; those beyond a root's weigh nothing
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

    d_mixed: (H, last − first, d + T + e + 1), of these roots. d_time: (2, T) float64, of the angular frequency and
    of the phase in radians.
    """
    heads, _, width = query.shape
    timed, edged = h.shape[1], h.shape[1] + len(frequency)
    slots = -(-neighbors.shape[1] // 4) * 4
    x = np.zeros((slots, padded(width)), np.float32)
    x[:, width - 1] = 1
    sines, d_angle = np.empty((slots, len(frequency)), np.float32), np.zeros((2, len(frequency)), np.float32)
    q, g, d_q = np.zeros((3, padded(width)), np.float32)
    share, change = np.zeros((2, slots), np.float32)
    d_x = np.zeros((slots, edged), np.float32)  # of x, edge features have no gradient
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
