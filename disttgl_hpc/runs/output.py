"""Where a command may write: nothing is replaced that cannot be made again."""

from __future__ import annotations

from pathlib import Path

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.store.events import is_event_store


def check_output(
    output: Path, *, force: bool, inputs: tuple[Path, ...] = (), raw_events: bool = False
) -> None:
    """Refuse an output that is there already, unless it is an event store and ``force`` is given.

    With ``raw_events`` the output is no store, and a file that is there is never replaced.
    Raises ConfigError; also where the folder does not exist.
    """
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder: create it first")
    if not output.exists():
        return
    if raw_events:
        raise ConfigError(f"{output}: exists already: choose another name, or remove it first")
    if any(path.exists() and path.samefile(output) for path in inputs):
        raise ConfigError(f"{output}: is an input: name the event store to make last")
    if not is_event_store(output):
        raise ConfigError(
            f"{output}: exists already and is no event store: name the event store to make last"
        )
    if not force:
        raise ConfigError(f"{output}: exists already: choose another name, or --force to replace it")


def stem(path: Path) -> str:
    """A file's name up to its first dot."""
    return path.name.partition(".")[0]
