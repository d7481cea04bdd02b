"""Whole checkpoints: a folder with one part per node, and a manifest that is written last and names them all.

A folder without a manifest is no checkpoint, whatever lies in it; nor is one whose parts are not those that the
manifest was written for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.files import replacing, sha256_of, sync

KIND = "disttgl-manifest"
SCHEMA_VERSION = 1
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
    whole = {"kind": KIND, "schema_version": SCHEMA_VERSION, **content, "sha256": _digest(content)}
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
    if (kind, version) != (KIND, SCHEMA_VERSION):
        raise StoreError(
            f"{path}: must be of kind '{KIND}' and schema version {SCHEMA_VERSION}, found '{kind}' and {version}: "
            "resume with the version of disttgl that wrote it"
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
