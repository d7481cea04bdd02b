"""Temporal knowledge graphs as text: subject, relation, object and time, separated by tabs."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.raw_events import Origin, RawEvents, first_true, raw_events
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, read_text
from disttgl_hpc.ingest.source import Chunks, RawInput

_SPLITS = ("train.txt", "valid.txt", "test.txt")
_ENTITIES, _RELATIONS = "entity2id.txt", "relation2id.txt"
_COLUMNS = Columns(src="subject", dst="object", time="time", label="relation")


def is_knowledge_graph(folder: Path) -> bool:
    """Whether a folder looks like a knowledge graph's."""
    return (folder / _SPLITS[0]).is_file()


def read_knowledge_graph(path: Path, chunk_events: int) -> RawInput:
    """A file of facts, or a folder whose train.txt, valid.txt and test.txt are the split.

    In a folder, entity2id.txt and relation2id.txt name nodes and edge classes. Raises InputError.
    """
    if path.is_file():
        return RawInput((path,), _facts(path, chunk_events))
    files = [path / name for name in _SPLITS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{path}: a knowledge graph's folder must have {', '.join(_SPLITS)}, missing {', '.join(missing)}: "
            "name single files to prepare them as one stream"
        )
    names = [path / name for name in (_ENTITIES, _RELATIONS) if (path / name).is_file()]
    entities, relations = (
        _names(path / name) if path / name in names else None for name in (_ENTITIES, _RELATIONS)
    )
    if relations is not None and sorted(relations) != list(range(len(relations))):
        raise InputError(
            f"{path / _RELATIONS}: relations must be numbered 0, 1, …, found up to {max(relations)} for "
            f"{len(relations)}: number them, or remove the file"
        )
    events = (
        (
            _named(replace(raw, split=np.full(len(raw.time), part, np.int8)), origin, entities, relations),
            origin,
        )
        for part, file in enumerate(files)
        for raw, origin in _facts(file, chunk_events)
    )
    classes = None if relations is None else tuple(relations[number] for number in range(len(relations)))
    return RawInput((*files, *names), events, class_names=classes)


def _facts(path: Path, chunk_events: int) -> Chunks:
    """Facts of a file as events; further columns are ignored."""
    width = len(first_line(path, 0, quotes=False).split("\t"))
    if width < 4:
        raise InputError(
            f"{path}, line 1: a fact is subject, relation, object and time separated by tabs, {width} columns "
            "found: choose another --format"
        )
    names = ("subject", "relation", "object", "time", *(str(number) for number in range(5, width + 1)))
    wanted = _COLUMNS.wanted
    layout = TextLayout("\t", names, header=False, quotes=False)
    for table, origin in read_text(path, layout, wanted, dict.fromkeys(wanted, pa.string()), chunk_events):
        yield raw_events(table, _COLUMNS, origin), origin


def _names(path: Path) -> dict[int, str]:
    """Names by number. Raises InputError unless each number has one name and each name one number."""
    layout = TextLayout("\t", ("name", "number"), header=False, quotes=False)
    kinds = {"name": pa.string(), "number": pa.int64()}
    tables = [table for table, _ in read_text(path, layout, list(kinds), kinds, 1 << 20)]
    texts = [text.strip() for table in tables for text in table["name"].to_pylist()]
    numbers = list(chain.from_iterable(table["number"].to_pylist() for table in tables))
    names = dict(zip(numbers, texts, strict=True))
    if not names or len(names) < len(numbers) or len(set(texts)) < len(texts) or "" in texts:
        raise InputError(
            f"{path}: must have one name per number and one number per name, {len(numbers):,} lines have "
            f"{len(names):,} numbers and {len(set(texts)):,} names: correct it, or remove the file to "
            "keep the numbers"
        )
    return names


def _named(
    raw: RawEvents, origin: Origin, entities: dict[int, str] | None, relations: dict[int, str] | None
) -> RawEvents:
    """Facts with nodes replaced by their names, and relations as class numbers."""
    if entities is not None:
        raw = replace(
            raw, src=_looked_up(raw.src, entities, origin), dst=_looked_up(raw.dst, entities, origin)
        )
    if relations is not None and raw.edge_label is not None:
        _looked_up(raw.edge_label, relations, origin)
        raw = replace(raw, edge_label=raw.edge_label.cast(pa.int64()))
    return raw


def _looked_up(values: pa.Array, names: dict[int, str], origin: Origin) -> pa.Array:
    """Names (n,) of numbers written as text. Raises InputError at the first number without a name."""
    index = pc.index_in(values, pa.array([str(number) for number in names]).cast(values.type))
    row = first_true(index.is_null())
    if row is not None:
        raise origin.error(
            row,
            f"'{values[row].as_py()}' must have a name in {_ENTITIES} or {_RELATIONS}: get the files of one "
            "dataset, or remove these two",
        )
    return pa.array(list(names.values())).take(index)
