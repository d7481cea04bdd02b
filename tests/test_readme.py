"""The README is true: its commands run as printed, its options are those of the program."""

import dataclasses
import gzip
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from disttgl_hpc.cli import _COMMANDS
from disttgl_hpc.config import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN_ELSEWHERE = (
    "bash jobs/",
    "sbatch ",
    "python3 -m venv ",
    "EVENTS=",
    "disttgl embed runs/loans-job ",
    "disttgl report runs/loans-job",
)  # the demo and the environment by hand, the others by tests/jobs and by being this suite


def commands():
    """Command lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = (line.partition("#")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def shown(value):
    """A default as the table of options writes it."""
    if value is True or value is False:
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}" or "none"


@pytest.mark.parametrize("setting", dataclasses.fields(TrainConfig), ids=lambda setting: setting.name)
def test_every_option_stands_in_the_readme(setting):
    flag = setting.name.replace("_", "-")
    row = f"| `--{flag}` | {shown(setting.default)} | {setting.metadata['help']} |"
    assert row in README


def test_defaults_are_shown_as_what_they_are():
    assert [shown(value) for value in (True, False, 1, 0, 0.1, "")] == ["on", "off", "1", "0", "0.1", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "disttgl_hpc", "train", "--help"], capture_output=True, text=True, check=True
    )
    for text in (
        "[default: 1]",
        "[default: 0.1]",
        "[default: log-learned]",
        "[default: none]",
        "[default: off]",
    ):
        assert text in " ".join(done.stdout.split())


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"^[A-Z_]{4,}$", README, re.MULTILINE)


def test_every_command_stands_in_the_readme():
    for name in _COMMANDS:
        assert f"`disttgl {name}`" in README


def test_every_file_of_the_tour_exists():
    for path in re.findall(r"`((?:core|runs|parallel|nn|store)/\w+\.py)`", README):
        assert (ROOT / "disttgl_hpc" / path).is_file(), path
    for path in re.findall(r"`(jobs/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


def test_the_layers_are_drawn_alike_for_readers_and_contributors():
    (layers,) = re.findall(r"```\n(cli \| api .*?)```", README, re.DOTALL)
    assert layers in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = [re.split(r"  +", line)[0] for line in layers.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert drawn == project["tool"]["importlinter"]["contracts"][0]["layers"]


PAGES = [page for page in ROOT.glob("**/*.md") if not {".venv", ".venv-test", "runs"} & set(page.parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_documentation_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings], (
                target
            )


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.timeout(900)
def test_the_commands_run_as_printed(tmp_path):
    write_inputs(tmp_path)
    lines = [line for line in commands() if not line.startswith((*RUN_ELSEWHERE, "pip "))]
    assert len(lines) >= 8
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def write_inputs(folder):
    """The files that the README's examples name."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 12, (90, 2))
    rows = [f"{one},{other},{time}" for time, (one, other) in enumerate(ends)]
    (folder / "ratings.csv").write_text("user,item,when\n" + "\n".join(rows) + "\n")
    loans = (
        f"{('ann', 'bob', 'cid')[event % 3]},book {event * 5 % 7},{1700000000 + event},"
        f"{('lend', 'return')[event % 2]},0.{event % 10},{event % 2}\n"
        for event in range(300)
    )
    (folder / "loans.csv").write_text("user,book,when,kind,stars,renewed\n" + "".join(loans))
    later = [f"{one},{other},{90 + time}" for time, (one, other) in enumerate(ends[:20] + 1)]
    (folder / "monday.csv").write_text("user,item,when\n" + "\n".join(later) + "\n")
    (folder / "pairs.csv").write_text("user,item,when\n3,4,80\n3,5,80\n")
    text = "".join(row.replace(",", " ") + "\n" for row in rows)
    (folder / "messages.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("answers.txt", "comments.txt"):
        (folder / name).write_text(text)
