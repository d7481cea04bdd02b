"""The compiled form of ``memory_update.MemoryUpdate``, but for its matrix products."""

# Loops take their arrays one by one and without types, which the compiler finds out.
# mypy: allow-untyped-defs
# ruff: noqa: PLR0917

from __future__ import annotations

import numpy as np

from disttgl_hpc.compiled import vectorized
from disttgl_hpc.nn.slot_loops import add_slope, copy_row, encode, encode_with_slope, read_features, sigmoid


@vectorized
def read_mail(
    first, last, state, rows, elapsed, frequency, phase, table, events, scale, mail
):  # fmt: skip
    """Mail [memory ‖ peer ‖ edge ‖ φ] of nodes [first, last) → mail (V, 2d + e + T) float32.

    state: (U, 2d), of which ``rows`` (V,) have mail; elapsed: (V,); the others as in ``attention_loops.Slots``.
    """
    edged, timed = state.shape[1], state.shape[1] + table.shape[1]
    for v in range(first, last):
        copy_row(state, rows[v], mail, v)
        read_features(table, events[v], scale, mail, v, edged)
        encode(np.float64(elapsed[v]), frequency, phase, mail, v, timed)


@vectorized
def _gate(d, gates, bias, resettable, reset_bias, memory, out):
    """One node of :func:`update_forward`."""
    for i in range(d):
        reset, update = sigmoid(gates[i] + bias[i]), sigmoid(gates[d + i] + bias[d + i])
        again = resettable[i] + reset_bias[i]
        new = np.float32(2) * sigmoid(
            np.float32(2) * (gates[2 * d + i] + bias[2 * d + i] + reset * again)
        ) - np.float32(1)
        out[i] = new + update * (memory[i] - new)
        gates[i], gates[d + i], gates[2 * d + i], resettable[i] = reset, update, new, again


@vectorized
def update_forward(first, last, gates, bias, resettable, reset_bias, mail, rows, memory):
    """Gates of nodes [first, last) from their products, and the updated memory of the ``rows`` (V,) with mail.

    gates: (V, 3d) and resettable: (V, d), the products, replaced by reset ‖ update ‖ new and by what was reset.
    mail: (V, ≥ d), which begins with the memory before. → memory (U, d).
    """
    for v in range(first, last):
        _gate(resettable.shape[1], gates[v], bias, resettable[v], reset_bias, mail[v], memory[rows[v]])


@vectorized
def _gate_slope(d, gates, resettable, memory, d_memory, d_gates, d_resettable):
    """One node of :func:`update_backward`."""
    one = np.float32(1)
    for i in range(d):
        reset, update, new = gates[i], gates[d + i], gates[2 * d + i]
        d_new = d_memory[i] * (one - update) * (one - new * new)
        d_gates[i] = d_new * resettable[i] * reset * (one - reset)
        d_gates[d + i] = d_memory[i] * (memory[i] - new) * update * (one - update)
        d_gates[2 * d + i] = d_new
        d_resettable[i] = d_new * reset


@vectorized
def update_backward(first, last, gates, resettable, mail, rows, d_memory, d_gates, d_resettable):
    """Gradients of both products (V, 3d), (V, d) for nodes [first, last), from d_memory (U, d)."""
    d = resettable.shape[1]
    for v in range(first, last):
        _gate_slope(d, gates[v], resettable[v], mail[v], d_memory[rows[v]], d_gates[v], d_resettable[v])


@vectorized
def time_backward(first, last, elapsed, frequency, phase, d_encoded, d_time):
    """Add the gradients of the frequency and the phase to d_time (2, T) float64, from those of φ (V, T)."""
    encoded, slope = np.empty((2, 1, len(frequency)), np.float32)
    for v in range(first, last):
        encode_with_slope(np.float64(elapsed[v]), frequency, phase, encoded, 0, 0, slope)
        add_slope(elapsed[v], d_encoded, v, 0, slope, 0, d_time)
