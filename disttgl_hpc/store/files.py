"""Reading and writing HDF5 files: atomic replacement, checks on opening, memory-mapped datasets.

The HDF5 library reports a full disk only when it closes a file, and its error cannot be handled reliably. So
files are first extended to their full size; HDF5 then writes only the structure, and array bytes are written
directly to the offsets that it allocated.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.log import get_logger

log = get_logger(__name__)

_ALIGNMENT = 64
_STRUCTURE_BYTES = 4096  # more than HDF5 needs for a dataset and the groups above it
_AGAIN = "create the file again or copy it again"
_MAKERS = {
    "disttgl-events": ("an event store", "make one with disttgl prepare"),
    "disttgl-batches": ("a batch store", "make one with disttgl sample"),
    "disttgl-static": ("a static memory", "make one with disttgl pretrain"),
}

# Which error h5py raises for damaged metadata depends on the damaged byte.
_DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` if the block succeeds.

    The file is synced before it is renamed, so a crash leaves the old file or the new one, never a partial
    one. On an error the temporary file is removed and ``path`` is unchanged. Temporary files that killed
    processes left are removed first, see :func:`_remove_abandoned`. If ``path`` is a symbolic link, the file takes
    the place of the link; what the link names is unchanged.
    """
    _remove_abandoned(path)
    partial = _temporary(path, "partial")
    # Of a killed process with this number, or a link that writing would follow.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file, wholly or not at all; a device or a pipe is written to. Raises OSError."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises OSError, also for a pipe or device, where reading might wait forever."""
    if path.exists() and not path.is_file():
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path))
    return path.read_bytes()


def open_no_link(path: str, flags: int) -> int:
    """Opener for :func:`open` that follows no symbolic link and waits for no pipe. Raises OSError."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def check_no_link(folder: Path) -> None:
    """Raise StoreError if a folder is a symbolic link, through which nothing is written or removed."""
    if folder.is_symlink():
        raise StoreError(f"{folder}: must be a folder, is a symbolic link: remove the link")


def remove_folder(folder: Path, names: str) -> None:
    """Remove a folder and its files whose names match the pattern ``names``, and what a kill left of them.

    Files of others stay, and so does the folder then, with a warning. A symbolic link is removed itself; nothing
    that it names is. Raises OSError.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    remove_files(folder, names)
    others = sorted(path.name for path in folder.iterdir())
    if others:
        log.warning("%s: not removed, as it has files of others: %s", folder, ", ".join(others[:3]))
    else:
        folder.rmdir()


def remove_files(folder: Path, names: str, but: Container[Path] = ()) -> None:
    """Remove the files of a folder whose names match ``names``, as :func:`remove_folder` does, but for some."""
    own = re.compile(rf"{names}|\.({names})\.[0-9a-f]{{8}}\.\d+\.partial")
    for path in folder.iterdir():
        is_file = path.is_symlink() or not path.is_dir()
        if is_file and own.fullmatch(path.name) and path not in but:
            path.unlink(missing_ok=True)


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path`` for files that are needed until it is written, and remove it.

    What killed processes left is removed first, as in :func:`replacing`.
    """
    _remove_abandoned(path)
    folder = _temporary(path, "folder")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(path: Path, suffix: str) -> Path:
    """A name beside ``path`` that tells which process uses it."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{suffix}")


@functools.cache
def _machine() -> str:
    """Name of the set of processes in which this process's number is unique: a machine, or a container in it."""
    namespace = Path("/proc/self/ns/pid")
    name = f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files and folders beside ``path`` whose process was killed; log those that may be in use."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{8}})\.(\d+)\.(?:partial|folder)")
    for left, found in [(entry, pattern.fullmatch(entry.name)) for entry in os.scandir(path.parent)]:
        if found is None or found.groups() == (_machine(), f"{os.getpid()}"):
            continue
        machine, process = found.groups()
        if machine != _machine() or Path(f"/proc/{process}").exists() or left.is_symlink():
            log.warning(
                "%s: in use by another process, or left by a killed one: then remove it",
                left.path,
            )
        elif left.is_dir():
            shutil.rmtree(left.path, ignore_errors=True)
        else:
            Path(left.path).unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path, remedy: str) -> Iterator[None]:
    """Convert an OSError of the block into a StoreError with file, reason and ``remedy``."""
    try:
        yield
    except OSError as error:
        # Messages of the HDF5 library have many lines.
        reason = os.strerror(error.errno) if error.errno else f"{error}".partition("\n")[0]
        raise StoreError(f"{path}: cannot be written ({reason}): {remedy}") from error


@contextmanager
def open_checked(path: Path, kind: str, schema_version: int) -> Iterator[h5py.File]:
    """Open an HDF5 file that disttgl wrote, for reading.

    Raises StoreError if it is missing, truncated, not HDF5, or has another kind or schema version. Errors of
    the HDF5 library and of invalid values inside the block become StoreErrors as well.
    """
    check_is_file(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_kind(file, path, kind, schema_version)
            yield file
    except _DAMAGE as error:
        raise StoreError(f"{path}: {_complaint(str(error), path, kind)}") from None


def check_is_file(path: Path) -> None:
    """Raise StoreError unless ``path`` is a file: opening a FIFO would wait for a writer that may never come."""
    if os.path.isfile(path):
        return
    if not os.path.exists(path):  # unlike Path.exists also where a name is too long or a folder closed
        raise StoreError(f"{path}: no such file: check the path")
    others = {"a folder": path.is_dir, "a FIFO": path.is_fifo, "a socket": path.is_socket}
    kind = next((name for name, is_one in others.items() if is_one()), "a device")
    raise StoreError(f"{path}: must be a file, found {kind}: check the path")


def check_types(record: object) -> None:
    """Check the fields of a dataclass of plain values. Raises ValueError naming field, type and value."""
    for name, wanted in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if type(value) is not wanted:  # a bool is no int here
            raise ValueError(f"{name} must be {wanted.__name__}, found {value!r}")


def is_kind(path: Path, kind: str) -> bool:
    """Whether a file has this kind; it may be incomplete and have any schema version."""
    if not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(plain(file.attrs["kind"]) == kind)
    except _DAMAGE:
        return False


def check_output(output: Path, kind: str | None, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Raise ConfigError if ``output`` exists, unless it is a store of this kind and ``force`` is set.

    kind: None for outputs that are not stores; these are never replaced. inputs: files that ``output`` must
    not replace. A missing folder raises ConfigError as well.
    """
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder: create it first")
    if not output.exists():
        return
    if kind is None:
        raise ConfigError(f"{output}: already exists: choose another name or remove it first")
    name, _ = _maker(kind)
    if any(path.exists() and path.samefile(output) for path in inputs):
        raise ConfigError(f"{output}: is an input: the last argument must name {name} to create")
    if not is_kind(output, kind):
        raise ConfigError(
            f"{output}: already exists and is not {name}: the last argument must name {name} to create"
        )
    if not force:
        raise ConfigError(f"{output}: already exists: choose another name or pass --force to replace it")


def stem(path: Path) -> str:
    """Return a file's name up to its first dot."""
    return path.name.partition(".")[0]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_fixed_length(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Convert texts to fixed-length UTF-8, at most 64 KiB each.

    HDF5 stores variable-length texts in a heap, and the library may loop forever if that heap is damaged.
    """
    texts = {name: text.encode() for name, text in attributes.items() if isinstance(text, str)}
    return {**attributes, **{name: np.array(text, f"S{max(1, len(text))}") for name, text in texts.items()}}


def plain(value: Any) -> Any:
    """Decode an attribute: h5py reads fixed-length texts as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return dataset ``name`` of the file ``path`` after checking that it is contiguous and within this file.

    Links, virtual datasets, external storage and sizes beyond the end of the file raise StoreError; a missing
    dataset raises KeyError.
    """
    item = file
    for part in name.split("/"):
        link = item.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise StoreError(f"{path}: {name} must be stored in the file, found a link: {_AGAIN}")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise StoreError(f"{path}: {name} must be a dataset, found a group: {_AGAIN}")
    offset, size = item.id.get_offset(), path.stat().st_size
    if item.external or item.is_virtual or (item.nbytes and (offset is None or offset + item.nbytes > size)):
        raise StoreError(
            f"{path}: dataset {name} must be contiguous and within the file's {size:,} bytes: {_AGAIN}"
        )
    return item


def map_dataset(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """Map a dataset of the file ``path`` read-only. Raises StoreError as :func:`own_dataset` does."""
    dataset = own_dataset(file, name, path)
    offset = dataset.id.get_offset()
    # No madvise: batches follow the stream and most neighbours are recent, so read-ahead pays off even with a cold
    # cache, where MADV_RANDOM made gathers of features 2 to 10 times slower.
    # A plain array over the map, because the memmap class slows down every small operation.
    return np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape))


def _check_kind(file: h5py.File, path: Path, kind: str, schema_version: int) -> None:
    found = plain(file.attrs.get("kind"))
    if found != kind:
        raise StoreError(f"{path}: must be of kind '{kind}', found '{found}': {_maker(kind)[1]}")
    version = file.attrs.get("schema_version")
    if version != schema_version:
        raise StoreError(
            f"{path}: must have schema version {schema_version}, found {version}: create the file again"
        )


def _maker(kind: str) -> tuple[str, str]:
    """Name of a kind of file with its article, and how to obtain one."""
    return _MAKERS.get(kind, (f"a file of kind '{kind}'", "pass a file that disttgl wrote"))


def _complaint(error: str, path: Path, kind: str) -> str:
    if "file signature not found" in error:
        name, remedy = _maker(kind)
        return f"is not {name} (not an HDF5 file): {remedy}"
    if "truncated file" in error:
        return f"is cut short at {path.stat().st_size:,} bytes: {_AGAIN}"
    return f"is damaged ({error}): {_AGAIN}"


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Pieces:
    """A dataset of ``nbytes`` uint8 that is written in pieces."""

    nbytes: int
    pieces: Iterable[NDArray[np.uint8]]
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int]:
        """Shape, as that of an array."""
        return (self.nbytes,)


def write_arrays(
    path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | Pieces]
) -> None:
    """Write an HDF5 file with attributes, and arrays by slash-separated name. Raises OSError if the disk is full."""
    structure_bytes = _STRUCTURE_BYTES * (1 + len(arrays)) + sum(len(f"{one}") for one in attributes.values())
    with path.open("wb") as file:
        file.write(bytes(structure_bytes))
        file.truncate(structure_bytes + sum(array.nbytes for array in arrays.values()))
    offsets = _write_structure(path, attributes, arrays)
    with path.open("r+b") as file:
        for name, offset in offsets.items():
            file.seek(offset)
            for piece in _pieces(arrays[name]):
                file.write(piece.data)


def _write_structure(
    path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | Pieces]
) -> dict[str, int]:
    """Write everything but the arrays' bytes; return the file offset of each array."""
    allocated = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocated.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocated.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    offsets = {}
    with h5py.File(path, "w", locking=False, alignment_threshold=1, alignment_interval=_ALIGNMENT) as file:
        file.attrs.update(of_fixed_length(attributes))
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and not (array.ndim and array.size):
                file[name] = array  # scalars and empty arrays are part of the structure
                continue
            dataset = file.create_dataset(name, array.shape, array.dtype, dcpl=allocated)
            if array.nbytes:
                offsets[name] = dataset.id.get_offset()
    return offsets


def _pieces(array: NDArray[Any] | Pieces) -> Iterable[NDArray[np.uint8]]:
    if isinstance(array, Pieces):
        return array.pieces
    return (np.ascontiguousarray(array).reshape(-1).view(np.uint8),)
