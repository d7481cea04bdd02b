"""The compiled loops of the model for float32 on the CPU, without matrix products, and their building blocks.

A row is passed as an array and a row number: a view would be reference-counted with an atomic instruction.
Offsets within a row are unsigned: a signed index might be negative and mean a place counted from the end,
which prevents vectorisation.

Attention processes one root at a time, with its slots in cache: the vectors x = [h ‖ φ(Δ) ‖ e ‖ 1] of a root
are assembled in a buffer of K rows, forward and again backward. Edge features are read in place, and encoding
a time is faster than loading it from memory.
"""

# Loops take many untyped arrays; numba infers their types.
# mypy: allow-untyped-defs
# ruff: noqa: PLR0917

from __future__ import annotations

from math import factorial, log, pi
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from disttgl_hpc.compiled import inlined, vectorized

LANES = 64
"""Buffers are padded to multiples of this many float32, so that loops over them have no scalar remainder."""


_QUARTER = np.float32(0.25)


# sin(2πx) for |x| <= 1/4 by its series; the remainder is below 6e-8.
_S1, _S3, _S5, _S7, _S9, _S11 = (
    np.float32((-1) ** (power // 2) * (2 * pi) ** power / factorial(power)) for power in range(1, 12, 2)
)
_LOG2_E = np.float32(1 / log(2))
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (np.float32(log(2) ** power / factorial(power)) for power in range(7))
_HALF_TO_FLOAT = np.float32(2.0**112)  # between the exponent biases of float16 and float32


@inlined
def padded(width: int) -> int:
    """The next multiple of LANES."""
    return -(-width // LANES) * LANES


@inlined
def _sine(turns: np.float32) -> np.float32:
    """sin(2π·turns) for |turns| <= 1/4, within 2e-7."""
    q = turns * turns
    return turns * (_S1 + q * (_S3 + q * (_S5 + q * (_S7 + q * (_S9 + q * _S11)))))


@inlined
def encode(elapsed: float, frequency: Any, phase: Any, out: Any, row: int, begin: int) -> None:
    """φ = cos(2π(Δ·frequency + phase)) of one elapsed time, both in turns (T,) → out[row, begin:] float32.

    The product is computed in float64, where whole turns can be dropped exactly; see
    ``time_encoding.phase_angle``.
    """
    for i in range(np.uintp(len(frequency))):
        turns = elapsed * frequency[i] + phase[i]
        part = np.float32(turns - np.rint(turns))
        out[row, np.uintp(begin) + i] = _sine(_QUARTER - abs(part))


@inlined
def encode_with_slope(
    elapsed: float, frequency: Any, phase: Any, out: Any, row: int, begin: int, slope: Any
) -> None:
    """As :func:`encode`, and −sin of the same angles → slope[row] (T,) float32."""
    for i in range(np.uintp(len(frequency))):
        turns = elapsed * frequency[i] + phase[i]
        part = np.float32(turns - np.rint(turns))
        out[row, np.uintp(begin) + i] = _sine(_QUARTER - abs(part))
        slope[row, i] = -_sine(np.copysign(_QUARTER - abs(abs(part) - _QUARTER), part))


def _as_float(value: Any) -> Any:
    """A stored feature as float32; float16, which numba does not support, is passed as bits in uint16."""
    raise NotImplementedError


@overload(_as_float)
def _as_float_of(value: Any) -> Any:
    def widen(value: Any) -> Any:
        return np.float32(value)

    def widen_half(value: Any) -> Any:
        bits = np.int32(value)
        size = np.int32((bits & 0x7FFF) << 13).view(np.float32) * _HALF_TO_FLOAT
        return np.copysign(size, np.float32(0x7FFF - bits))

    return widen_half if value == types.uint16 else widen


@inlined
def read_features(table: Any, event: int, scale: Any, out: Any, row: int, begin: int) -> None:
    """Stored features (e,) of an event, times scale (e,) unless that is empty → out[row, begin:] float32."""
    if len(scale):
        for i in range(np.uintp(table.shape[1])):
            out[row, np.uintp(begin) + i] = _as_float(table[event, i]) * scale[i]
    else:
        for i in range(np.uintp(table.shape[1])):
            out[row, np.uintp(begin) + i] = _as_float(table[event, i])


@inlined
def exponential(x: np.float32) -> np.float32:
    """exp(x) for |x| <= 87, relative error below 1e-5, never 0; vectorises without a math library.

    Its error is that of the product x·log2(e) in float32.
    """
    power = min(max(x * _LOG2_E, np.float32(-126)), np.float32(126))
    whole = np.rint(power)
    f = power - whole
    # 2^f for |f| <= 1/2 by its series; the remainder is below 2e-8.
    fraction = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
    result = np.int32((np.int32(whole) + np.int32(127)) << 23).view(np.float32) * fraction
    return result if x == x else x  # noqa: PLR0124


@inlined
def sigmoid(x: np.float32) -> np.float32:
    """1/(1 + exp(−x)), within 2e-7."""
    power: np.float32 = exponential(x)
    return power / (_P0 + power)


@inlined
def copy_row(table: Any, source: int, out: Any, row: int) -> None:
    """table[source] (n,) → out[row, :n]."""
    for i in range(table.shape[1]):
        out[row, i] = table[source, i]


@inlined
def dots(vector: Any, rows: Any, first: int) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Products of a vector (n,) with four rows of an array (…, n)."""
    a = b = c = d = np.float32(0)
    for i in range(len(vector)):
        a += vector[i] * rows[first, i]
        b += vector[i] * rows[first + 1, i]
        c += vector[i] * rows[first + 2, i]
        d += vector[i] * rows[first + 3, i]
    return a, b, c, d


@inlined
def add_rows(weights: Any, rows: Any, first: int, out: Any) -> None:
    """Add four rows of an array (…, n), each times its weight, to out (n,)."""
    a, b, c, d = weights[first], weights[first + 1], weights[first + 2], weights[first + 3]
    for i in range(len(out)):
        out[i] += (
            a * rows[first, i] + b * rows[first + 1, i] + c * rows[first + 2, i] + d * rows[first + 3, i]
        )


@inlined
def add_slope(
    elapsed: np.float32, d_encoded: Any, row: int, begin: int, slope: Any, slope_row: int, d_time: Any
) -> None:
    """Add the gradients of the angular frequency and the phase to d_time (2, T).

    From those of φ, d_encoded[row, begin:], and slope[slope_row] (T,) of :func:`encode_with_slope`.
    """
    for i in range(np.uintp(slope.shape[1])):
        d_angle = d_encoded[row, np.uintp(begin) + i] * slope[slope_row, i]
        d_time[0, i] += elapsed * d_angle
        d_time[1, i] += d_angle


@vectorized
def read_mail(
    first, last, state, rows, elapsed, frequency, phase, table, events, scale, mail
):  # fmt: skip
    """Mail [memory ‖ peer ‖ edge ‖ φ] of nodes [first, last) → mail (V, 2d + e + T) float32.

    state: (U, 2d); rows: (V,), the nodes with mail; elapsed: (V,); the others as in
    ``attention_loops.Slots``.
    """
    edged, timed = state.shape[1], state.shape[1] + table.shape[1]
    for v in range(first, last):
        copy_row(state, rows[v], mail, v)
        read_features(table, events[v], scale, mail, v, edged)
        encode(np.float64(elapsed[v]), frequency, phase, mail, v, timed)


@vectorized
def update_forward(first, last, gates, bias, resettable, reset_bias, mail, rows, memory):
    """Gates of nodes [first, last) from their products, and the updated memory of the ``rows`` (V,) with mail.

    gates: (V, 3d) and resettable: (V, d), the products; overwritten by reset ‖ update ‖ new and by the new
    gate's resettable part. mail: (V, ≥ d), beginning with the memory before the update. → memory (U, d).
    """
    d = np.uintp(resettable.shape[1])
    for v in range(first, last):
        node = rows[v]
        for i in range(d):
            reset, update = sigmoid(gates[v, i] + bias[i]), sigmoid(gates[v, d + i] + bias[d + i])
            again = resettable[v, i] + reset_bias[i]
            new = _tanh(gates[v, d + d + i] + bias[d + d + i] + reset * again)
            memory[node, i] = new + update * (mail[v, i] - new)
            gates[v, i], gates[v, d + i], gates[v, d + d + i], resettable[v, i] = reset, update, new, again


@inlined
def _tanh(x):
    """Hyperbolic tangent."""
    return np.float32(2) * sigmoid(np.float32(2) * x) - np.float32(1)


@vectorized
def update_backward(first, last, gates, resettable, mail, rows, d_memory, d_gates, d_resettable):
    """Gradients of both products (V, 3d), (V, d) for nodes [first, last), from d_memory (U, d)."""
    d, one = np.uintp(resettable.shape[1]), np.float32(1)
    for v in range(first, last):
        node = rows[v]
        for i in range(d):
            reset, update, new = gates[v, i], gates[v, d + i], gates[v, d + d + i]
            d_new = d_memory[node, i] * (one - update) * (one - new * new)
            d_gates[v, i] = d_new * resettable[v, i] * reset * (one - reset)
            d_gates[v, d + i] = d_memory[node, i] * (mail[v, i] - new) * update * (one - update)
            d_gates[v, d + d + i] = d_new
            d_resettable[v, i] = d_new * reset


@vectorized
def time_backward(first, last, elapsed, frequency, phase, d_encoded, d_time):
    """Add the gradients of the frequency and the phase to d_time (2, T) float64, from those of φ (V, T)."""
    encoded, slope = np.empty((2, 1, len(frequency)), np.float32)
    for v in range(first, last):
        encode_with_slope(np.float64(elapsed[v]), frequency, phase, encoded, 0, 0, slope)
        add_slope(elapsed[v], d_encoded, v, 0, slope, 0, d_time)


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
