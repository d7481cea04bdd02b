"""A few of the kills that kill_and_resume.py does by the dozen."""

import random
import shutil

import pytest
from kill_and_resume import assert_equal, killed_and_resumed, undisturbed
from run_helpers import make_store
from watched_job import needs_proc

pytestmark = pytest.mark.slow


@needs_proc
@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
@pytest.mark.parametrize("grid", ["1x1x1", "1x2x2"])
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(tmp_path, grid):
    store = make_store(tmp_path)
    whole = undisturbed(tmp_path / "whole", store, grid)
    run, _ = killed_and_resumed(tmp_path / "killed", store, grid, 2, random.Random(7))
    assert_equal(run, whole)
