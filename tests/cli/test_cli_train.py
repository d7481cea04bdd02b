"""``disttgl train`` and ``evaluate`` as a user types them, alone and under mpiexec."""

import json

import numpy as np
import pytest
from command_line import disttgl, needs_mpi
from run_records import records

pytestmark = pytest.mark.slow

SMALL_TEXT = (
    "--epochs 2 --local-batch 30 --dim-memory 8 --dim-time 6 --dim-embedding 8 --num-neighbors 4 "
    "--evaluation-batch 180 --evaluation-negatives 9"
)
SMALL = SMALL_TEXT.split()


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A small bipartite store, prepared from a CSV file as a user would: 841 + 180 + 180 events.

    Its evaluation batches have several units of work, and 841 events leave slices of a last batch empty.
    """
    folder = tmp_path_factory.mktemp("events")
    rng, num_events = np.random.default_rng(0), 1201
    ends = rng.integers(0, 300, num_events), rng.integers(0, 200, num_events)
    rows = zip(*ends, np.arange(num_events) * 3, strict=True)
    text = "user,item,when\n" + "\n".join(f"{user},{item},{when}" for user, item, when in rows)
    (folder / "ratings.csv").write_text(text + "\n")
    store = folder / "ratings.events.h5"
    columns = "src=user,dst=item,time=when"
    split = f"{3 * 841},{3 * 1021}"
    disttgl(
        "prepare", folder / "ratings.csv", store, "--columns", columns, "--bipartite", "--split-times", split
    )
    return store


@needs_mpi
def test_one_process_and_two_ranks_give_the_same_numbers(tmp_path, events):
    for ranks in (0, 1, 2):
        disttgl("train", events, "--run", tmp_path / f"{ranks}", *SMALL, ranks=ranks)
    alone, one, two = (records(tmp_path / f"{ranks}") for ranks in (0, 1, 2))
    assert [record["record"] for record in alone] == ["sweep", "sweep", "test"]
    assert alone == one == two


@needs_mpi
def test_evaluate_repeats_the_numbers_of_train_for_any_number_of_ranks(tmp_path, events):
    """Three trainers with empty slices share an evaluation; then one process and 3 and 4 ranks do, bit for bit."""
    grid = ["--grid", "3x1x1", "--local-batch", "28", "--epochs", "1"]
    trained = disttgl("train", events, "--run", tmp_path / "run", *SMALL, *grid, ranks=4)
    recorded = records(tmp_path / "run")[-1]
    del recorded["record"]
    for ranks in (0, 3, 4):
        assert json.loads(disttgl("evaluate", tmp_path / "run", "--json", ranks=ranks).stdout) == recorded
    assert "TGN (test)" in trained.stdout
    assert disttgl("evaluate", tmp_path / "run").stdout == trained.stdout


@needs_mpi
def test_a_batch_in_two_slices_trains_as_a_whole_one(tmp_path, events):
    """i = 2 with b = 15 against i = 1 with b = 30, dropout included: equal but for the order of float sums."""
    sliced = [*SMALL, "--grid", "2x1x1", "--local-batch", "15"]
    disttgl("train", events, "--run", tmp_path / "sliced", *sliced, ranks=3)
    disttgl("train", events, "--run", tmp_path / "whole", *SMALL)
    losses = [[record["loss"] for record in records(tmp_path / name)[:-1]] for name in ("sliced", "whole")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@needs_mpi
def test_a_grid_gives_the_same_numbers_every_time(tmp_path, events):
    for name in ("one", "other"):
        disttgl("train", events, "--run", tmp_path / name, *SMALL, "--grid", "1x2x1", ranks=3)
    assert records(tmp_path / "one") == records(tmp_path / "other")


def test_options_win_over_the_file_which_wins_over_the_defaults(tmp_path, events):
    file = tmp_path / "settings.toml"
    file.write_text('lr = 0.01\nseed = 7\nscale_lr = "sqrt"\n')
    options = [*SMALL, "--config", file, "--seed", "8", "--epochs", "1"]
    disttgl("train", events, "--run", tmp_path / "run", *options)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["lr"], config["seed"], config["scale_lr"]) == (0.01, 8, "sqrt")
    assert config["grid"] == "1x1x1"
    assert config["num_heads"] == 2


MISTAKES = {
    "--gird 1x1x1": ("--gird", "--grid"),
    "--lr -1": ("lr must be at least 0: got -1",),
    "--grid 2x2": ("IxJxK", "2x2"),
    "--grid 2x1x2": ("need 5 ranks", "mpiexec -n 5"),
    "--dim-embedding 5": ("multiple of num_heads",),
}


@needs_mpi
@pytest.mark.parametrize(
    ("mistake", "ranks"),
    [*((mistake, 0) for mistake in MISTAKES), ("--gird 1x1x1", 2), ("--lr -1", 2), ("--grid 2x1x2", 2)],
)
def test_a_mistake_is_told_once(tmp_path, events, mistake, ranks):
    """Under mpiexec as well: of the command line, of a setting, of the ranks."""
    done = disttgl("train", events, "--run", tmp_path / "run", *mistake.split(), ranks=ranks, check=False)
    assert done.returncode == 2
    for text in MISTAKES[mistake]:
        assert text in done.stderr
    assert done.stderr.count("Error:") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@needs_mpi
def test_a_missing_store_is_told_once(tmp_path):
    done = disttgl("train", tmp_path / "no.events.h5", "--run", tmp_path / "run", ranks=2, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Error:") == 1
    assert "no.events.h5: no such file" in done.stderr


@needs_mpi
def test_one_ranks_error_ends_the_job_with_its_name(events):
    """Rank 0 alone finds that the run directory cannot be made; the daemon is waiting by then."""
    done = disttgl("train", events, "--run", "/proc/no/run", *SMALL, ranks=2, check=False)
    assert done.returncode != 0
    assert "Error: rank 0 of 2" in done.stderr
    assert "/proc/no/run: cannot be made" in done.stderr


def test_a_run_is_resumed_by_its_directory_alone(tmp_path, events):
    run = tmp_path / "run"
    disttgl("train", events, "--run", run, *SMALL, "--epochs", "1")
    disttgl("train", events, "--run", tmp_path / "whole", *SMALL)
    disttgl("train", "--resume", run, "--epochs", "2")
    assert records(run) == records(tmp_path / "whole")
    finished = disttgl("train", "--resume", run)
    assert "is complete" in finished.stderr
    assert "TGN (test)" in finished.stdout


RESUMED_WRONGLY = {
    "--resume {run} --lr 0.5": "these differ: lr 0.001, now 0.5",
    "--resume {run} --run other": "give EVENTS and --run for a new run, or --resume",
    "--run {run}": "give EVENTS and --run for a new run, or --resume",
    "--resume nowhere": "nowhere/config.json: no run's configuration",
}


def test_what_cannot_be_resumed_is_told(tmp_path, events):
    run = tmp_path / "run"
    disttgl("train", events, "--run", run, *SMALL, "--epochs", "1")
    for words, complaint in RESUMED_WRONGLY.items():
        done = disttgl("train", *words.format(run=run).split(), check=False)
        assert done.returncode in {1, 2}
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
