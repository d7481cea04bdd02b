"""How a command ends: on an error that only some of its ranks have found, on a signal, on odd text in a message."""

import shutil
import subprocess
import sys
from unittest import mock

import pytest
from command_line import disttgl

from disttgl_hpc.errors import InputError
from disttgl_hpc.log import printable

# Stands for a command: ranks 1 and 2 lie on a node with too little shared memory, rank 0 on another.
COMMAND = """
from mpi4py import MPI
from disttgl_hpc import cli
from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.collectives import raise_together

def open_tables(**_):
    raise_together(MPI.COMM_WORLD, GridError("no room here") if MPI.COMM_WORLD.rank else None, 20)

cli.disttgl.main = open_tables
cli.main()
"""


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_an_error_of_one_node_is_told_once_by_a_rank_that_has_it():
    command = ["timeout", "60", "mpiexec", "-n", "3", sys.executable, "-c", COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("no room here") == done.stderr.count("Error:") == 1
    assert "Error: rank 1 of 3" in done.stderr
    assert "Traceback" not in done.stderr


# A command that is asked to end just before its store is complete.
ENDED = """
import os, signal, sys
from disttgl_hpc import cli
from disttgl_hpc.store import event_writer
event_writer._append_nodes = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ["disttgl", *{words}]
cli.main()
"""


@pytest.mark.parametrize("command", ["generate --events 100", "prepare in.csv"])
def test_a_command_that_is_asked_to_end_leaves_no_partial_files(tmp_path, command):
    (tmp_path / "in.csv").write_text("src,dst,time\n" + "".join(f"{k % 3},{k % 5},{k}\n" for k in range(50)))
    script = ENDED.format(words=[*command.split(), "x.events.h5"])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 128 + 15, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é 日本 👍", "plain\n\ttext é 日本 👍"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("gpj\u202eexe", "gpj\\u202eexe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


def test_an_error_has_no_control_characters():
    with mock.patch("disttgl_hpc.cli.disttgl.main", side_effect=InputError("\x1b[2Jgone")):
        assert "\\x1b[2Jgone" in disttgl("inspect", check=False).stderr


def test_a_file_that_ends_too_soon_is_not_called_an_interruption():
    with mock.patch("disttgl_hpc.cli.inspect.is_kind", side_effect=EOFError("end of the file")):
        done = disttgl("inspect", "x", check=False)
    assert done.returncode == 1
    assert "end of the file" in done.stderr
    assert "interrupted" not in done.stderr
