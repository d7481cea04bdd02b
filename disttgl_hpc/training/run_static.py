"""The static memory of a run: which one it is, and that it stays the same one when a run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import StaticStore


def static_settings(config: TrainConfig) -> dict[str, Any]:
    """What config.json says of a run's static memory: the file, and what it is: "", co-trained or its checksum."""
    if config.static in {"", CO_TRAINED}:
        return {"static": config.static, "static_memory": config.static}
    path = Path(config.static).resolve()
    return {"static": str(path), "static_memory": StaticStore.open(path).checksum}


def with_static_memory(events: EventStore, config: TrainConfig) -> EventStore:
    """The events with the static memory that ``config.static`` names, if it is a file.

    It is mapped, so that the processes of a node share its pages. Raises StoreError unless it is of these events.
    """
    if config.static in {"", CO_TRAINED}:
        return events
    store = StaticStore.open(Path(config.static))
    store.check_events(events)
    return replace(events, stream=replace(events.stream, static_memory=store.rows))


def check_same_static_memory(saved: dict[str, Any], wanted: dict[str, Any], where: Path, option: str) -> None:
    """Raise StoreError unless both settings, of a run and of what is to go on with it, have one static memory.

    option: says where a table lies that has moved.
    """
    theirs, ours = (str(settings.get("static_memory", "")) for settings in (saved, wanted))
    if theirs != ours:
        raise StoreError(
            f"{where}: was trained with {_described(theirs)}, here is {_described(ours)}: give the original "
            f"({option}), or begin another run"
        )


def _described(static_memory: str) -> str:
    if static_memory in {"", CO_TRAINED}:
        return f"{static_memory or 'no'} static memory"
    return f"a static memory of checksum {static_memory[:16]}…"
