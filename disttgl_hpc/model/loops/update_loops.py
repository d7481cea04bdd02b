"""The compiled loops of ``memory_update.MemoryUpdate``, without its matrix products."""

# Loops take many untyped arrays; numba infers their types.
# mypy: allow-untyped-defs
# ruff: noqa: PLR0917

from __future__ import annotations

import numpy as np

from disttgl_hpc.compiled import inlined, vectorized
from disttgl_hpc.model.loops.slot_loops import (
    add_slope,
    copy_row,
    encode,
    encode_with_slope,
    read_features,
    sigmoid,
)


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
