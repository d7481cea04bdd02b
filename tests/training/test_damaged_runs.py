"""Every damage of run_damages.py to a stopped run: it ends as if nothing had happened, or refuses in one line."""

import random
import shutil
from unittest import mock

import pytest
from command_line import disttgl
from kill_and_resume import assert_equal
from run_damages import DAMAGES, contents, make_outside
from run_helpers import make_store, small_options

from disttgl_hpc.grid.job import StopRequest
from disttgl_hpc.training.run_directory import RunDirectory

pytestmark = pytest.mark.slow

CASES = [(damage, 4) for damage in DAMAGES] + [(damage, 5) for damage in DAMAGES if "best" in damage]
"""Damages, and seeds of runs: with 4 the first sweep is the best of all, with 5 only of those before the stop."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By seed: a run that was left alone, and the same one stopped in its fourth sweep."""
    return {seed: make_runs(tmp_path_factory.mktemp("runs"), seed) for seed in (4, 5)}


def make_runs(folder, seed):
    store = make_store(folder)
    options = small_options(epochs=5, checkpoint_steps=2, keep_checkpoints=3, seed=seed)
    whole, stopped = RunDirectory(folder / "whole"), RunDirectory(folder / "stopped")
    disttgl("train", store.path, "--run", whole.path, *options)
    with mock.patch.object(StopRequest, "is_made", side_effect=[*[False] * 23, *[True] * 9]):
        assert disttgl("train", store.path, "--run", stopped.path, *options, check=False).returncode == 75
    assert (stopped.read_best().sweep, whole.read_best().sweep) == (1, 1 if seed == 4 else 5)
    return whole, stopped


@pytest.mark.parametrize(("damage", "seed"), CASES)
def test_a_damaged_run_ends_as_it_would_have_or_says_what_is_wrong(runs, tmp_path, damage, seed):
    whole, stopped = runs[seed]
    run, outside = RunDirectory(tmp_path / "run"), tmp_path / "outside"
    shutil.copytree(stopped.path, run.path)
    make_outside(outside)
    DAMAGES[damage](run, outside, random.Random(damage))
    theirs = contents(outside)
    done = disttgl("train", "--resume", run.path, check=False)
    disttgl("report", run.path, check=False)
    assert contents(outside) == theirs
    if done.returncode:
        assert done.returncode in (1, 2)
        assert done.stderr.count("Error: ") == 1
        assert "Traceback" not in done.stderr
    else:
        assert_equal(run, whole)
