"""Tasks with classes as a user types them."""

import json

import pytest
from command_line import disttgl, needs_mpi
from run_records import records

pytestmark = pytest.mark.slow

_TEXT = (
    "--local-batch 60 --dim-memory 8 --dim-time 6 --dim-embedding 8 --num-neighbors 4 --evaluation-batch 180 "
    "--evaluation-negatives 9"
)
SMALL = _TEXT.split()


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """A generated stream whose events have one of three classes, which depend on the past."""
    store = tmp_path_factory.mktemp("events") / "shop.events.h5"
    size = "--events 1200 --sources 60 --destinations 20 --classes 3 --edge-features 2"
    disttgl("generate", store, *size.split())
    return store


@needs_mpi
@pytest.mark.parametrize("task", ["edge", "link+edge"])
def test_pitfall_19_one_process_and_many_ranks_give_the_same_numbers(tmp_path, events, task):
    options = ["--task", task, "--class-features", "--epochs", "1", *SMALL]
    for ranks in (0, 2):
        trained = disttgl("train", events, "--run", tmp_path / f"{ranks}", *options, ranks=ranks)
    alone, two = records(tmp_path / "0"), records(tmp_path / "2")
    assert alone == two
    assert set(alone[-1]["baselines"]) == {"majority", "last_label"}
    assert ("mrr" in alone[-1]["test"]) == ("heuristics" in alone[-1]) == (task == "link+edge")
    assert "F1-macro" in trained.stdout
    assert "last label" in trained.stdout
    for ranks in (0, 2):
        again = json.loads(disttgl("evaluate", tmp_path / "2", "--json", ranks=ranks).stdout)
        assert {"record": "test", **again} == two[-1]


def test_a_resumed_run_with_classes_equals_one_that_was_not_stopped(tmp_path, events):
    options = ["--task", "edge", *SMALL]
    disttgl("train", events, "--run", tmp_path / "whole", "--epochs", "2", *options)
    disttgl("train", events, "--run", tmp_path / "parts", "--epochs", "1", *options)
    disttgl("train", "--resume", tmp_path / "parts", "--epochs", "2")
    whole, parts = (records(tmp_path / name) for name in ("whole", "parts"))
    assert whole[-1] == parts[-1]


def test_inductive_metrics_stand_in_records_and_table(tmp_path, events):
    trained = disttgl("train", events, "--run", tmp_path / "run", "--epochs", "1", *SMALL)
    test = records(tmp_path / "run")[-1]["test"]
    assert 0 < test["inductive"]["num_events"] < test["num_events"]
    assert f"{test['inductive']['num_events']}" in trained.stdout
    assert "new sources" in trained.stdout
    assert records(tmp_path / "run")[-1]["heuristics"]["poptrack"]["inductive"]["num_events"] > 0


def test_several_classes_an_event_from_a_file_to_a_table(tmp_path):
    rows = [f"{k % 7},{k % 5},{k},{int(k % 7 < 3)},{int(k % 5 == 1)}" for k in range(600)]
    (tmp_path / "tags.csv").write_text("u,i,t,red,big\n" + "\n".join(rows) + "\n")
    store, columns = tmp_path / "tags.events.h5", "src=u,dst=i,time=t,labels=red+big"
    disttgl("prepare", tmp_path / "tags.csv", store, "--columns", columns, "--bipartite")
    assert "red 258, big 120" in disttgl("inspect", store).stdout
    disttgl(
        "train", store, "--run", tmp_path / "run", "--task", "edge", "--epochs", "3", "--lr", "1e-2", *SMALL
    )
    record = records(tmp_path / "run")[-1]
    assert record["test"]["classes"]["f1_micro"] > record["baselines"]["majority"]["f1_micro"]
    assert record["test"]["classes"]["f1_micro"] > 0.7


def test_classify_learns_heads_and_says_what_is_missing(tmp_path, events):
    rows = [f"{k % 9},{k % 4},{k},{int(k % 9 < 2)}" for k in range(600)]
    (tmp_path / "bans.csv").write_text("user_id,item_id,timestamp,state_label\n" + "\n".join(rows) + "\n")
    store, run = tmp_path / "bans.events.h5", tmp_path / "run"
    disttgl("prepare", tmp_path / "bans.csv", store, "--format", "jodie")
    disttgl("train", store, "--run", run, "--epochs", "1", *SMALL)
    told = disttgl("classify", run, "--seeds", "2", "--epochs", "2", "--balance", "1")
    assert "2 heads" in told.stdout
    assert len(json.loads((run / "classify.json").read_text())["heads"]) == 2
    disttgl("train", store, "--run", tmp_path / "node", "--task", "node", "--epochs", "1", *SMALL)
    disttgl("embed", tmp_path / "node", tmp_path / "nodes.npy")
    failed = disttgl("recommend", tmp_path / "node", "--nodes", "1", check=False)
    assert "which task node has not learned" in failed.stderr
    failed = disttgl("train", events, "--run", tmp_path / "no", "--task", "node", *SMALL, check=False)
    assert failed.returncode == 2
    assert "holds no classes of nodes: prepare it again" in failed.stderr
    batches = ["--task", "edge", "--negative-sets", "2", "--batches", tmp_path / "none.h5"]
    failed = disttgl("train", events, "--run", tmp_path / "no", *batches, *SMALL, check=False)
    assert "leave --batches out" in failed.stderr
