"""Link prediction datasets of TGB (Huang et al., NeurIPS 2023), read by its own package py-tgb.

TGB stores its evaluation negatives and preprocessed events as pickles, which can run any code when loaded. Only
py-tgb loads them, and only if the user names a dataset of TGB or passes ``--format tgb``.
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
_NO_PACKAGE = "datasets of TGB need its package py-tgb: pip install 'disttgl_hpc[tgb]'"


def is_tgb_name(path: Path) -> bool:
    """Whether a path is the name of a dataset, such as ``tgbl-wiki``, and not a file."""
    return bool(_NAME.fullmatch(str(path))) and not path.exists()


def is_tgb_folder(folder: Path) -> bool:
    """Whether a folder has the name of a dataset's folder in TGB, such as ``datasets/tgbl_wiki``."""
    return bool(_NAME.fullmatch(folder.name))


def read_tgb(path: Path, chunk_events: int) -> RawInput:
    """A dataset by its name, from py-tgb's own folder, or by its folder, with its split and evaluation negatives.

    Node ids are TGB's numbers. Raises InputError if the package or files are missing or damaged.
    """
    name = path.name.replace("_", "-")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{path}: link prediction datasets of TGB are named tgbl-…, their folders tgbl_…: use one of these; "
            "other tasks of TGB are not supported"
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
    arrays = EventArrays(columns, features, split, (negatives[0], negatives[1]))
    nodes = None if dataset.node_feat is None else NodeTable(path, np.asarray(dataset.node_feat))
    return RawInput(files, array_events(arrays, path, chunk_events), nodes)


def _dataset(name: str, folder: Path | None) -> tuple[Any, tuple[Path, ...]]:
    """TGB's dataset object with its negatives loaded, and the files it was read from; nothing is downloaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package and its imports
        try:
            module = importlib.import_module("tgb.linkproppred.dataset")
            home = importlib.import_module("tgb.utils.info").PROJ_DIR
        except ImportError as error:
            raise InputError(f"{_NO_PACKAGE} ({error})") from None
        # The package takes paths relative to its own folder only.
        root = "datasets" if folder is None else os.path.relpath(folder.absolute().parent, home)
        place = folder or Path(home, "datasets", name.replace("-", "_"))
        options = {"name": name, "root": root, "meta_dict": {"dir_name": place.name}, "download": False}
        try:
            dataset = module.LinkPropPredDataset(**options)
            dataset.load_val_ns()
            dataset.load_test_ns()
        except FileNotFoundError as error:
            raise InputError(
                f"{place}: files of {name} are missing ({error}): download them on a machine with a network, "
                f"python -c \"from tgb.linkproppred.dataset import LinkPropPredDataset as D; D('{name}')\", and "
                "copy the folder here"
            ) from None
        # py-tgb and its pickles can raise any exception for files that are damaged or of another version.
        except Exception as error:
            raise InputError(
                f"{place}: py-tgb cannot read {name} ({type(error).__name__}: {error}): download its files again, "
                "or install the version of py-tgb that they are of"
            ) from None
    files = (Path(dataset.meta_dict[key]).resolve() for key in ("fname", "val_ns", "test_ns"))
    return dataset, tuple(files)


def _negatives(
    dataset: Any, columns: dict[str, NDArray[Any]], mask: NDArray[np.bool_], part: str
) -> NDArray[np.int64]:
    """Evaluation negatives (h, n) of one part's events, in their order, −1 as padding."""
    pieces = list(_queried(dataset, columns, np.flatnonzero(mask), part))
    width = max((piece.shape[1] for piece in pieces), default=0)
    return np.concatenate(
        [
            np.empty((0, width), np.int64),
            *(np.pad(piece, ((0, 0), (0, width - piece.shape[1])), constant_values=-1) for piece in pieces),
        ]
    )


def _queried(
    dataset: Any, columns: dict[str, NDArray[Any]], events: NDArray[np.int64], part: str
) -> Iterator[NDArray[np.int64]]:
    """Negatives of events, a piece at a time, each as wide as its longest list."""
    with progress(len(events), f"negatives of {part}") as bar:
        for start in range(0, len(events), _PIECE):
            rows = events[start : start + _PIECE]
            query = (columns[name][rows] for name in ("src", "dst", "time"))
            try:
                lists = dataset.negative_sampler.query_batch(*query, split_mode=part)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{dataset.name}: its negatives must be of its events ({error}): download its files again"
                ) from None
            counts = np.array([len(one) for one in lists])
            piece = np.full((len(lists), int(counts.max())), -1, np.int64)
            piece[np.arange(piece.shape[1]) < counts[:, None]] = np.concatenate(
                [np.asarray(one, np.int64) for one in lists]
            )
            bar.advance(len(rows))
            yield piece
