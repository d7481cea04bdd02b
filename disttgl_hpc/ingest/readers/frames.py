"""Data frames of any library that speaks Arrow's stream protocol: pandas, Polars, Arrow itself and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns, resolve
from disttgl_hpc.ingest.raw_events import Origin, raw_events
from disttgl_hpc.ingest.source import Chunks, RawInput, row_place

_PLACE = "frame"


def given_frame(frame: Any, columns: Columns | None, chunk_events: int) -> RawInput:
    """A frame, or a mapping of columns, read batch by batch. Raises InputError for anything else."""
    try:
        if isinstance(frame, Mapping):
            frame = pa.table(dict(frame))
        if not hasattr(frame, "__arrow_c_stream__"):
            raise InputError(
                f"a frame must speak Arrow's stream protocol, as pandas from 2.2 and Polars from 1.3 do, found "
                f"{type(frame).__name__}: give such a frame, an Arrow table or a dict of columns"
            )
        reader = pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{_PLACE}: cannot be read as Arrow columns ({reason}): convert them") from None
    known = resolve(columns or Columns(), reader.schema.names, _PLACE)
    return RawInput((), _events(reader, known, chunk_events))


def _events(reader: pa.RecordBatchReader, columns: Columns, chunk_events: int) -> Chunks:
    first_row = 0
    for batch in reader:
        for start in range(0, batch.num_rows, chunk_events):
            table = pa.Table.from_batches([batch.slice(start, chunk_events)]).select(columns.wanted)
            origin = Origin(_PLACE, first_row, row_place)
            yield raw_events(table, columns, origin), origin
            first_row += len(table)
