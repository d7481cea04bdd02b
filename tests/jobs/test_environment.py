"""jobs/environment.sh makes an environment once, anew when its inputs change, and never empties another's."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]

# A Python that makes environments of itself, and writes down what it was asked to do.
PYTHON = """\
#!/bin/bash
case "$1 $2" in
"-m venv")
    echo "$*" >>"$RECORD"
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    ;;
"-m pip")
    echo "pip ${!#}" >>"$RECORD"
    [[ ${PIP_FAILS:-} != yes ]]
    ;;
"-VV "*) echo "Python ${VERSION:-3.11}" ;;
-c*) ((${VERSION#3.} >= 11)) ;;
esac
"""


class Maker:
    """Calls enter_environment with the stand-in above, and says what that led to."""

    def __init__(self, folder: Path) -> None:
        self.venv = folder / "venv"
        self.record = folder / "record"
        self.python = folder / "python"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def enter(self, extras: str = "test", **environment: str) -> tuple[int, list[str], str]:
        """Exit status, what was done, and the first folder of PATH afterwards."""
        self.record.write_text("")
        done = subprocess.run(
            [
                "bash",
                "-euo",
                "pipefail",
                "-c",
                f'source jobs/environment.sh; enter_environment "{self.venv}" {extras}; echo "${{PATH%%:*}}"',
            ],
            cwd=ROOT,
            env=os.environ
            | {"PYTHON": str(self.python), "RECORD": str(self.record), "VERSION": "3.11"}
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return (
            done.returncode,
            self.record.read_text().splitlines(),
            done.stdout.splitlines()[-1] if done.stdout else "",
        )


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_environment_is_made_once_and_entered(maker: Maker) -> None:
    status, done, first_on_path = maker.enter()
    assert status == 0
    assert done == [f"-m venv {maker.venv}", "pip setuptools", f"pip {ROOT}[test]"]
    assert first_on_path == f"{maker.venv}/bin"

    assert maker.enter() == (0, [], f"{maker.venv}/bin")


@pytest.mark.parametrize("change", [{"extras": "test,mpi"}, {"VERSION": "3.12"}], ids=["extras", "python"])
def test_environment_is_made_anew_when_its_inputs_change(maker: Maker, change: dict[str, str]) -> None:
    maker.enter()
    (maker.venv / "stale").touch()
    status, done, _ = maker.enter(**change)
    assert status == 0
    assert done[0] == f"-m venv {maker.venv}"
    assert not (maker.venv / "stale").exists()


def test_interrupted_installation_starts_over(maker: Maker) -> None:
    status, _, _ = maker.enter(PIP_FAILS="yes")
    assert status != 0
    status, done, _ = maker.enter()
    assert status == 0
    assert done[0] == f"-m venv {maker.venv}"


def test_environment_of_another_maker_is_not_emptied(maker: Maker) -> None:
    (maker.venv / "bin").mkdir(parents=True)
    (maker.venv / "bin" / "python").write_text(PYTHON)
    (maker.venv / "bin" / "python").chmod(0o755)
    (maker.venv / "theirs").touch()
    for extras in ("test", "test,mpi"):
        status, done, _ = maker.enter(extras)
        assert status == 0
        assert done == ["pip setuptools", f"pip {ROOT}[{extras}]"]
        assert (maker.venv / "theirs").exists()


def test_folder_that_is_no_environment_keeps_what_it_holds(maker: Maker) -> None:
    maker.venv.mkdir()
    (maker.venv / "theirs").touch()
    assert maker.enter()[0] == 0
    assert (maker.venv / "theirs").exists()


def test_old_python_is_refused(maker: Maker) -> None:
    status, done, _ = maker.enter(VERSION="3.10")
    assert status == 1
    assert done == []


def requirements() -> list[Requirement]:
    """What pyproject.toml declares: dependencies, those of every extra, those of the build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [
        *project["project"]["dependencies"],
        *(line for lines in project["project"]["optional-dependencies"].values() for line in lines),
        *project["build-system"]["requires"],
    ]
    return [Requirement(line) for line in declared]


def pins(name: str) -> dict[str, str]:
    """Package → version of a constraints file."""
    lines = (ROOT / "jobs" / name).read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(package): version for package, version in pinned.items()}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_every_dependency_is_pinned_within_its_bounds(name: str) -> None:
    pinned = pins(name)
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_lowest_versions_are_the_floors() -> None:
    """A floor of X.Y is tried by an X.Y.Z: X.Y.0 need not have been published."""
    pinned = pins("constraints-lowest.txt")
    for requirement in requirements():
        (bound,) = requirement.specifier
        floor = Version(bound.version).release
        tried = Version(pinned[canonicalize_name(requirement.name)]).release
        assert tried[: len(floor)] == floor, requirement
