"""Tables of what planning found, from the plain values that its JSON files hold."""

from __future__ import annotations

from typing import Any

from disttgl_hpc.text import aligned

_AGES = ("25 %", "median", "75 %", "99 %")


def captured_table(record: dict[str, Any]) -> str:
    """Table of captured events: a row for each batch size."""
    rows = [
        ["", "captured", "without", "age of the", *[""] * 3, "the same", *[""] * 3],
        ["batch", "mails", "memory", "memory: 25 %", *_AGES[1:], "in time: 25 %", *_AGES[1:]],
    ]
    for found in record["captured"]:
        ages = [found[kind].get(level) for kind in ("age_events", "age_time") for level in _AGES]
        shares = [f"{found['share']:.1%}", f"{found['cold']:.1%}"]
        rows.append(
            [f"{found['batch']:,}", *shares, *("–" if age is None else f"{age:,.0f}" for age in ages)]
        )
    return "\n".join(
        [
            *aligned(rows),
            f"{record['stream']}, {record['events']:,} training events. Captured: mails that are still their "
            "node's last one at the end of the batch, so that its memory learns of them.",
            "Age: of what the memory knows of a node when the node's batch begins, in events and in the stream's "
            "unit of time; without memory: nodes with no event in earlier batches.",
        ]
    )
