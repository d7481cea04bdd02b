"""Tables of what planning found, from the plain values that its JSON files hold."""

from __future__ import annotations

from typing import Any

from disttgl_hpc.planning.scaling import LOSSES
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
        rows.append([f"{found['batch']:,}", *shares, *map(_age, ages)])
    stride = max(found["age_stride"] for found in record["captured"])
    return "\n".join(
        [
            *aligned(rows),
            f"{record['stream']}, {record['events']:,} training events. Captured: mails that are still their "
            "node's last one at the end of the batch, so that its memory learns of them.",
            "Age: of what the memory knows of a node when the node's batch begins, in events and in the stream's "
            "unit of time; without memory: nodes with no event in earlier batches.",
            *(
                [f"Ages are from a sample, every {stride:,}th mail's; the shares are exact."]
                if stride > 1
                else []
            ),
        ]
    )


def _age(age: float | None) -> str:
    """An age in events or in time, which may be fractions of a unit."""
    if age is None:
        return "–"
    return f"{age:,.0f}" if age >= 10 else f"{age:.4g}"


def plan_table(record: dict[str, Any]) -> str:
    """Tables of a plan: local batches, if they were measured, and grids, each with why it was taken or not."""
    lines = []
    if record["local_batches"]:
        rows = [["", "local batch", "events/s", "captured", "loss", "why"]]
        rows += [
            [
                "→" if one["is_chosen"] else "",
                f"{one['local_batch']:,}",
                f"{one['events_per_s']:,.0f}",
                *_shares(one),
                one["reason"],
            ]
            for one in record["local_batches"]
        ]
        lines += [*_last_to_the_left(rows), ""]
    rows = [
        ["", "grid", "global batch", "captured", "loss", "MiB a node", "events/s", "passes", "steps", "why"]
    ]
    for one in record["candidates"]:
        speed = one["events_per_s"]
        rows.append(
            [
                "→" if one["is_chosen"] else "",
                one["grid"],
                f"{one['global_batch']:,}",
                *_shares(one),
                f"{one['memory'] / 2**20:,.0f}",
                "–" if speed is None else f"{speed:,.0f}",
                f"{one['passes']:,}",
                f"{one['steps']:,}",
                one["reason"],
            ]
        )
    lines += _last_to_the_left(rows)
    lines += [
        f"{record['stream']}: {record['nodes']} × {record['trainers_per_node']} trainers. Captured: mails that the "
        f"memory learns of; loss: how many fewer than in batches of {record['base_batch']:,}.",
        f"MiB: node memory and its slots in shared memory; {record['memory_per_node'] / 2**20:,.0f} are there for "
        "them, and what trainers need for themselves comes on top.",
        f"Passes over each event, and gradient steps: of a run of {record['epochs']:,} epochs, in whole sweeps of "
        "j·k passes.",
    ]
    if record["local_batches"]:
        files = ", ".join(record["calibration_files"])
        measured = f"were measured before ({files})" if files else "are measured here"
        lines.append(f"Events/s of local batches {measured}, those of grids predicted from them.")
        lines.append(
            f"Predicted for nodes of {record['cores_per_node']:,} cores ({record['cores_from']}); others: --cores."
        )
    lines += [f"Mind: {caution}." for caution in record["cautions"]]
    return "\n".join(lines)


def _shares(one: dict[str, Any]) -> tuple[str, str]:
    return f"{one['share']:.1%}", f"{one['loss']:.1%}"


def _last_to_the_left(rows: list[list[str]]) -> list[str]:
    """A table whose last column is text."""
    numbers = aligned([row[:-1] for row in rows])
    width = max(map(len, numbers))
    return [f"{line:<{width}}  {row[-1]}" for line, row in zip(numbers, rows, strict=True)]


def prediction_table(record: dict[str, Any]) -> str:
    """Table of a scaling prediction: a row for each number of trainers, and what a run of some epochs takes."""
    found = record["predicted"]
    first = found[0]["events_per_s"] / found[0]["trainers"]
    title = f"{record['epochs']} epochs"
    rows = [
        ["", "", "", "", "of", "step,", "", "losing", "most", f"{title}:", "training"],
        ["grid", "nodes", "trainers", "events/s", "ideal", "ms", "idle", "most", "to", "passes", "time"],
    ]
    for one in found:
        losses = {name: one[field] for field, name in LOSSES.items()}
        rows.append(
            [
                one["grid"] + ("*" if one["replicas_share_batches"] else " "),
                f"{one['nodes']:,}",
                f"{one['trainers']:,}",
                f"{one['events_per_s']:,.0f}",
                f"{one['events_per_s'] / (first * one['trainers']):.0%}",
                f"{1e3 * one['step_s']:.1f}",
                f"{one['idle_share']:.1%}",
                f"{max(losses.values()) / one['step_s']:.1%}",
                one["bottleneck"],
                f"{one['passes']:,}",
                duration(one["run_s"]),
            ]
        )
    return "\n".join(
        [
            *aligned(rows),
            "Ideal: as many trainers as the first row's, without any loss. Idle: waiting for other trainers, "
            "gradients, memory or storage. *: more replicas than a sweep has batches: some work on the same one.",
            f"A run trains whole sweeps of j·k passes over the events, which may be more than {title}. Its time "
            "is of training: validation after each sweep and the test come on top.",
            _calibration(record),
            *(f"Assumed: {text}." for text in record["calibration"]["assumed"]),
        ]
    )


def comparison_table(record: dict[str, Any]) -> str:
    """Table of measured grids beside what the model, which has seen one trainer only, makes of them."""
    rows = [["", "events/s:", "", "", "speed-up:", "", "waiting:", ""]]
    rows += [["grid", "measured", "predicted", "error", "measured", "predicted", "measured", "predicted"]]
    rows += [
        [
            one["grid"] + ("*" if one["oversubscribed"] else " "),
            f"{one['events_per_s']:,.0f}",
            f"{one['predicted_events_per_s']:,.0f}",
            f"{one['predicted_events_per_s'] / one['events_per_s'] - 1:+.1%}",
            f"{one['speed_up']:.2f}",
            f"{one['predicted_speed_up']:.2f}",
            f"{one['waiting_share']:.1%}",
            f"{one['predicted_waiting_share']:.1%}",
        ]
        for one in record["measured"]
    ]
    return "\n".join(
        [*aligned(rows), "Only 1x1x1 calibrates the model. *: more threads of trainers than cores."]
    )


def _calibration(record: dict[str, Any]) -> str:
    """What a prediction rests on, in words."""
    one, machine = record["calibration"], record["machine"]
    faster = "" if one["faster"] == 1 else f"Trainers {one['faster']:g} times as fast as measured. "
    return (
        f"{faster}{record['stream']}: one trainer on {one['processor']} takes {1e3 * one['step_s']:.1f} ms for "
        f"{one['events']:.0f} events, steps deviate by {1e3 * one['deviation_s']:.1f} ms (standard deviation), the "
        f"daemon needs {1e3 * one['daemon_s']:.2f} ms; "
        f"{one['model_bytes']:,} bytes of gradients. Network: {machine['bandwidth']:.3g} bytes/s, "
        f"{1e6 * machine['latency_s']:.3g} µs, {machine['collective']}; {machine['cores']} cores a node."
    )


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"
