"""Write docs/reference.md, the reference of all commands and settings, from the program itself.

    python jobs/reference.py

tests/test_docs.py compares the page with a fresh one.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from disttgl_hpc.cli import disttgl
from disttgl_hpc.config import TrainConfig

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
INTRODUCTION = """\
# Reference

Made by `python jobs/reference.py` from the program; do not edit.

`disttgl COMMAND --help` prints the same. Under `mpiexec` every rank runs the same command, and rank 0 prints.
Options take precedence over `--set NAME=VALUE`, which takes precedence over the TOML file of `--config`.
"""
SETTINGS_INTRODUCTION = """\
## Settings

Each is an option of `disttgl train` (with hyphens: `--local-batch 100`; switches: `--pair-features`,
`--no-pair-features`), a line of a TOML file (`local_batch = 100`) and a field of `disttgl_hpc.TrainConfig`. Those
marked with * may change when a run is resumed.
"""


def commands(
    group: click.Group, context: click.Context, words: str = "disttgl"
) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, with the words that call them, in the order of the help text."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # noqa: S101 (the group has listed it)
        if isinstance(command, click.Group):
            yield from commands(command, context, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def paragraphs(text: str) -> str:
    """A help text without click's marks, one line a paragraph, examples as code."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        lines = [line for line in part.split("\n") if line.strip() != "\b"]
        if lines and re.fullmatch(r"Examples?:", lines[0].strip()):
            code = inspect.cleandoc("\n".join(["", *lines[1:]]))
            parts.append(f"```\n{code}\n```")
        elif lines and (one := re.match(r"Example:\s+(.*)", " ".join(line.strip() for line in lines))):
            parts.append(f"```\n{one[1]}\n```")
        else:
            parts.append(" ".join(line.strip() for line in lines))
    return "\n\n".join(part for part in parts if part)


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def quoted(names: list[str]) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def command_section(words: str, command: click.Command, settings: list[str]) -> str:
    """Heading, usage, help text, options and examples of a command."""
    context = click.Context(command, info_name=words, show_default=True)
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    lines = [f"### {words}", f"`{usage}`", paragraphs(command.help or "")]
    rows, taken = [], []
    takes_settings = any(parameter.name == "config_file" for parameter in command.params)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None or isinstance(parameter, click.Argument):
            continue
        if takes_settings and parameter.name in settings:
            taken.append(parameter.name)
        else:
            rows.append(f"| `{cell(record[0])}` | {cell(record[1])} |")
    if rows:
        lines.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    missing = [name for name in settings if name not in taken]
    if not missing:
        lines.append("All [settings](#settings) are options.")
    elif len(missing) < len(taken):
        lines.append(f"All [settings](#settings) are options except {quoted(missing)}.")
    elif taken:
        lines.append(f"These [settings](#settings) are options: {quoted(taken)}.")
    if command.epilog:
        lines.append(paragraphs(command.epilog))
    return "\n\n".join(lines)


def power_of_two(limit: float) -> str:
    """A limit of a setting, short where it is a large power of two."""
    whole = int(limit)
    return f"2^{whole.bit_length() - 1}" if whole == limit and whole >= 2**10 else f"{limit:g}"


def shown(value: Any) -> str:
    """A default as the table of settings has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}" or "none"


def settings_table() -> str:
    """All settings with their defaults, allowed values and meaning."""
    rows = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    for setting in dataclasses.fields(TrainConfig):
        among, least, below = (setting.metadata[name] for name in ("among", "least", "below"))
        limits = [f"at least {least:g}"] if least is not None else []
        limits += [f"below {power_of_two(below)}"] if below is not None else []
        values = ", ".join(f"`{value}`" for value in among) or ", ".join(limits)
        free = "*" if setting.metadata["is_free"] else ""
        cells = [f"`{setting.name}`{free}", shown(setting.default), values, cell(setting.metadata["help"])]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def reference() -> str:
    """The whole page."""
    context = click.Context(disttgl, info_name="disttgl")
    names = [setting.name for setting in dataclasses.fields(TrainConfig)]
    found = list(commands(disttgl, context))
    links = " · ".join(
        f"[{words.removeprefix('disttgl ')}](#{words.replace(' ', '-')})" for words, _ in found
    )
    sections = [command_section(words, command, names) for words, command in found]
    parts = [
        INTRODUCTION.strip(),
        links,
        SETTINGS_INTRODUCTION.strip(),
        settings_table(),
        "## Commands",
        *sections,
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
