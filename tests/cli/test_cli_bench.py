"""``disttgl bench``: grids under mpiexec, ways of loading in one process."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from disttgl_hpc.cli.bench import bench
from disttgl_hpc.cli.prepare import prepare
from disttgl_hpc.cli.sample import sample
from disttgl_hpc.errors import GridError

pytestmark = pytest.mark.slow

SMALL = ["--local-batch", "20", "--dim-memory", "8", "--dim-time", "4", "--dim-embedding", "8"]


@pytest.fixture
def store(tmp_path):
    lines = [f"{number % 5} {number % 7 + 5} {number}" for number in range(120)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    output = tmp_path / "x.events.h5"
    result = CliRunner().invoke(prepare, [str(tmp_path / "in.txt"), str(output)])
    assert result.exit_code == 0, result.output
    return output


def started(ranks, *arguments, command="scaling"):
    """The command on so many ranks."""
    launch = [
        "timeout",
        "100",
        "mpiexec",
        "-n",
        f"{ranks}",
        sys.executable,
        "-m",
        "disttgl_hpc",
        "bench",
        command,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launch, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_grids_are_measured_in_turns(store, tmp_path):
    file = tmp_path / "scaling.json"
    plan = ["--steps", 9, "--warmup", 2, "--rounds", 2, "--json", file]
    done = started(3, store, "--grids", "1x1x1,1x1x2,1x2x1", *plan, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(file.read_text())
    assert [entry["grid"] for entry in record["grids"]] == ["1x1x1", "1x1x2", "1x2x1"]
    assert record["machine"]["ranks"] == 3
    assert record["settings"]["local_batch"] == 20
    # Batches of 20, 20, 20, 20 and 4 events: from step 2 on, 9 steps are 7 full batches and 2 short ones a trainer.
    for entry, events in zip(record["grids"], (148, 296, 296), strict=True):
        assert [run["events_per_s"] * run["elapsed_s"] for run in entry["rounds"]] == [
            pytest.approx(events)
        ] * 2
    for entry in record["grids"]:
        assert (entry["daemons"], len(entry["memory_wait_s"])) == (1, entry["trainers"])
        assert min(entry["trainer_cpu_us"], entry["daemon_cpu_us"]) > 0
        assert (entry["gradient_bytes"], entry["tcp_bytes"]) == (0, 0), "one node"
        assert all((wait > 0) == (entry["trainers"] > 1) for wait in entry["gradient_wait_s"])
    lines = done.stdout.splitlines()
    assert [line.split()[0].rstrip("*") for line in lines[2:5]] == ["1x1x1", "1x1x2", "1x2x1"]
    assert "Medians of 2 rounds of 9 steps after 2" in lines[5]
    assert len(lines) == 7


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_a_grid_without_ranks_is_told_once(store):
    done = started(2, store, "--grids", "1x1x1,2x1x1")
    assert done.returncode == 2
    assert done.stderr.count("2×1×1 needs 2 trainers and a daemon, 3 ranks, on one node; started were 2") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grids", "1x1"], "a grid is written IxJxK"),
        (["--grids", ""], "a grid is written IxJxK"),
        (["--grids", "1x1x1", "--steps", "0"], "'--steps'"),
        (["--grids", "1x1x1", "--json", "/nowhere/at/all.json"], "folder"),
        (["--grids", "1x1x1", "--grid", "1x1x1"], "--grid"),
        ([], "--grids"),
    ],
)
def test_usage_errors(store, options, message):
    result = CliRunner().invoke(bench, ["scaling", str(store), *options])
    assert result.exit_code != 0
    told = str(result.exception) if isinstance(result.exception, GridError) else result.output
    assert message in told


def test_ways_of_loading_are_measured_in_turns(store, tmp_path):
    batches, file = tmp_path / "x.batches.h5", tmp_path / "loader.json"
    fixed = ["--negative-sets", "2", "--local-batch", "20"]
    sampled = CliRunner().invoke(sample, [str(store), str(batches), *fixed])
    assert sampled.exit_code == 0, sampled.output
    plan = ["--steps", "6", "--warmup", "1", "--rounds", "2", "--json", str(file)]
    options = ["--batches", str(batches), "--prefetch", "1", "--first-step", "2", *plan, *fixed, *SMALL]
    done = CliRunner().invoke(bench, ["loader", str(store), *options])
    assert done.exit_code == 0, done.output
    ways = json.loads(file.read_text())["ways"]
    assert [(way["graphs"], way["prefetch"]) for way in ways] == [
        ("live", 0),
        ("live", 1),
        ("stored", 0),
        ("stored", 1),
    ]
    for way in ways:
        loading = way["sample_us"] + way["read_us"] + way["inputs_us"]
        assert 0 < loading < way["step_us"]
        assert way["cpu_us"] > 0
        assert 0 < way["loading_share"] < 1
    assert [
        line.split()[:2] for line in done.stdout.splitlines() if line.split()[0] in {"live", "stored"}
    ] == [
        ["live", "0"],
        ["live", "1"],
        ["stored", "0"],
        ["stored", "1"],
    ]


def test_a_loader_is_measured_in_one_process(store):
    done = started(2, store, command="loader")
    assert done.returncode == 2
    assert done.stderr.count("Error: ") == 1
    assert "launcher" in done.stderr


def test_static_memory_is_measured_along_and_must_be_of_these_events(store, tmp_path):
    plan = ["--steps", "2", "--warmup", "1", "--rounds", "1", "--json", str(tmp_path / "train.json"), *SMALL]
    result = CliRunner().invoke(bench, ["train", str(store), *plan, "--static", str(tmp_path / "none.h5")])
    assert "none.h5" in str(result.exception)
    result = CliRunner().invoke(
        bench, ["train", str(store), *plan, "--static", "co-trained", "--prefetch", "4"]
    )
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "train.json").read_text())["settings"]
    assert (settings["static"], settings["prefetch"]) == (
        "co-trained",
        0,
    )  # a step is measured without a thread


def test_a_training_step_is_measured_and_its_figures_kept(store, tmp_path):
    file = tmp_path / "train.json"
    plan = ["--steps", "2", "--warmup", "1", "--rounds", "1", "--json", str(file)]
    result = CliRunner().invoke(bench, ["train", str(store), *plan, *SMALL, "--precision", "bfloat16"])
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    assert record["settings"]["precision"] == "bfloat16"
    assert record["own"]["cpu_us"] > record["floor"]["cpu_us"] > 0
    assert "Lower bound:" in result.output
    assert "PyTorch Geometric" not in result.output
