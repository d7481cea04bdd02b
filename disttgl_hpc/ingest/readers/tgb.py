"""Link prediction datasets of TGB (Huang et al., NeurIPS 2023), as its own package py-tgb reads them.

TGB keeps its evaluation negatives, and what its package makes of the raw files, as pickles. They are read by
py-tgb, never by us: what lies in the folder is trusted as one trusts a program. So nothing in here runs unless a
dataset of TGB is asked for by its name or with ``--format tgb``.
"""

from __future__ import annotations

import importlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.source import EventArrays, NodeTable, RawInput, array_events
from disttgl_hpc.log import progress

_NAME = re.compile(r"tgbl[-_][a-z0-9]+")
_PIECE = 1 << 14
_NO_PACKAGE = (
    "TGB's datasets are read by its package py-tgb, it is not installed: pip install 'disttgl_hpc[tgb]'"
)


def is_tgb_name(path: Path) -> bool:
    """Whether a word is the name of a dataset, as ``tgbl-wiki``."""
    return bool(_NAME.fullmatch(str(path))) and not path.exists()


def is_tgb_folder(folder: Path) -> bool:
    """Whether a folder is called as TGB calls the folder of a dataset, as ``datasets/tgbl_wiki``."""
    return bool(_NAME.fullmatch(folder.name))


def read_tgb(path: Path, chunk_events: int) -> RawInput:
    """A dataset by its name, from py-tgb's own folder, or by its folder; its split and evaluation negatives kept.

    Node ids are TGB's numbers. Raises InputError where package or files are missing.
    """
    name = path.name.replace("_", "-")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{path}: a dataset of TGB for links is called tgbl-…, its folder tgbl_…: give one of these; knowledge "
            "graphs and other tasks of TGB are not taken"
        )
    dataset, files = _dataset(name, path if path.is_dir() else None)
    data = dataset.full_data
    masks = (dataset.val_mask, dataset.test_mask)
    split = np.zeros(len(data["sources"]), np.int8)
    for part, mask in enumerate(masks, 1):
        split[mask] = part
    columns = {
        ours: np.asarray(data[theirs])
        for ours, theirs in {"src": "sources", "dst": "destinations", "time": "timestamps"}.items()
    }
    columns |= {end: columns[end].astype(np.int64) for end in ("src", "dst")}
    negatives = [
        _negatives(dataset, columns, mask, part) for mask, part in zip(masks, ("val", "test"), strict=True)
    ]
    features = None if dataset.edge_feat is None else np.asarray(dataset.edge_feat)
    if features is not None and features.ndim == 2 and features.shape[1] == 0:
        features = None
    arrays = EventArrays(columns, features, split, (negatives[0], negatives[1]))
    nodes = None if dataset.node_feat is None else NodeTable(path, np.asarray(dataset.node_feat))
    return RawInput(files, array_events(arrays, path, chunk_events), nodes)


def _dataset(name: str, folder: Path | None) -> tuple[Any, tuple[Path, ...]]:
    """TGB's own object with its negatives loaded, and the files it was read from; nothing is downloaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package and of what it imports
        try:
            module = importlib.import_module("tgb.linkproppred.dataset")
            home = importlib.import_module("tgb.utils.info").PROJ_DIR
        except ImportError as error:
            raise InputError(f"{_NO_PACKAGE} ({error})") from None
        # The package looks for folders below its own only.
        root = "datasets" if folder is None else os.path.relpath(folder.absolute().parent, home)
        place = folder or Path(home, "datasets", name.replace("-", "_"))
        options = {"name": name, "root": root, "meta_dict": {"dir_name": place.name}, "download": False}
        try:
            dataset = module.LinkPropPredDataset(**options)
            dataset.load_val_ns()
            dataset.load_test_ns()
        except FileNotFoundError as error:
            raise InputError(
                f"{place}: files of {name} are missing ({error}): fetch them where there is a network, python -c "
                f"\"from tgb.linkproppred.dataset import LinkPropPredDataset as D; D('{name}')\", and bring the "
                "folder here"
            ) from None
        # Whatever py-tgb and its pickles raise for files that are damaged or of another version.
        except Exception as error:
            raise InputError(
                f"{place}: py-tgb cannot read {name} ({type(error).__name__}: {error}): fetch its files anew, or "
                "bring py-tgb to their version"
            ) from None
    files = (Path(dataset.meta_dict[key]).resolve() for key in ("fname", "val_ns", "test_ns"))
    return dataset, tuple(files)


def _negatives(
    dataset: Any, columns: dict[str, NDArray[Any]], mask: NDArray[np.bool_], part: str
) -> NDArray[np.int64]:
    """Evaluation negatives (h, n) of one part's events, in their order, −1 as padding."""
    pieces = list(_asked(dataset, columns, np.flatnonzero(mask), part))
    width = max((piece.shape[1] for piece in pieces), default=0)
    return np.concatenate(
        [
            np.empty((0, width), np.int64),
            *(np.pad(piece, ((0, 0), (0, width - piece.shape[1])), constant_values=-1) for piece in pieces),
        ]
    )


def _asked(
    dataset: Any, columns: dict[str, NDArray[Any]], events: NDArray[np.int64], part: str
) -> Iterator[NDArray[np.int64]]:
    """Negatives of events a piece at a time, each as wide as its longest list."""
    with progress(len(events), f"negatives of {part}") as bar:
        for begin in range(0, len(events), _PIECE):
            rows = events[begin : begin + _PIECE]
            asked = (columns[name][rows] for name in ("src", "dst", "time"))
            try:
                lists = dataset.negative_sampler.query_batch(*asked, split_mode=part)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{dataset.name}: its negatives must be of its events ({error}): fetch its files anew"
                ) from None
            counts = np.array([len(one) for one in lists])
            piece = np.full((len(lists), int(counts.max())), -1, np.int64)
            piece[np.arange(piece.shape[1]) < counts[:, None]] = np.concatenate(
                [np.asarray(one, np.int64) for one in lists]
            )
            bar.advance(len(rows))
            yield piece
