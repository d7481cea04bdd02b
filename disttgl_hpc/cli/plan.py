"""``disttgl plan``: chooses local batch and grid, or prints the captured events of batch sizes."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import click
from mpi4py import MPI

from disttgl_hpc.benchmarks.calibration import calibrate, check_calibration, cores_of, sizes_to_try
from disttgl_hpc.cli import one_process, print_answer
from disttgl_hpc.cli.options import (
    as_options,
    config_options,
    given_settings,
    output_options,
    read_json,
    write_json,
)
from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.model.input_builder import num_parameters
from disttgl_hpc.planning.captured import captured_events, powers_of_two
from disttgl_hpc.planning.costs import Machine
from disttgl_hpc.planning.grid_choice import plan_grid
from disttgl_hpc.planning.machine import DAEMON_MIB, TRAINER_MIB, room_for_node_memory
from disttgl_hpc.planning.planner import MAX_LOSS, Cluster
from disttgl_hpc.report.drawing import save_charts
from disttgl_hpc.report.figures import captured_charts
from disttgl_hpc.report.measurement_tables import captured_table, plan_table
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import stem
from disttgl_hpc.store.node_rows import with_static_memory

_EXAMPLES = """\b
Examples:
  disttgl plan flights.events.h5 --captured --plot captured.svg
  disttgl plan flights.events.h5 --nodes 1 --trainers-per-node 2
  disttgl plan flights.events.h5 --nodes 4 --trainers-per-node 8 --memory-per-node 64G --json plan.json
  disttgl plan flights.events.h5 --nodes 8 --trainers-per-node 8 --calibration plan.json --max-loss 0.2
"""
_AT_LEAST_ONE = click.IntRange(min=1)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes with an optional suffix K, M, G or T."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes as an integer."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a number of bytes: write 64G, 512M or 1.5T", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


@click.command(epilog=_EXAMPLES)
@click.argument("events", type=click.Path(path_type=Path))
@click.option(
    "--captured",
    is_flag=True,
    help="Print the events captured by batches of each size, without planning a grid.",
)
@click.option("--batch-sizes", help="B,B,…: batch sizes for --captured.  [default: powers of two]")
@click.option("--nodes", type=_AT_LEAST_ONE, default=1, help="Number of nodes.")
@click.option(
    "--trainers-per-node",
    type=_AT_LEAST_ONE,
    default=1,
    help="Trainers per node, in addition to the memory daemon.",
)
@click.option(
    "--memory-per-node",
    type=_Bytes(),
    help=f"Bytes per node for node memory.  [default: free on this node, less {TRAINER_MIB} MiB per "
    f"trainer and "
    f"{DAEMON_MIB} MiB for the daemon]",
)
@click.option("--cores", type=_AT_LEAST_ONE, help="Cores per node.  [default: those of the measured machine]")
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=MAX_LOSS,
    help="Largest accepted loss of captured events by a larger batch.",
)
@click.option(
    "--base-batch",
    type=_AT_LEAST_ONE,
    help="Batch size that counts as lossless.  [default: --local-batch or 600]",
)
@click.option(
    "--calibration",
    "calibration_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Earlier measurement on these events: --json of `plan`, or of `bench scaling` with 1x1x1.",
)
@click.option("--no-calibration", is_flag=True, help="Do not measure, and predict no speeds.")
@output_options
@partial(config_options, but=("grid", "task", "class_history", "class_features", "class_balance"))
@one_process
def plan(
    *,
    events: Path,
    captured: bool,
    batch_sizes: str | None,
    plot_file: Path | None,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Choose local batch and grid for EVENTS by the paper's rules, with reasons; or print captured events.

    The global batch is the largest that loses at most --max-loss of the mails that smaller batches capture.
    Then come as many replicas as memory can hold, at least one per node; the rest is epoch parallelism. The
    local batch is the smallest at which this machine is nearly at full speed, measured in some seconds,
    unless --local-batch is given. Options of `disttgl train` have the same meaning here.
    """
    store = EventStore.open(events, check=True)
    if captured:
        record = _captured(store.stream, batch_sizes)
        if plot_file:
            save_charts(captured_charts(record), plot_file)
        text = captured_table(record)
    elif plot_file or batch_sizes:
        raise ConfigError("--plot and --batch-sizes need --captured: add it, or omit them")
    else:
        record, text = _planned(events, store, **options)
    write_json(record, json_file)
    print_answer(text)


def _captured(stream: EventStream, batch_sizes: str | None) -> dict[str, Any]:
    """Captured events of the training split."""
    num_events = stream.split.train_end
    sizes = _sizes(batch_sizes) if batch_sizes else powers_of_two(num_events)
    found = captured_events(stream.tcsr, num_events, sizes)
    return {"stream": stream.name, "events": num_events, "captured": [one.as_dict() for one in found]}


def _sizes(text: str) -> list[int]:
    """Parse batch sizes. Raises ConfigError."""
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in text.split(",")]
    if not all(0 < size < 1 << 31 for size in sizes):
        raise ConfigError(f"batch sizes must be written B,B,…: got {text!r}; try 300,600,1200")
    return sizes


def _planned(
    events: Path,
    store: EventStore,
    *,
    nodes: int,
    trainers_per_node: int,
    memory_per_node: int | None,
    cores: int | None,
    max_loss: float,
    base_batch: int | None,
    calibration_files: tuple[Path, ...],
    no_calibration: bool,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """A plan as a record and as text."""
    given = given_settings(options)
    if "grid" in given:
        raise ConfigError(
            f"the grid is chosen by plan, found grid = {given['grid']!r}: omit it from --config and --set"
        )
    config = train_config(given)
    stream = with_static_memory(store, config).stream
    base = base_batch or config.local_batch
    cluster = Cluster(
        nodes=nodes,
        trainers_per_node=trainers_per_node,
        memory_per_node=room_for_node_memory(trainers_per_node)
        if memory_per_node is None
        else memory_per_node,
    )
    wanted = config.local_batch if "local_batch" in given else None
    records = _measured_before(calibration_files, stream, config, wanted)
    if not (records or no_calibration):
        sizes = [wanted] if wanted else sizes_to_try(base, stream.split.train_end)
        records = calibrate(stream, config, sizes, MPI.COMM_SELF)
    cores_from = "--cores"
    if not cores:
        cores = cores_of(records[0]) if records else trainers_per_node + 1
        cores_from = (
            "those of the machine that was measured" if calibration_files else "those of this machine"
        )
    machine = Machine(cores=cores)
    record = plan_grid(
        stream,
        config,
        cluster,
        machine,
        records,
        num_parameters=num_parameters(stream, config),
        base=base,
        max_loss=max_loss,
    )
    commands = _commands(events, record, given)
    record |= {
        "calibration_files": [str(file) for file in calibration_files],
        "cores_per_node": cores if records else None,
        "cores_from": cores_from if records else None,
        "commands": commands,
    }
    return record, "\n".join([plan_table(record), "", *commands])


def _measured_before(
    files: tuple[Path, ...], stream: EventStream, config: TrainConfig, local_batch: int | None
) -> list[dict[str, Any]]:
    """Records of earlier measurements, of one local batch if given. Raises ConfigError if none fits."""
    records = []
    for file in files:
        for record in _calibrations(file):
            check_calibration(record, stream, config, str(file))
            records.append(record)
    sizes = sorted({record["settings"]["local_batch"] for record in records})
    if records and local_batch and local_batch not in sizes:
        raise ConfigError(
            f"--calibration must include the given --local-batch, {local_batch:,}: it has "
            f"{', '.join(map(str, sizes))}; use one of them, or omit --calibration or --local-batch"
        )
    return [one for one in records if local_batch in {None, one["settings"]["local_batch"]}]


def _calibrations(file: Path) -> list[dict[str, Any]]:
    """Measurements of one trainer in a file. Raises ConfigError."""
    record = read_json(file, "disttgl plan or disttgl bench scaling")
    found = [record] if "grids" in record else record.get("calibration")
    if not (isinstance(found, list) and found):
        raise ConfigError(
            f"{file}: has no measurement: make it with disttgl plan EVENTS.h5 --json, without "
            f"--no-calibration"
        )
    return list(found)


def _commands(events: Path, record: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Command lines for the planned run: with an MPI launcher, and as a Slurm job."""
    settings = given | {"grid": record["grid"], "local_batch": record["local_batch"]}
    changed = {name: value for name, value in settings.items() if value != getattr(TrainConfig(), name)}
    training = shlex.join(as_options(changed))
    ranks, nodes = record["trainers_per_node"] + 1, record["nodes"]
    launch = f"mpiexec -n {ranks * nodes}" + (f" -ppn {ranks}" if nodes > 1 else "")
    file, run = shlex.quote(str(events)), shlex.quote(f"runs/{stem(events)}")
    return [
        f"{launch} disttgl train {file} --run {run} {training}",
        f"EVENTS={file} sbatch --nodes={nodes} --ntasks-per-node={ranks} jobs/train.sbatch {training}",
    ]
