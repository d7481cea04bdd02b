"""Compressed files, recognised by their first bytes, not by their names."""

from __future__ import annotations

import gzip
import lzma
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from disttgl_hpc.errors import InputError

DAMAGE = (pa.ArrowInvalid, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""Errors of pyarrow and of the decompressors for damaged files."""

_START_BYTES = 16
_ZIP = "zip"
_COMPRESSIONS = {
    "gzip": rb"\x1f\x8b\x08",
    "bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "lz4": rb"\x04\x22\x4d\x18",
    _ZIP: rb"PK(\x03\x04|\x05\x06)",
}
_NOT_TEXT = {
    rb"\xfd7zXZ\x00": "is compressed by xz: unpack it",
    rb"\xff\xfe|\xfe\xff": "is UTF-16 text: save it as UTF-8",
    rb"PAR1": "is a Parquet file: add --format parquet",
}
_FROM_MACOS = (".DS_Store", "._")


def compression_of(start: bytes) -> str | None:
    """The compression of a file that begins with these bytes; None for none."""
    return next((name for name, pattern in _COMPRESSIONS.items() if re.match(pattern, start)), None)


def decompressed(path: Path) -> Any:
    """A readable stream of a file's decompressed bytes: gzip, bz2, zstd, lz4, or the one file of a zip.

    Raises InputError for what cannot be text, one of DAMAGE for a file that cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if compression_of(start) != _ZIP:
        return _stream(path, start, str(path))
    try:
        with _archive(path) as archive:
            info = _only_file(archive, path)
            with archive.open(info) as opened:
                start = opened.read(_START_BYTES)
            member = archive.open(info)  # keeps the archive's file open until it is closed
    except (RuntimeError, *DAMAGE) as error:  # encrypted, of a method that Python lacks, or damaged
        raise InputError(
            f"{path}: the zip cannot be read ({error}): unpack it with another program, or get a complete copy"
        ) from None
    return _stream(path, start, member)


def _stream(path: Path, start: bytes, source: str | IO[bytes]) -> Any:
    for pattern, reason in _NOT_TEXT.items():
        if re.match(pattern, start):
            raise InputError(f"{path}: {reason}")
    kind = compression_of(start)
    if kind == "gzip":  # pyarrow fails for the zeros that tapes and block devices leave at the end
        return gzip.open(source)
    return pa.input_stream(source, compression=None if kind == _ZIP else kind)


def name_in_zip(path: Path) -> Path:
    """Name of the one file in a zip. Raises InputError."""
    with _archive(path) as archive:
        return Path(_only_file(archive, path).filename)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (RuntimeError, ValueError, *DAMAGE) as error:
        raise InputError(f"{path}: not a zip file, or cut short ({error}): get a complete copy") from None


def _only_file(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one file in a zip, apart from those that macOS adds."""
    names = {one: PurePosixPath(one.filename) for one in archive.infolist() if one.filename[-1:] != "/"}
    files = [
        one
        for one, name in names.items()
        if "__MACOSX" not in name.parts and not name.name.startswith(_FROM_MACOS)
    ]
    if len(files) != 1:
        is_folder = any(names[one].name == "train.txt" for one in files)
        raise InputError(
            f"{path}: a zip must hold one file, {len(files)} found: unpack it"
            + (" and name the folder" if is_folder else "")
        )
    return files[0]
