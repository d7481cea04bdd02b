"""``disttgl embed``, ``score``, ``recommend``, ``append`` and ``update`` as a user types them."""

import csv
import io
import json
import os

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click import ClickException
from click.testing import CliRunner
from command_line import disttgl, needs_mpi

from disttgl_hpc.cli import disttgl as command
from disttgl_hpc.errors import DisttglError, InputError

pytestmark = pytest.mark.slow

SMALL_TEXT = (
    "--epochs 1 --local-batch 30 --dim-memory 8 --dim-time 6 --dim-embedding 8 --num-neighbors 4 "
    "--evaluation-batch 40 --evaluation-negatives 9"
)
SMALL = SMALL_TEXT.split()
COLUMNS = ["--columns", "src=user,dst=item,time=when"]
NUM_EVENTS, SINCE = 300, 250


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a shop's ratings, a run trained on them, and the ratings of the days after."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    lines = [f"u{rng.integers(1 + k // 9)},{rng.integers(1 + k // 12)},{10 * k}\n" for k in range(NUM_EVENTS)]
    for name, part in (("ratings", lines[:SINCE]), ("new", lines[SINCE:]), ("all", lines)):
        (folder / f"{name}.csv").write_text("user,item,when\n" + "".join(part))
    split = ["--split-times", "1800,2200", "--bipartite"]
    for name in ("ratings", "all"):
        disttgl("prepare", folder / f"{name}.csv", folder / f"{name}.events.h5", *COLUMNS, *split)
    disttgl("train", folder / "ratings.events.h5", "--run", folder / "run", *SMALL)
    return folder


def said(*words):
    """What a command prints, run in this process; its errors are raised."""
    done = CliRunner().invoke(
        command, [f"{word}" for word in words], catch_exceptions=False, standalone_mode=False
    )
    if done.exception is not None:
        raise done.exception
    return done.stdout


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_embeddings_are_the_same_in_all_kinds_of_files(tmp_path, shop):
    told = said("embed", shop / "run", tmp_path / "all.parquet", "--at", 2000)
    assert "all.parquet: " in told
    assert "nodes × 8, after 200 events, time 2000" in told
    said("embed", shop / "run", tmp_path / "all.h5", "--at", "2000.0")
    said("embed", shop / "run", tmp_path / "all.npy", "--at", 2000)
    found = pq.read_table(tmp_path / "all.parquet").to_pydict()
    rows = np.array(found["embedding"], np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), rows)
    named = table((tmp_path / "all.ids.csv").read_text())
    assert [(row["id"], row["kind"]) for row in named] == list(zip(found["id"], found["kind"], strict=True))
    with h5py.File(tmp_path / "all.h5") as file:
        np.testing.assert_array_equal(file["embedding"], rows)
        assert [name.decode() for name in file["id"]] == found["id"]
        origin = json.loads(file.attrs["origin"])
    assert (origin["num_events"], origin["time"]) == (200, 2000)
    assert len(origin["weights"]) == len(origin["events"]) == 64


def test_embeddings_of_some_nodes(tmp_path, shop):
    (tmp_path / "wanted.txt").write_text("u1\n\n 2 \nu0\n")
    said("embed", shop / "run", tmp_path / "some.parquet", "--nodes", tmp_path / "wanted.txt")
    assert pq.read_table(tmp_path / "some.parquet")["id"].to_pylist() == ["u1", "2", "u0"]
    said("embed", shop / "run", tmp_path / "some.parquet", "--nodes", "3,1", "--of", "destinations")
    found = pq.read_table(tmp_path / "some.parquet")
    assert (found["id"].to_pylist(), found["kind"].to_pylist()) == (["3", "1"], ["destination"] * 2)


def test_scores_keep_the_order_of_the_pairs(tmp_path, shop):
    (tmp_path / "pairs.csv").write_text("item,user,when,note\n3,u1,2400,a\n2,u0,500,b\n3,u1,2400,c\n")
    asked = ["score", shop / "run", tmp_path / "pairs.csv", *COLUMNS]
    rows = table(said(*asked))
    assert list(rows[0]) == ["src", "dst", "time", "logit", "probability"]
    assert [(row["src"], row["dst"], row["time"]) for row in rows] == [
        ("u1", "3", "2400"),
        ("u0", "2", "500"),
        ("u1", "3", "2400"),
    ]
    assert rows[0] == rows[2]
    for row in rows:
        assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-float(row["logit"]))), abs=1e-6)
    said(*asked, "-o", tmp_path / "scores.parquet")
    assert [f"{row['dst']}" for row in pq.read_table(tmp_path / "scores.parquet").to_pylist()] == [
        "3",
        "2",
        "3",
    ]


def test_pairs_that_cannot_be_scored(tmp_path, shop):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("src,dst\nu1,3\nnobody,4\n")
    with pytest.raises(InputError, match=r"nobody.*--skip-unknown"):
        said("score", shop / "run", pairs)
    rows = table(said("score", shop / "run", pairs, "--skip-unknown"))
    assert [bool(row["logit"]) for row in rows] == [True, False]
    pairs.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="missing columns src, dst; found a, b"):
        said("score", shop / "run", pairs)


def test_recommended_are_unseen_and_have_scores(tmp_path, shop):
    rows = table(said("recommend", shop / "run", "--nodes", "u1,u0", "--top", 4))
    assert [row["src"] for row in rows] == ["u1"] * 4 + ["u0"] * 4
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"] * 2
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("src,dst\n" + "".join(f"{row['src']},{row['dst']}\n" for row in rows))
    scored = table(said("score", shop / "run", pairs))
    for one, other in zip(rows, scored, strict=True):
        assert float(one["logit"]) == pytest.approx(float(other["logit"]), abs=1e-5)
    everything = table(said("recommend", shop / "run", "--top", 1000, "--exclude-seen"))
    seen = {tuple(line.split(",")[:2]) for line in (shop / "ratings.csv").read_text().splitlines()[1:]}
    assert everything
    assert not seen & {(row["src"], row["dst"]) for row in everything}


def test_own_output_is_input_again_with_ids_of_19_digits(tmp_path, monkeypatch):
    """Tweets and users from Parquet, whose ids are int64 and of up to 19 digits."""
    monkeypatch.chdir(tmp_path)
    users, tweets = 2**63 - 1 - np.arange(5), 1582218195625938945 + np.arange(7)
    rng = np.random.default_rng(0)
    columns = {"src": rng.choice(users, 120), "dst": rng.choice(tweets, 120), "time": np.arange(120)}
    pq.write_table(pa.table(columns), "in.parquet")
    disttgl("prepare", "in.parquet", "x.events.h5", "--bipartite")
    disttgl("train", "x.events.h5", "--run", "run", *SMALL)
    (tmp_path / f"{users[0]}").write_text("1\n")  # a file named like an id is not read
    asked = ["recommend", "run", "--top", 2, "--nodes", f"{users[0]},{users[1]}"]
    rows = table(said(*asked))
    assert {row["src"] for row in rows} == {f"{user}" for user in users[:2]}
    for kind in ("csv", "parquet"):
        said(*asked, "-o", f"best.{kind}")
        said("score", "run", f"best.{kind}", "-o", f"scores.{kind}")
        scored = table(said("score", "run", f"scores.{kind}"))
        assert [(row["src"], row["dst"]) for row in scored] == [(row["src"], row["dst"]) for row in rows]
        for one, other in zip(rows, scored, strict=True):
            assert float(one["logit"]) == pytest.approx(float(other["logit"]), abs=1e-5)
    said("embed", "run", "all.parquet")
    said("embed", "run", "all.npy")
    for name in ("all.parquet", "all.ids.csv"):
        said("embed", "run", "again.parquet", "--nodes", name)
        assert pq.read_table("again.parquet").equals(pq.read_table("all.parquet"))
    assert len(table(said("recommend", "run", "--nodes", users[0], "--top", 1))) == 1


@needs_mpi
def test_append_and_update_give_what_preparing_everything_does(tmp_path, shop):
    """With a run of its own, whose store is replaced; one process does the work of two that were started."""
    store, run = tmp_path / "mine.events.h5", tmp_path / "run"
    store.write_bytes((shop / "ratings.events.h5").read_bytes())
    disttgl("train", store, "--run", run, *SMALL)
    told = disttgl("append", store, shop / "new.csv", ranks=2).stdout
    assert told.count(f"{NUM_EVENTS} events, {NUM_EVENTS - SINCE} of them new") == 1
    checksums = [
        json.loads(disttgl("inspect", path, "--json").stdout)["checksum"]
        for path in (store, shop / "all.events.h5")
    ]
    assert checksums[0] == checksums[1]
    for name in ("before", "after"):
        disttgl("embed", run, tmp_path / f"{name}.npy", ranks=2 if name == "after" else 0)
        if name == "before":
            assert "node memory after 300 events" in disttgl("update", run, ranks=2).stdout
    disttgl("embed", shop / "run", tmp_path / "other.npy", "--events", shop / "all.events.h5")
    before, after, other = (np.load(tmp_path / f"{name}.npy") for name in ("before", "after", "other"))
    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(before, other)


def test_what_is_asked_wrongly_is_told(tmp_path, shop):
    for name in ("folder.csv", "folder.h5"):
        (shop / name).mkdir()
    os.mkfifo(shop / "fifo")
    cases = {
        ("embed", shop / "run", tmp_path / "x.txt"): "name must end in one of .h5, .parquet, .npy",
        ("embed", shop / "run", tmp_path / "no" / "x.h5"): "folder",
        (
            "embed",
            shop / "run",
            tmp_path / "x.h5",
            "--at",
            "noon",
        ): "time",
        ("embed", shop / "run", tmp_path / "x.h5", "--at", "1.5"): "integer times, found 1.5",
        ("embed", tmp_path, tmp_path / "x.h5"): "no run's configuration: give a run directory",
        ("recommend", shop / "run", "--nodes", "u1,u999"): "unknown node id u999",
        ("recommend", shop / "run", "-o", tmp_path / "x.txt"): "name must end in one of .csv, .parquet",
        ("recommend", shop / "run", "-o", shop / "folder.csv"): "is a directory",
        ("embed", shop / "run", shop / "folder.h5"): "exists and is not a file",
        ("report", shop / "run", "-o", shop / "fifo"): "exists and is not a file",
        (
            "append",
            shop / "all.events.h5",
            shop / "new.csv",
        ): "line 2: appended events",
        (
            "update",
            shop / "run",
            "--events",
            tmp_path / "gone.h5",
        ): "event store not found",
    }
    cases |= {
        ("update", tmp_path / "typo"): "no run's configuration: give a run directory",
        ("recommend", shop / "run", "--nodes", " ,"): "at least one id",
    }
    for words, complaint in cases.items():
        with pytest.raises((DisttglError, ClickException), match=complaint):
            said(*words)
    assert not list(tmp_path.iterdir())
