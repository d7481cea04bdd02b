"""Records of runs as TensorBoard's event files. Needs the extra ``tensorboard``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.report.run_facts import METRICS, RunFacts, parts_of


def check_tensorboard() -> None:
    """Raise ConfigError where TensorBoard's writer is not installed."""
    _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs TensorBoard's writer, which is not installed: "
            "pip install 'disttgl_hpc[tensorboard]', or leave it out"
        ) from error
    return SummaryWriter


def write_tensorboard(runs: Sequence[RunFacts], folder: Path) -> None:
    """A folder for each run below ``folder``: scalars over steps, and test results beside the settings.

    Loss within sweeps, validation's metrics and events a second at each sweep's end. Raises ConfigError without
    TensorBoard's writer.
    """
    writer_class = _writer_class()
    for run in runs:
        with writer_class(str(folder / run.name.replace("/", "_"))) as writer:
            for step, loss in zip(*run.curve("loss", "steps"), strict=True):
                writer.add_scalar("loss/training", loss, int(step))
            for number, sweep in enumerate(run.sweeps, 1):
                step = sweep.get("step", number)
                for part, metrics in parts_of(sweep.get("validation") or {}).items():
                    for name, value in metrics.items():
                        writer.add_scalar(_tag("validation", part, name), value, step)
            for step, speed in zip(*run.curve("events_per_s", "steps"), strict=True):
                writer.add_scalar("speed/events_per_s", speed, int(step))
            writer.add_text(
                "settings", "\n".join(f"    {name}: {value}" for name, value in run.config.items())
            )
            for part, metrics in parts_of((run.test or {}).get("test") or {}).items():
                for name, value in metrics.items():
                    writer.add_scalar(_tag("test", part, name), value, 0)


def _tag(split: str, part: str, name: str) -> str:
    return "/".join([split, *([part] if part else []), METRICS[name]])
