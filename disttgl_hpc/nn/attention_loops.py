"""The compiled form of ``mixing.mix_neighbors``: one root after the other, its slots in cache.

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

from disttgl_hpc.compiled import vectorized
from disttgl_hpc.nn.slot_loops import (
    add_scaled,
    add_slope,
    add_two_scaled,
    copy_row,
    dot,
    encode,
    encode_with_slope,
    padded,
    read_features,
)

Floats = NDArray[np.float32]


class Slots(NamedTuple):
    """What roots attend to, as arrays; see ``inputs.GraphInputs``.

    h: (U, d) float32. roots: (R,), neighbors: (R, K), counts: (R,) int64. elapsed: (R, K) float32. frequency,
    phase: (T,) float64, in turns. table: (E, e) stored edge features, float16 as the bits in uint16, of which
    ``events`` (R, K) int64 are meant; scale: (e,) float32 or empty; without features e is 0. keep: (R, H, K) bool
    or empty, weights that dropout leaves alone, which are then multiplied by ``kept`` (float32).
    """

    h: Floats
    roots: NDArray[np.int64]
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


@vectorized
def _weigh(logits: Floats, softmax: Floats) -> None:
    """Softmax of logits (c,) → softmax (c,)."""
    top, norm = np.float32(-np.inf), np.float32(0)
    for s in range(len(logits)):
        top = max(top, logits[s])
    for s in range(len(logits)):
        softmax[s] = np.exp(logits[s] - top)
        norm += softmax[s]
    for s in range(len(logits)):
        softmax[s] /= norm


@vectorized
def mix_forward(
    first, last, query, slope, mixed, logits, softmax,
    h, roots, neighbors, counts, elapsed, frequency, phase, table, events, scale, keep, kept,
):  # fmt: skip
    """Weighted sums of roots [first, last).

    query: (H, n, d + T + e + 1); slope: LeakyReLU's. → mixed (H, R, d + T + e + 1), and for the backward pass
    logits and softmax (R, H, K). What follows is :class:`Slots`.
    """
    heads, _, width = query.shape
    timed, edged = h.shape[1], h.shape[1] + len(frequency)
    x = np.zeros((neighbors.shape[1], padded(width)), np.float32)
    x[:, width - 1] = 1
    q, sums = np.zeros(padded(width), np.float32), np.zeros(padded(width), np.float32)
    for r in range(first, last):
        root, count = roots[r], counts[r]
        for s in range(count):
            copy_row(h[neighbors[r, s]], x[s])
            encode(np.float64(elapsed[r, s]), frequency, phase, x[s, timed:edged])
            read_features(table[events[r, s]], scale, x[s, edged:])
        for head in range(heads):
            copy_row(query[head, root], q)
            for s in range(count):
                logit = dot(q, x[s])
                logits[r, head, s] = logit if logit > 0 else slope * logit
            _weigh(logits[r, head, :count], softmax[r, head, :count])
            sums[:] = 0
            for s in range(count):
                weight = softmax[r, head, s]
                if len(keep):
                    weight *= kept * keep[r, head, s]
                add_scaled(weight, x[s], sums)
            copy_row(sums[:width], mixed[head, r])


@vectorized
def mix_backward(
    first, last, query, d_mixed, slope, logits, softmax, d_h, d_query, d_time,
    h, roots, neighbors, counts, elapsed, frequency, phase, table, events, scale, keep, kept,
):  # fmt: skip
    """Add the gradients of roots [first, last) to d_h (U, d), d_query (H, n, d + T + e + 1), d_time (2, T).

    d_time, float64: of the angular frequency and of the phase in radians.
    """
    heads, _, width = query.shape
    slots, timed, edged = neighbors.shape[1], h.shape[1], h.shape[1] + len(frequency)
    x = np.zeros((slots, padded(width)), np.float32)
    x[:, width - 1] = 1
    sines = np.empty((slots, len(frequency)), np.float32)
    q, g = np.zeros((heads, padded(width)), np.float32), np.zeros((heads, padded(width)), np.float32)
    d_q, d_x = np.zeros(padded(width), np.float32), np.zeros(edged, np.float32)
    share, d_logit = np.empty((heads, slots), np.float32), np.empty((heads, slots), np.float32)
    for r in range(first, last):
        root, count = roots[r], counts[r]
        for s in range(count):
            copy_row(h[neighbors[r, s]], x[s])
            angle = x[s, timed:edged], sines[s]
            encode_with_slope(np.float64(elapsed[r, s]), frequency, phase, *angle)
            read_features(table[events[r, s]], scale, x[s, edged:])
        for head in range(heads):
            copy_row(query[head, root], q[head])
            copy_row(d_mixed[head, r], g[head])
            mean = np.float32(0)
            for s in range(count):
                factor = np.float32(1)
                if len(keep):
                    factor = kept * keep[r, head, s]
                share[head, s] = softmax[r, head, s] * factor
                d_logit[head, s] = factor * dot(g[head], x[s])
                mean += softmax[r, head, s] * d_logit[head, s]
            d_q[:] = 0
            for s in range(count):
                change = softmax[r, head, s] * (d_logit[head, s] - mean)
                if logits[r, head, s] <= 0:
                    change *= slope
                d_logit[head, s] = change
                add_scaled(change, x[s], d_q)
            add_scaled(np.float32(1), d_q, d_query[head, root])
        # x takes part in the weighted sums and in the logits; of x, edge features have no gradient.
        for s in range(count):
            d_x[:] = 0
            for head in range(heads):
                add_two_scaled(share[head, s], g[head], d_logit[head, s], q[head], d_x)
            add_scaled(np.float32(1), d_x, d_h[neighbors[r, s]])
            add_slope(elapsed[r, s], d_x[timed:], sines[s], d_time)
