"""``disttgl sample`` and ``train --batches`` as a user types them, alone and under mpiexec."""

import json
import shutil

import numpy as np
import pytest
from command_line import disttgl, needs_mpi
from run_records import records
from stored_states import assert_same_state

from disttgl_hpc.training.run_directory import RunDirectory

pytestmark = pytest.mark.slow

SAMPLED_TEXT = "--local-batch 30 --num-neighbors 4 --negative-sets 3 --negative-strategy historical"
TRAINED_TEXT = (
    "--epochs 4 --dim-memory 8 --dim-time 6 --dim-embedding 8 --evaluation-batch 100 --evaluation-negatives 9"
)
SAMPLED, TRAINED = SAMPLED_TEXT.split(), TRAINED_TEXT.split()


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """421 training events of a bipartite stream, with equal times."""
    folder = tmp_path_factory.mktemp("events")
    rng, num_events = np.random.default_rng(0), 601
    ends = rng.integers(0, 40, num_events), rng.integers(0, 30, num_events)
    rows = zip(*ends, np.sort(rng.integers(0, 900, num_events)), strict=True)
    (folder / "r.csv").write_text(
        "src,dst,time\n" + "\n".join("{},{},{}".format(*row) for row in rows) + "\n"
    )
    disttgl("prepare", folder / "r.csv", folder / "r.events.h5", "--bipartite")
    return folder / "r.events.h5"


@needs_mpi
@pytest.mark.parametrize(("grid", "ranks"), [("1x1x1", 0), ("2x1x1", 3), ("1x2x1", 3)])
def test_training_is_the_same_with_and_without_a_store(tmp_path, events, grid, ranks):
    store = tmp_path / "r.batches.h5"
    disttgl("sample", events, store, *SAMPLED, "--minibatch", grid[0])
    common = ["train", events, *SAMPLED, *TRAINED, "--grid", grid]
    disttgl(*common, "--run", tmp_path / "live", ranks=ranks)
    disttgl(*common, "--run", tmp_path / "stored", "--batches", store, ranks=ranks)
    assert records(tmp_path / "live") == records(tmp_path / "stored")
    live, stored = (RunDirectory(tmp_path / name) for name in ("live", "stored"))
    assert_same_state(live, stored)


@needs_mpi
def test_a_store_lies_beside_its_events_and_says_what_it_came_to(tmp_path, events):
    shutil.copy(events, tmp_path)
    done = disttgl("sample", tmp_path / events.name, *SAMPLED, "--minibatch", "2", ranks=2)
    store = tmp_path / "r.b2x30.n4.s3.batches.h5"
    assert store.is_file()
    assert f"{store}: 7 global batches in 2 slices, 3 negative sets" in done.stdout
    assert done.stderr.count("global batches") == 1
    assert "MB in about" in done.stderr


@needs_mpi
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_store_of_other_settings_is_refused_with_all_that_differs(tmp_path, events, ranks):
    store, run = tmp_path / "r.batches.h5", tmp_path / "run"
    disttgl("sample", events, store, *SAMPLED, "--seed", "7")
    options = ["--run", run, "--batches", store, "--num-neighbors", "4"]
    done = disttgl("train", events, *options, ranks=ranks, check=False)
    assert done.returncode == 1
    for text in (
        "local_batch 30",
        "negative_sets 3",
        "negative_strategy 'historical'",
        "seed 7",
        "r.batches.h5",
        "--batches",
    ):
        assert text in done.stderr
    assert "num_neighbors" not in done.stderr
    assert done.stderr.count("Error:") == 1
    assert not run.exists()


def test_a_store_tells_what_it_holds(tmp_path, events):
    store = tmp_path / "r.batches.h5"
    disttgl("sample", events, store, *SAMPLED)
    facts = json.loads(disttgl("inspect", store, "--json", "--verify").stdout)
    shown = {name: facts[name] for name in ("local batch", "negative sets", "global batches", "checksums")}
    assert shown == {"local batch": 30, "negative sets": 3, "global batches": 14, "checksums": "verified"}
    assert facts["records"] == 14 * 4
    assert len(facts["event store's checksum"]) == 64
    content = bytearray(store.read_bytes())
    content[-50] ^= 4
    store.write_bytes(content)
    assert "crc32" in disttgl("inspect", store, "--verify", check=False).stderr


def test_a_damaged_store_ends_training_with_its_name(tmp_path, events):
    store = tmp_path / "r.batches.h5"
    disttgl("sample", events, store, *SAMPLED)
    content = bytearray(store.read_bytes())
    content[-50] ^= 4  # in the last record: set 2, whose turn comes in the third sweep of 14 steps
    store.write_bytes(content)
    options = ["--run", tmp_path / "run", "--batches", store, *SAMPLED, *TRAINED]
    done = disttgl("train", events, *options, check=False)
    assert done.returncode == 1
    assert "r.batches.h5: global batch 13, slice 0" in done.stderr
    assert "[0] the batch that begins in step 41 cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_sampling_does_not_depend_on_are_no_options(events):
    done = disttgl("sample", events, "--dropout", "0.1", check=False)
    assert done.returncode == 2
    assert "No such option" in done.stderr
