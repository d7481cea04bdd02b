"""Where a command may write: nothing is replaced that cannot be made again."""

from __future__ import annotations

from pathlib import Path

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.store import batch_store as batches
from disttgl_hpc.store import event_writer as events_writer
from disttgl_hpc.store import node_rows as static
from disttgl_hpc.store.files import is_kind

_NAMES = {events_writer.KIND: "event store", batches.KIND: "batch store", static.STATIC_KIND: "static memory"}


def check_output(output: Path, kind: str | None, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output that is there already, unless it is a store of this kind and ``force`` is given.

    ``kind`` None: the output is no store, and a file that is there is never replaced.
    Raises ConfigError; also where the folder does not exist.
    """
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder: create it first")
    if not output.exists():
        return
    if kind is None:
        raise ConfigError(f"{output}: exists already: choose another name, or remove it first")
    name = _NAMES[kind]
    if any(path.exists() and path.samefile(output) for path in inputs):
        raise ConfigError(f"{output}: is an input: name the {name} to make last")
    if not is_kind(output, kind):
        raise ConfigError(f"{output}: exists already and is no {name}: name the {name} to make last")
    if not force:
        raise ConfigError(f"{output}: exists already: choose another name, or --force to replace it")


def stem(path: Path) -> str:
    """A file's name up to its first dot."""
    return path.name.partition(".")[0]
