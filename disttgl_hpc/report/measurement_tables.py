"""Tables of measurements and plans, from the plain values that their JSON files hold."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from disttgl_hpc.log import aligned, duration
from disttgl_hpc.planning.scaling import LOSSES

_AGES = ("25 %", "median", "75 %", "99 %")


def captured_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl plan --captured``: a row for each batch size."""
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
            f"{record['stream']}, {record['events']:,} training events. Captured: mails that are still the "
            "last of their node at the end of the batch, and so reach its memory.",
            "Age: from a node's last event in its memory to the event that reads it, in events and in the stream's "
            "unit of time; without memory: nodes without an event in earlier batches.",
            *([f"Ages are of a sample, every {stride:,}th mail; shares are exact."] if stride > 1 else []),
        ]
    )


def _age(age: float | None) -> str:
    """An age in events or in units of time."""
    if age is None:
        return "–"
    return f"{age:,.0f}" if age >= 10 else f"{age:.4g}"


def plan_table(record: dict[str, Any]) -> str:
    """Tables of ``disttgl plan``: local batches, if measured, and grids, each with the reason for the choice."""
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
        lines += [*_with_left_aligned_end(rows), ""]
    rows = [
        ["", "grid", "global batch", "captured", "loss", "MiB/node", "events/s", "passes", "steps", "why"]
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
    lines += _with_left_aligned_end(rows)
    lines += [
        f"{record['stream']}: {record['nodes']} × {record['trainers_per_node']} trainers. Captured: mails that "
        f"reach the memory; loss: share of them lost against batches of {record['base_batch']:,}.",
        f"MiB: node memory and its slots in shared memory, of {record['memory_per_node'] / 2**20:,.0f} available; "
        "the trainers' own memory is not included.",
        f"Passes over each event and gradient steps of a run of {record['epochs']:,} epochs, in whole sweeps of "
        "j·k passes.",
    ]
    if record["local_batches"]:
        files = ", ".join(record["calibration_files"])
        measured = f"were measured before ({files})" if files else "are measured here"
        lines += [
            f"Events/s of local batches {measured}; those of grids are predicted from them.",
            f"Predicted for nodes of {record['cores_per_node']:,} cores ({record['cores_from']}); others: --cores.",
        ]
    lines += [f"Caution: {caution}." for caution in record["cautions"]]
    return "\n".join(lines)


def _shares(one: dict[str, Any]) -> tuple[str, str]:
    return f"{one['share']:.1%}", f"{one['loss']:.1%}"


def _with_left_aligned_end(rows: list[list[str]]) -> list[str]:
    """Lines of a table whose last column is left-aligned."""
    numbers = aligned([row[:-1] for row in rows])
    width = max(map(len, numbers))
    return [f"{line:<{width}}  {row[-1]}" for line, row in zip(numbers, rows, strict=True)]


def prediction_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl simulate``: a row for each predicted grid, with the length of a run."""
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
            "Ideal: the first row's speed times the trainers. Idle: share of time spent waiting for trainers, "
            "gradients, memory or storage. *: more replicas than batches in a sweep, so some train the same batch.",
            f"A run trains whole sweeps of j·k passes over the events, which may be more than {title}. Training "
            "time excludes the validation after each sweep and the test.",
            _calibration(record),
            *(f"Assumed: {text}." for text in record["calibration"]["assumed"]),
        ]
    )


def comparison_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl simulate``: measured grids beside their predictions from one trainer."""
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
    return "\n".join([*aligned(rows), "Only 1x1x1 calibrates the model. *: more trainer threads than cores."])


def _calibration(record: dict[str, Any]) -> str:
    """The calibration and the machine of a prediction, in words."""
    one, machine = record["calibration"], record["machine"]
    faster = "" if one["faster"] == 1 else f"Trainers {one['faster']:g} times as fast as measured. "
    return (
        f"{faster}{record['stream']}: one trainer on {one['processor']} takes {1e3 * one['step_s']:.1f} ms for "
        f"{one['events']:.0f} events, steps deviate by {1e3 * one['deviation_s']:.1f} ms (standard deviation), the "
        f"daemon needs {1e3 * one['daemon_s']:.2f} ms; "
        f"{one['model_bytes']:,} bytes of gradients. Network: {machine['bandwidth']:.3g} bytes/s, "
        f"{1e6 * machine['latency_s']:.3g} µs, {machine['collective']}; {machine['cores']} cores a node."
    )


def _milliseconds_a_step(name: str) -> Callable[[dict[str, Any], int], str]:
    """Formats the mean over trainers of a list of seconds, a step."""
    return lambda entry, steps: f"{1e3 * fmean(entry[name]) / steps:.2f}"


_SCALING: tuple[tuple[str, str, Callable[[dict[str, Any], int], str]], ...] = (
    ("", "grid", lambda entry, _: entry["grid"] + ("*" if entry["oversubscribed"] else " ")),
    ("", "trainers", lambda entry, _: f"{entry['trainers']}"),
    ("", "daemons", lambda entry, _: f"{entry['daemons']}"),
    ("", "events/s", lambda entry, _: f"{entry['events_per_s']:,.0f}"),
    ("", "speed-up", lambda entry, _: f"{entry['speed_up']:.2f}"),
    ("CPU-µs", "trainers", lambda entry, _: f"{entry['trainer_cpu_us']:.1f}"),
    ("an event", "daemons", lambda entry, _: f"{entry['daemon_cpu_us']:.2f}"),
    ("daemon to", "trainer", lambda entry, _: f"{entry['daemon_share']:.2%}"),
    ("waiting,", "memory", _milliseconds_a_step("memory_wait_s")),
    ("ms a step", "gradients", _milliseconds_a_step("gradient_wait_s")),
    ("", "share", lambda entry, _: f"{entry['waiting_share']:.1%}"),
    ("bytes a step", "gradients", lambda entry, _: f"{entry['gradient_bytes']:,.0f}"),
    ("", "TCP", lambda entry, _: f"{entry['tcp_bytes']:,.0f}"),
)


def scaling_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl bench scaling``: a row for each grid, and the machine."""
    rows = [[group for group, _, _ in _SCALING], [title for _, title, _ in _SCALING]]
    rows += [[show(entry, record["steps"]) for _, _, show in _SCALING] for entry in record["grids"]]
    lines = aligned(rows)
    machine, rounds = record["machine"], len(record["grids"][0]["rounds"])
    lines += [
        f"Medians of {rounds} rounds of {record['steps']} steps after {record['warmup']}; speed-up over the first "
        "row, round by round. An event counts each time it is trained. *: more trainer threads than cores.",
        f"{record['stream']} on {machine['processor']}: {machine['ranks']} ranks on {machine['cores']} cores of "
        f"{machine['nodes']} node{'' if machine['nodes'] == 1 else 's'}; {_versions(record)}.",
    ]
    return "\n".join(lines)


_LOADER: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("", "graphs", lambda way: way["graphs"]),
    ("", "prefetch", lambda way: f"{way['prefetch']}"),
    ("µs an event:", "batch", lambda way: f"{way['sample_us']:.2f}"),
    ("", "memory", lambda way: f"{way['read_us']:.2f}"),
    ("", "inputs", lambda way: f"{way['inputs_us']:.2f}"),
    ("", "step", lambda way: f"{way['step_us']:.1f}"),
    ("loading,", "of a step", lambda way: f"{way['loading_share']:.1%}"),
    ("CPU-µs", "an event", lambda way: f"{way['cpu_us']:.1f}"),
)


def loader_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl bench loader``: a row for each way of loading."""
    rows = [[group for group, _, _ in _LOADER], [title for _, title, _ in _LOADER]]
    rows += [[show(way) for _, _, show in _LOADER] for way in record["ways"]]
    return "\n".join(
        [
            *aligned(rows),
            f"Medians of {record['rounds']} rounds of {record['steps']} steps after {record['warmup']}; the time "
            "that the trainer spends waiting for each. CPU time is that of all its threads.",
            f"{record['stream']} on {record['machine']['processor']}; {_versions(record)}.",
        ]
    )


def training_table(record: dict[str, Any]) -> str:
    """Table of ``disttgl bench train``: phases, lower bound, and the other program."""
    own, floor = record["own"], record["floor"]
    phases = [name for name in own if name.endswith("_us") and name != "cpu_us"]
    rows = [["CPU-µs an event", *(name.removesuffix("_us") for name in phases), "all", "events/s"]]
    rows.append(["disttgl", *(f"{own[name]:.1f}" for name in phases), *_speed(own)])
    if "pyg" in record:
        rows.append(["PyTorch Geometric", *("" for _ in phases), *_speed(record["pyg"])])
    lines = [
        *aligned(rows),
        f"Lower bound: {floor['cpu_us']:.1f} CPU-µs: {floor['product_mflop']:.2f} MFLOP of products in "
        f"{floor['products_us']:.1f}, {floor['slot_mflop']:.2f} MFLOP over neighbours in {floor['slots_us']:.1f} "
        f"(one thread: {floor['gflops']:.0f} GFLOP/s), {floor['kilobytes']:.1f} kB in {floor['bytes_us']:.1f} "
        f"({floor['copy_gb_s']:.1f} GB/s). Peak memory {record['peak_rss_mib']:.0f} MiB.",
        f"Medians of {record['rounds']} rounds of {record['steps']} steps after {record['warmup']}.",
        f"{record['stream']} on {record['machine']['processor']}; {_versions(record)}.",
    ]
    if "ratio" in record:
        lines.insert(
            -2, f"PyTorch Geometric's TGN needs {record['ratio']:.2f} times the CPU time, round by round."
        )
    return "\n".join(lines)


def _speed(figures: dict[str, float]) -> tuple[str, str]:
    return f"{figures['cpu_us']:.1f}", f"{figures['events_per_s']:,.0f}"


def _versions(record: dict[str, Any]) -> str:
    """Versions of the software that a measurement ran on."""
    return ", ".join(f"{name} {number}" for name, number in record["machine"]["versions"].items())
