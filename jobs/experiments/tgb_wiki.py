"""Rebuild the protocol of TGB's tgbl-wiki-v2 from JODIE's Wikipedia stream: its split and all of its negatives.

    python tgb_wiki.py wikipedia.csv.gz wiki-v2.npz
    disttgl prepare wiki-v2.npz wiki-v2.events.h5 --bipartite

Events up to the 0.70 quantile of the times are for training, those after the 0.85 quantile for test. Each held-out
event is ranked among all pages except the ones that its user edited in the same second.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv

SPLIT_QUANTILES = (0.70, 0.85)


def all_other_destinations(
    src: NDArray[np.int64], dst: NDArray[np.int64], time: NDArray[np.float64], held_out: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Negatives of the events ``held_out`` (n,) → (n, destinations) int64, rows padded with −1."""
    destinations = np.unique(dst)
    true = defaultdict(set)
    for user, page, moment in zip(src.tolist(), dst.tolist(), time.tolist(), strict=True):
        true[user, moment].add(page)
    negatives = np.full((len(held_out), len(destinations)), -1, np.int64)
    for row, event in enumerate(held_out):
        others = destinations[~np.isin(destinations, list(true[src[event], time[event]]))]
        negatives[row, : len(others)] = others
    return negatives


def main(source: Path, output: Path) -> None:
    """Write the events of ``source`` with the split and the negatives of the protocol."""
    options = csv.ReadOptions(skip_rows=1, autogenerate_column_names=True)
    table = csv.read_csv(source, read_options=options)
    src, dst, time = (table.column(number).to_numpy() for number in range(3))
    first, second = np.quantile(time, SPLIT_QUANTILES)
    split = (time > first).astype(np.int64) + (time > second)
    np.savez(
        output,
        src=src,
        dst=dst,
        time=time,
        split=split,
        validation_negatives=all_other_destinations(src, dst, time, np.flatnonzero(split == 1)),
        test_negatives=all_other_destinations(src, dst, time, np.flatnonzero(split == 2)),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
