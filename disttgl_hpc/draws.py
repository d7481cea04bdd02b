"""Counter-based randomness: a random number is a pure function of its purpose and place, not of call order.

Philox4x64-10 (Salmon et al., SC'11) maps a key and a 256-bit counter to a block of four words. The key is
(seed, purpose), the counter is (block, three stream words), and each event has its own blocks. Draws
therefore depend neither on the slice requested, nor on the number of ranks, nor on earlier draws.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled

WORDS_PER_BLOCK = 4
_DRAWS_PER_WORD = 4  # dropout splits 64-bit words into 16-bit draws
_NUM_RATES = 1 << 16


class Purpose(IntEnum):
    """Purpose of draws: the second half of the key, so that different purposes share no numbers."""

    TRAINING_NEGATIVES = 0
    EVALUATION_NEGATIVES = 1
    DROPOUT = 2
    WEIGHTS = 3
    SYNTHETIC_EVENTS = 4
    SYNTHETIC_FEATURES = 5
    STATIC_DROPOUT = 6
    CLASS_CODES = 7


def philox_words(
    seed: int, purpose: Purpose, stream: tuple[int, int, int], first_block: int, num_blocks: int
) -> NDArray[np.uint64]:
    """Blocks [first_block, first_block + num_blocks) of a stream → (num_blocks, 4) uint64.

    seed, first_block and the words of ``stream`` lie in [0, 2⁶⁴). Block n does not depend on the requested
    range.
    """
    counter = first_block
    for position, word in enumerate(stream, start=1):
        counter |= word << (64 * position)
    # NumPy increments the counter before each block, hence the decrement (with borrow).
    generator = np.random.Philox(key=seed | int(purpose) << 64, counter=(counter - 1) % (1 << 256))
    words: NDArray[np.uint64] = generator.random_raw(num_blocks * WORDS_PER_BLOCK)
    return words.reshape(num_blocks, WORDS_PER_BLOCK)


def event_words(
    seed: int,
    purpose: Purpose,
    stream: tuple[int, int, int],
    first_event: int,
    num_events: int,
    *,
    words_per_event: int,
) -> NDArray[np.uint64]:
    """Words of events [first_event, first_event + num_events) → (num_events, words_per_event) uint64.

    Event e has blocks [e·n, (e + 1)·n), n = ⌈words_per_event / 4⌉, independent of the requested range.
    """
    blocks_per_event = -(-words_per_event // WORDS_PER_BLOCK)
    words = philox_words(seed, purpose, stream, first_event * blocks_per_event, num_events * blocks_per_event)
    return words.reshape(num_events, blocks_per_event * WORDS_PER_BLOCK)[:, :words_per_event]


@compiled
def bounded(word: int, bound: int) -> int:
    """Uniform draw in [0, bound) from the high 32 bits of a uint64 word; 1 ≤ bound < 2³².

    Multiply and shift without rejection, so one word per draw; the relative bias is below bound / 2³².
    """
    return np.int64((word >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32))  # type: ignore[return-value]


def keep_mask(
    seed: int, pass_number: int, first_event: int, num_events: int, *, draws_per_event: int, rate: float
) -> NDArray[np.bool_]:
    """Dropout: True where a value is kept → (num_events, draws_per_event) bool; 0 ≤ rate < 1.

    pass_number: see ``grid.schedule.pass_number``; no two passes over an event share a mask.
    Draws have 16 bits, so the effective rate is the multiple of 2⁻¹⁶ nearest to ``rate``.
    """
    words_per_event = -(-draws_per_event // _DRAWS_PER_WORD)
    stream = (pass_number, 0, 0)
    words = event_words(
        seed, Purpose.DROPOUT, stream, first_event, num_events, words_per_event=words_per_event
    )
    # An explicit byte order gives the same draws on every machine; no copy if it is native.
    draws = np.ascontiguousarray(words, dtype="<u8").view("<u2")[:, :draws_per_event]
    return draws >= round(rate * _NUM_RATES)


def node_mask(
    seed: int, pass_number: int, batch: int, nodes: NDArray[np.int64], *, rate: float
) -> NDArray[np.bool_]:
    """Dropout of whole nodes: True where one of ``nodes`` (n,) is kept → (n,) bool; 0 ≤ rate < 1.

    A node is dropped or kept in all slices of a global batch. Since nodes are not contiguous, they are hashed
    (SplitMix64) with a Philox word as the key.
    """
    word = philox_words(seed, Purpose.STATIC_DROPOUT, (pass_number, batch, 0), 0, 1)[0, 0]
    mixed = (nodes.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ word
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    draws = (mixed ^ mixed >> np.uint64(31)) >> np.uint64(48)
    kept: NDArray[np.bool_] = draws >= round(rate * _NUM_RATES)
    return kept
