"""Events written as csv, compressed or not: what ``disttgl prepare`` reads with a header line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray


def write_csv(path: Path, chunks: Iterable[Mapping[str, NDArray[Any]]], *, compressed: bool) -> None:
    """Write chunks of equally named columns (n,), the first one's names as header; with gzip if ``compressed``."""
    with pa.OSFile(str(path), "wb") as file:
        stream = pa.CompressedOutputStream(file, "gzip") if compressed else file
        header = True
        for columns in chunks:
            table = pa.table(dict(columns))
            pa_csv.write_csv(table, stream, pa_csv.WriteOptions(include_header=header, quoting_header="none"))
            header = False
        stream.close()
