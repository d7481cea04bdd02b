"""Parts of checkpoints: named arrays and plain attributes in an HDF5 file that is whole or absent. No pickle.

Whole checkpoints: a folder with one part per node, and a manifest that is written last and names them all.

A folder without a manifest is no checkpoint, whatever lies in it; nor is one whose parts are not those that the
manifest was written for.
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
    open_checked,
    own_dataset,
    replacing,
    sha256_of,
    sync,
    telling_why,
    write_laid_out,
)

KIND = "disttgl-checkpoint"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a part of a checkpoint holds: arrays by slash-separated name, and JSON values."""

    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, Any]

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """Arrays below ``name/``, keyed by the rest of their names."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: array for key, array in self.arrays.items() if key.startswith(prefix)}


def write_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> str:
    """Write a part of a checkpoint, and the folder it lies in; returns the file's sha256.

    Raises StoreError when the part cannot be written (say, a full disk).
    """
    described = {"kind": KIND, "schema_version": SCHEMA_VERSION, "attributes": json.dumps(attributes)}
    with telling_why(path, "make room on the disk; the checkpoints before it are intact"):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            write_laid_out(partial, described, arrays)
            return sha256_of(partial)


def read_checkpoint(path: Path, group: str = "") -> Checkpoint:
    """Read the arrays of a part, all or those of one group such as "weights".

    Raises StoreError naming the file, what was expected and what to do.
    """
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
    """Read one array of a part into ``out``. Raises StoreError, also if it has another shape or dtype."""
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        dataset = own_dataset(file, name, path)
        if (dataset.shape, dataset.dtype) != (out.shape, out.dtype):
            raise StoreError(
                f"{path}: {name} must be {out.shape} {out.dtype}, found {dataset.shape} {dataset.dtype}: use the "
                "events and the config.json that the run was made with"
            )
        if dataset.size:
            dataset.read_direct(out)


MANIFEST_KIND = "disttgl-manifest"
MANIFEST_VERSION = 1
_FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """A checkpoint: its folder, the sha256 of each node's part in order, and plain values that describe it."""

    folder: Path
    checksums: tuple[str, ...]
    attributes: dict[str, Any]

    def part(self, node: int) -> Path:
        """The file that a node wrote."""
        return part_path(self.folder, node)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where below ``folder`` the checkpoint before ``step`` lies."""
    return folder / f"step-{step:09d}"


def part_path(folder: Path, node: int) -> Path:
    """A node's part of the checkpoint in ``folder``."""
    return folder / f"node-{node}.h5"


def checkpoint_folders(folder: Path) -> list[Path]:
    """Folders of checkpoints below ``folder``, whole or not, the newest last."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{9,}", path.name)]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    """The step before which the checkpoint in ``folder`` was taken."""
    return int(folder.name.removeprefix("step-"))


def has_manifest(folder: Path) -> bool:
    """Whether all nodes had written their parts when the job ended, if it has."""
    return (folder / _FILE).is_file()


def write_manifest(folder: Path, checksums: Sequence[str], attributes: dict[str, Any]) -> None:
    """Make the parts in ``folder`` a checkpoint. Raises StoreError when that cannot be written."""
    content = {"checksums": list(checksums), "attributes": attributes}
    whole = {"kind": MANIFEST_KIND, "schema_version": MANIFEST_VERSION, **content, "sha256": _digest(content)}
    try:
        sync(folder.parent)
        with replacing(folder / _FILE) as partial:
            partial.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder}: the checkpoint cannot be completed ({error}): make room") from error


def read_manifest(folder: Path) -> Manifest:
    """Manifest of the checkpoint in ``folder``. Raises StoreError if it is missing, foreign or damaged."""
    path = folder / _FILE
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        content = {key: whole[key] for key in ("checksums", "attributes")}
        kind, version, digest = whole["kind"], whole["schema_version"], whole["sha256"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: no manifest of a checkpoint ({error}): resume from another one") from error
    if (kind, version) != (MANIFEST_KIND, MANIFEST_VERSION):
        raise StoreError(
            f"{path}: must be of kind '{MANIFEST_KIND}' and schema version {MANIFEST_VERSION}, "
            f"found '{kind}' and {version}: resume with the version of disttgl that wrote it"
        )
    if digest != _digest(content):
        raise StoreError(f"{path}: is damaged, its checksum is another: resume from another checkpoint")
    checksums, attributes = content["checksums"], content["attributes"]
    if not (isinstance(checksums, list) and checksums and isinstance(attributes, dict)):
        raise StoreError(f"{path}: must list checksums and attributes: resume from another checkpoint")
    return Manifest(folder, tuple(checksums), attributes)


def verify_parts(manifest: Manifest) -> None:
    """Read all parts. Raises StoreError naming one that is missing or is not what its node had written."""
    for node, checksum in enumerate(manifest.checksums):
        path = manifest.part(node)
        if not path.is_file():
            raise StoreError(f"{path}: is missing: resume from another checkpoint")
        if sha256_of(path) != checksum:
            raise StoreError(f"{path}: is damaged, its checksum is another: resume from another checkpoint")


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its manifest first, so that what is left of it at any moment is none."""
    (folder / _FILE).unlink(missing_ok=True)
    sync(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
