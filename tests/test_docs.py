"""The pages in docs/: links lead somewhere, the reference is that of the program, commands run as printed."""

import re
import shutil
from importlib.metadata import version

import click
import pytest
from documentation import PAGES, ROOT, commands, run_as_printed, write_inputs

import disttgl_hpc.cli

WITH_COMMANDS = ("data", "training", "parallel", "reliability", "static-memory", "tasks", "inference")
"""In the order in which each page finds the runs of those before it."""


def anchors(text):
    """What a link to a heading of the page may name."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def test_the_index_has_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_the_reference_is_that_of_the_program(monkeypatch):
    tested = re.search(r"^click==(.*)$", (ROOT / "jobs" / "constraints.txt").read_text(), re.MULTILINE)
    if version("click") != tested[1]:
        pytest.skip("another version of click words its help differently")
    monkeypatch.syspath_prepend(ROOT / "jobs")
    from reference import PAGE, reference

    assert PAGE.read_text(encoding="utf-8") == reference(), "python jobs/reference.py"


def test_every_command_is_described_outside_the_reference():
    pages = [page for page in PAGES if page.name not in {"reference.md", "CHANGELOG.md"}]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    group = disttgl_hpc.cli.disttgl
    for name in group.list_commands(click.Context(group)):
        assert f"disttgl {name}" in text, name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.timeout(900)
def test_the_commands_run_as_printed(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    for page in WITH_COMMANDS:
        run_as_printed(commands(f"docs/{page}.md"), tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    first, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace = {}
    exec(first, namespace)  # noqa: S102 (our own)
    assert namespace["vectors"].rows.shape[1] == 100
