"""Runs of whole grids under mpiexec, more ranks than cores, against the emulation in one process."""

import shutil

import pytest
from cases import assert_equal, start

CASES = {
    "links": ["1x1x1", "2x1x1", "1x2x1", "1x1x2", "2x2x1", "1x2x2", "2x1x2", "1x4x2", "2x2x2"],
    "co-trained": [f"{grid}:co-trained" for grid in ("1x1x1", "2x1x1", "1x2x1", "1x1x2", "2x1x2")],
    "classes": ["1x1x1:edge", "2x1x2:edge", "2x1x1:link+edge", "1x2x1:link+node", "1x1x2:node"],
}

pytestmark = [
    pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher"),
    pytest.mark.slow,
]


@pytest.mark.parametrize("learned", CASES)
def test_grids_train_as_their_emulations(tmp_path, learned):
    cases = CASES[learned]
    assert_equal(start("grid_run.py", tmp_path, cases), tmp_path, cases)


def test_pitfall_9_jobs_on_one_host_do_not_meet(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    jobs = [start("grid_run.py", folder, ["1x2x1"]) for folder in folders]
    for job, folder in zip(jobs, folders, strict=True):
        assert_equal(job, folder, ["1x2x1"])
