"""Output paths of commands: existing files are replaced only on request, and only by a file of the same kind."""

from __future__ import annotations

from pathlib import Path

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.store import batch_store as batches
from disttgl_hpc.store import event_writer as events_writer
from disttgl_hpc.store import node_rows as static
from disttgl_hpc.store.files import is_kind

_NAMES = {events_writer.KIND: "event store", batches.KIND: "batch store", static.STATIC_KIND: "static memory"}


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
    name = _NAMES[kind]
    if any(path.exists() and path.samefile(output) for path in inputs):
        raise ConfigError(f"{output}: is an input: the last argument must be the {name} to create")
    if not is_kind(output, kind):
        raise ConfigError(
            f"{output}: already exists and is not a file of kind '{kind}': the last "
            f"argument must be the {name} to create"
        )
    if not force:
        raise ConfigError(f"{output}: already exists: choose another name or pass --force to replace it")


def stem(path: Path) -> str:
    """Return a file's name up to its first dot."""
    return path.name.partition(".")[0]
