"""Options of commands that are settings of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container
from typing import Any

import click

from disttgl_hpc.config import TrainConfig


def config_options(command: Callable[..., Any], *, but: Container[str] = ()) -> Callable[..., Any]:
    """Give a command one option for each setting not in ``but``; an option that is not given is None."""
    for setting in reversed(dataclasses.fields(TrainConfig)):
        if setting.name in but:
            continue
        flag = setting.name.replace("_", "-")
        among = setting.metadata["among"]
        is_switch = isinstance(setting.default, bool)
        option = click.option(
            f"--{flag}/--no-{flag}" if is_switch else f"--{flag}",
            setting.name,
            type=click.Choice(among) if among else type(setting.default),
            default=None,
            help=f"{setting.metadata['help']}  [default: {_shown(setting.default)}]",
        )
        command = option(command)
    return command


def _shown(value: Any) -> str:
    """A default as the help text shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}" or "none"
