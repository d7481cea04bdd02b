"""Standard output and error that take nothing: full, closed, or a pipe that nobody reads any more."""

import subprocess

import pytest
from command_line import DISTTGL
from run_helpers import make_store, small_options

from disttgl_hpc.training.run_directory import RunDirectory

FULL, CLOSED = '"$@" >/dev/full', '"$@" >&-'
UNREAD = 'set -o pipefail; "$@" | exec true'


def run(redirected, *words):
    command = ["bash", "-c", redirected, "bash", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)


@pytest.mark.slow
@pytest.mark.parametrize("redirected", [FULL, CLOSED, f"{FULL} 2>/dev/full"])
def test_a_finished_training_succeeds_whoever_reads_its_table(tmp_path, redirected):
    store, directory = make_store(tmp_path), RunDirectory(tmp_path / "run")
    options = ["--run", directory.path, *small_options(epochs=1)]
    done = run(redirected, *DISTTGL, "train", store.path, *options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert directory.records()[-1]["record"] == "test"


@pytest.mark.slow
@pytest.mark.parametrize(("redirected", "lines"), [(FULL, 1), (UNREAD, 0)])
def test_an_answer_that_cannot_be_printed_is_an_error_in_a_line(tmp_path, redirected, lines):
    """An unread pipe is how `| head` ends a program, without a word."""
    done = run(redirected, *DISTTGL, "inspect", make_store(tmp_path).path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == lines, done.stderr
    assert done.stderr.count("No space left") == lines
