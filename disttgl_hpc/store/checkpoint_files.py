"""Checkpoints: a folder with one HDF5 part per compute node, and a manifest that is written last. No pickle.

A part holds named arrays and JSON attributes. The manifest lists the checksums of all parts; a folder without
a manifest, or whose parts do not match it, is not a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.files import (
    check_no_link,
    open_checked,
    own_dataset,
    read_bytes,
    remove_folder,
    replacing,
    sha256_of,
    sync,
    write_arrays,
    write_errors,
)

KIND = "disttgl-checkpoint"
SCHEMA_VERSION = 2
MANIFEST_KIND = "disttgl-manifest"
MANIFEST_VERSION = 1
_FILE = "manifest.json"
_FILES = r"manifest\.json|node-\d+\.h5"


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a part: arrays by slash-separated name, and JSON attributes."""

    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, Any]

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays below ``name/``, with that prefix removed from their names."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: array for key, array in self.arrays.items() if key.startswith(prefix)}


def write_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> str:
    """Write a part, create its folder if needed, and return the file's sha256.

    Raises StoreError if the part cannot be written, for example because the disk is full.
    """
    described = {"kind": KIND, "schema_version": SCHEMA_VERSION, "attributes": json.dumps(attributes)}
    with write_errors(path, "free disk space; earlier checkpoints are intact"):
        path.parent.mkdir(exist_ok=True)
        check_no_link(path.parent)
        with replacing(path) as partial:
            write_arrays(partial, described, arrays)
            return sha256_of(partial)


def read_checkpoint(path: Path, group: str = "") -> Checkpoint:
    """Read the arrays of a part: all, or those of one group such as "weights". Raises StoreError."""
    arrays: dict[str, NDArray[Any]] = {}
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            if name.startswith(group):
                arrays[name] = np.asarray(own_dataset(file, name, path))
        attributes = json.loads(file.attrs["attributes"])
        if not isinstance(attributes, dict):
            raise ValueError("attributes must be a JSON object")
        return Checkpoint(arrays, attributes)


def read_array(path: Path, name: str, out: NDArray[Any]) -> None:
    """Read one array of a part into ``out``. Raises StoreError, also if its shape or dtype differs."""
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        dataset = own_dataset(file, name, path)
        if (dataset.shape, dataset.dtype) != (out.shape, out.dtype):
            raise StoreError(
                f"{path}: {name} must be {out.shape} {out.dtype}, found {dataset.shape} "
                f"{dataset.dtype}: use the "
                "events and the config.json of that run"
            )
        if dataset.size:
            dataset.read_direct(out)


@dataclass(frozen=True)
class Manifest:
    """A checkpoint: its folder, the sha256 of each compute node's part, in order, and JSON attributes."""

    folder: Path
    checksums: tuple[str, ...]
    attributes: dict[str, Any]

    def part(self, node: int) -> Path:
        """Return the path of the part that compute node ``node`` wrote."""
        return part_path(self.folder, node)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return the folder, below ``folder``, of the checkpoint taken before ``step``."""
    return folder / f"step-{step:09d}"


def part_path(folder: Path, node: int) -> Path:
    """Return the path of a compute node's part of the checkpoint in ``folder``."""
    return folder / f"node-{node}.h5"


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoint folders below ``folder``, complete or not, in ascending order of their steps.

    Symbolic links are among them.
    """
    return sorted((path for path in _named(folder) if path.is_dir() or path.is_symlink()), key=step_of)


def check_no_file(folder: Path) -> None:
    """Raise StoreError if there is a file below ``folder`` in the place of a checkpoint's folder."""
    for path in _named(folder):
        if not (path.is_dir() or path.is_symlink()):
            raise StoreError(f"{path}: must be a checkpoint's folder, is a file: move it elsewhere")


def _named(folder: Path) -> list[Path]:
    """What has the name of a checkpoint's folder below ``folder``."""
    return [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{9,}", path.name)]


def step_of(folder: Path) -> int:
    """Return the step before which the checkpoint in ``folder`` was taken."""
    return int(folder.name.removeprefix("step-"))


def has_manifest(folder: Path) -> bool:
    """Whether ``folder`` has a manifest, so all of its parts were written."""
    return (folder / _FILE).is_file()


def write_manifest(folder: Path, checksums: Sequence[str], attributes: dict[str, Any]) -> None:
    """Complete the checkpoint in ``folder`` by writing its manifest. Raises StoreError."""
    content = {"checksums": list(checksums), "attributes": attributes}
    whole = {"kind": MANIFEST_KIND, "schema_version": MANIFEST_VERSION, **content, "sha256": _digest(content)}
    try:
        sync(folder.parent)
        with replacing(folder / _FILE) as partial:
            partial.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{folder}: the checkpoint cannot be completed ({error}): free disk space"
        ) from error


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in ``folder``. Raises StoreError if it is missing, foreign or damaged."""
    path = folder / _FILE
    try:
        whole = json.loads(read_bytes(path))
        content = {key: whole[key] for key in ("checksums", "attributes")}
        kind, version, digest = whole["kind"], whole["schema_version"], whole["sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: is not a manifest ({error}): resume from another checkpoint") from error
    if (kind, version) != (MANIFEST_KIND, MANIFEST_VERSION):
        raise StoreError(
            f"{path}: must be of kind '{MANIFEST_KIND}' and schema version {MANIFEST_VERSION}, "
            f"found '{kind}' and {version}: resume with the version of disttgl that wrote it"
        )
    if digest != _digest(content):
        raise StoreError(f"{path}: is damaged (checksum mismatch): resume from another checkpoint")
    checksums, attributes = content["checksums"], content["attributes"]
    if not (isinstance(checksums, list) and checksums and isinstance(attributes, dict)):
        raise StoreError(f"{path}: must list checksums and attributes: resume from another checkpoint")
    if attributes.get("step") != step_of(folder):
        raise StoreError(
            f"{folder}: its manifest is that of step {attributes.get('step')!r}: give the folder its own name again"
        )
    return Manifest(folder, tuple(checksums), attributes)


def verify_parts(manifest: Manifest) -> None:
    """Compare all parts with their checksums. Raises StoreError if one is missing or damaged."""
    for node, checksum in enumerate(manifest.checksums):
        path = manifest.part(node)
        if not path.is_file():
            raise StoreError(f"{path}: is missing: resume from another checkpoint")
        if sha256_of(path) != checksum:
            raise StoreError(f"{path}: is damaged (checksum mismatch): resume from another checkpoint")


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its manifest first, so that an interruption never leaves a damaged one.

    Files of others stay in the folder, with a warning. Raises OSError.
    """
    if not folder.is_symlink():
        (folder / _FILE).unlink(missing_ok=True)
        sync(folder)
    remove_folder(folder, _FILES)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
