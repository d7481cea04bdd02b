"""``disttgl pretrain`` and ``train --static`` as a user types them, alone and under mpiexec."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import disttgl, needs_mpi
from run_records import records

from disttgl_hpc.cli.pretrain import pretrain
from disttgl_hpc.store.node_rows import StaticStore

pytestmark = pytest.mark.slow

SMALL_TEXT = (
    "--epochs 2 --local-batch 60 --dim-memory 8 --dim-time 6 --dim-embedding 8 --num-neighbors 4 "
    "--evaluation-batch 100 --evaluation-negatives 9"
)
SMALL = SMALL_TEXT.split()
SMALL_GNN = ["--epochs", "2", "--local-batch", "60", "--dim-memory", "8", "--evaluation-negatives", "9"]


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """420 training events of a bipartite stream."""
    folder = tmp_path_factory.mktemp("events")
    rng, num_events = np.random.default_rng(0), 600
    ends = rng.integers(0, 40, num_events), rng.integers(0, 30, num_events)
    rows = zip(*ends, np.arange(num_events), strict=True)
    (folder / "r.csv").write_text(
        "src,dst,time\n" + "\n".join("{},{},{}".format(*row) for row in rows) + "\n"
    )
    disttgl("prepare", folder / "r.csv", folder / "r.events.h5", "--bipartite")
    return folder / "r.events.h5"


@needs_mpi
@pytest.mark.parametrize(
    ("kind", "ranks", "alone", "together"),
    [
        ("embedding", 3, "--local-batch 60", "--local-batch 30 --grid 2x1x1"),
        (
            "static-gnn",
            2,
            "--local-batch 29",
            "--local-batch 29",
        ),  # 378 events: one of them has none of the last
    ],
)
def test_two_trainers_learn_what_one_learns(tmp_path, events, kind, ranks, alone, together):
    """Half a batch each, dropout included: equal but for the order of float sums."""
    one, two = tmp_path / "one.static.h5", tmp_path / "two.static.h5"
    small = SMALL if kind == "embedding" else SMALL_GNN
    said = disttgl("pretrain", events, one, "--kind", kind, *small, *alone.split()).stdout
    assert "70 of 70 nodes" in said
    disttgl("pretrain", events, two, "--kind", kind, *small, *together.split(), ranks=ranks)
    first, second = (StaticStore.open(path) for path in (one, two))
    assert np.allclose(first.rows, second.rows, atol=1e-3 * np.abs(first.rows).max())
    losses = [[epoch["loss"] for epoch in store.origin.report["epochs"]] for store in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_from_pre_training_to_evaluation(tmp_path, events):
    table, run = tmp_path / "r.static.h5", tmp_path / "run"
    disttgl("pretrain", events, table, "--kind", "static-gnn", *SMALL_GNN)
    facts = json.loads(disttgl("inspect", table, "--json", "--verify").stdout)
    assert (facts["kind"], facts["nodes"], facts["width"], facts["learned from the first"]) == (
        "static-gnn", 70, 8, 378,
    )  # fmt: skip
    assert facts["checksum"].endswith("(verified)")
    disttgl("train", events, "--run", run, *SMALL, "--static", table, "--static-dropout", "0.1")
    config = json.loads((run / "config.json").read_text())
    assert config["static"] == str(table)
    assert config["static_memory"] == StaticStore.open(table).checksum
    moved = table.rename(tmp_path / "moved.static.h5")
    lost = disttgl("evaluate", run, check=False)
    assert (lost.returncode, "r.static.h5: no such file" in lost.stderr) == (1, True)
    evaluated = json.loads(disttgl("evaluate", run, "--static", moved, "--json").stdout)
    assert evaluated["test"] == records(run)[-1]["test"]
    disttgl("train", "--resume", run, "--epochs", "3", "--static", moved)
    assert records(run)[-1]["record"] == "test"


@needs_mpi
def test_a_co_trained_run_is_evaluated_the_same_by_any_number_of_ranks(tmp_path, events):
    run = tmp_path / "run"
    disttgl("train", events, "--run", run, *SMALL, "--static", "co-trained", ranks=3)
    recorded = records(run)[-1]
    del recorded["record"]
    for ranks in (0, 2):
        assert json.loads(disttgl("evaluate", run, "--json", ranks=ranks).stdout) == recorded


def test_defaults_of_training_in_a_file_are_no_wish(tmp_path, events):
    """The file that ``disttgl config --defaults`` makes; and the help tells whose default is which."""
    (tmp_path / "s.toml").write_text(disttgl("config", "--defaults").stdout)
    few = ("--dim-memory", "8", "--evaluation-negatives", "9", "--epochs", "2")
    tables = [tmp_path / "one.static.h5", tmp_path / "two.static.h5"]
    for table, file in zip(tables, ([], ["--config", tmp_path / "s.toml"]), strict=True):
        disttgl("pretrain", events, table, "--kind", "static-gnn", *few, *file)
    one, two = (StaticStore.open(table) for table in tables)
    assert one.rows.tobytes() == two.rows.tobytes()
    assert (two.origin.settings["lr"], two.origin.settings["local_batch"]) == (0.03, 6000)
    told = " ".join(disttgl("pretrain", "--help").stdout.split())
    assert "[default: 0.001; static-gnn: 0.03]" in told
    assert "--static-dropout" in told
    assert "--task" not in told


def test_a_table_that_learns_along_is_a_matter_of_training(tmp_path, events):
    done = CliRunner().invoke(pretrain, [str(events), str(tmp_path / "x.static.h5"), "--kind", "co-trained"])
    assert done.exit_code == 2
    assert "disttgl train EVENTS.h5 --static co-trained" in done.output


@needs_mpi
def test_mistakes_are_told_once(tmp_path, events):
    table = tmp_path / "other.static.h5"
    small = tmp_path / "small.events.h5"
    disttgl("generate", small, "--events", "300", "--nodes", "20")
    disttgl("pretrain", small, table, "--kind", "static-gnn", *SMALL_GNN)
    mistakes = {
        (
            "train",
            events,
            "--run",
            tmp_path / "run",
            "--static",
            table,
        ): "trained on the events in",
        ("train", events, "--run", tmp_path / "run", "--static", "no.h5"): "no.h5: no such file",
        ("pretrain", small, table, "--kind", "static-gnn"): "already exists",
        ("pretrain", small, tmp_path / "x.h5", "--kind", "embedding", "--share", "0.999"): "share must leave",
        (
            "pretrain",
            small,
            tmp_path / "x.h5",
            "--kind",
            "static-gnn",
            "--grid",
            "1x1x1",
        ): "grid: no effect",
    }
    for words, complaint in mistakes.items():
        # Under mpiexec what all ranks open, and what they train; the others are found by each rank for itself.
        ranks = 2 if words[0] == "train" or "--share" in words else 0
        done = disttgl(*words, ranks=ranks, check=False)
        assert done.returncode in {1, 2}
        assert complaint in done.stderr
        assert done.stderr.count("Error:") == 1
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
