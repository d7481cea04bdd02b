"""The README fits its page, names what exists, and its commands run as printed."""

import re
import shutil
import tomllib

import pytest
from documentation import ROOT, commands, run_as_printed

from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.report.schedule_pictures import schedule_table

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN_ELSEWHERE = ("bash jobs/", "EVENTS=", "pip ")
"""The demo and the environment by hand, Slurm by tests/jobs, the tests by being this suite."""


def test_the_page_is_short():
    lines = README.splitlines()
    assert len(lines) <= 250
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == [], "tables aside"


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"^[A-Z_]{4,}$", README, re.MULTILINE)


def test_files_and_folders_that_are_named_exist():
    for path in re.findall(r"`(jobs/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


def test_the_tour_has_every_folder_of_the_package():
    named = set(re.findall(r"^\| `(\w+)/`", README, re.MULTILINE))
    package = {folder.parent.name for folder in (ROOT / "disttgl_hpc").glob("*/__init__.py")}
    assert named == package


def test_contributors_see_the_rooms_in_the_order_that_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "```\n" + "\n".join(layers) + "\n```" in text


def test_the_table_of_who_does_what_is_the_schedule():
    assert schedule_table(GridShape(1, 2, 2), 6, 5) in README


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.timeout(600)
def test_the_commands_run_as_printed(tmp_path):
    lines = [line for line in commands("README.md") if not line.startswith(RUN_ELSEWHERE)]
    assert len(lines) >= 5
    run_as_printed(lines, tmp_path)
