"""``disttgl plan`` in one process."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from disttgl_hpc.benchmarks import calibration
from disttgl_hpc.cli.plan import plan
from disttgl_hpc.cli.prepare import prepare
from disttgl_hpc.errors import ConfigError, DisttglError
from disttgl_hpc.planning.machine import own_cores
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import StaticOrigin, write_static_store


@pytest.fixture
def store(tmp_path):
    lines = [f"{number % 5} {number % 7 + 5} {number}" for number in range(200)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    output = tmp_path / "x.events.h5"
    result = CliRunner().invoke(prepare, [str(tmp_path / "in.txt"), str(output)])
    assert result.exit_code == 0, result.output
    return output


def invoke(store, *options):
    return CliRunner().invoke(plan, [str(store), *map(str, options)])


def test_captured_events_are_printed_and_written(store, tmp_path):
    done = invoke(store, "--captured", "--batch-sizes", "1,35", "--json", tmp_path / "captured.json")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "captured.json").read_text())
    assert (record["events"], [found["batch"] for found in record["captured"]]) == (140, [1, 35])
    # Every 35 events each of the 12 nodes occurs: 4 batches of 12 survivors out of 280 mails.
    assert [found["share"] for found in record["captured"]] == [1, pytest.approx(48 / 280)]
    assert [line.split()[:3] for line in done.output.splitlines()[2:4]] == [
        ["1", "100.0%", "4.3%"],
        ["35", "17.1%", "25.0%"],
    ]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_captured_events_are_plotted(store, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    figure = tmp_path / f"captured.{suffix}"
    assert invoke(store, "--captured", "--plot", figure).exit_code == 0
    assert figure.stat().st_size > 10_000


def test_a_plot_without_matplotlib_says_what_to_install(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    error = invoke(store, "--captured", "--plot", tmp_path / "x.svg").exception
    assert isinstance(error, ConfigError)
    assert "pip install 'disttgl_hpc[plot]'" in str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--captured", "--batch-sizes", "a"], "written B,B,…: got 'a'"),
        (["--captured", "--batch-sizes", "0"], "written B,B,…: got '0'; try"),
        (["--captured", "--batch-sizes", "9" * 20], "written B,B,…: got"),
        (["--captured", "--plot", "/nowhere/x.svg"], "folder"),
        (["--captured", "--plot", "x.events"], "end its name in .svg"),
        (["--captured", "--json", "/nowhere/x.json"], "folder"),
    ],
)
def test_usage_errors(store, options, message):
    done = invoke(store, *options)
    assert done.exit_code != 0
    told = str(done.exception) if isinstance(done.exception, ConfigError) else done.output
    assert message in told


SMALL = ["--dim-memory", "8", "--dim-time", "4", "--dim-embedding", "8"]
TWO = ["--trainers-per-node", 2, "--memory-per-node", "1G"]


def test_a_plan_has_every_grid_its_reason_and_the_commands(store, tmp_path):
    cluster = ["--nodes", "2", "--trainers-per-node", "4", "--memory-per-node", "1G"]
    options = [*cluster, "--no-calibration", "--local-batch", "35", *SMALL, "--json", tmp_path / "plan.json"]
    done = invoke(store, *options, "--pair-features")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "plan.json").read_text())
    assert record["grid"] == "1x2x4", "a sweep of 4 batches has no use for 8 replicas"
    assert [one["grid"] for one in record["candidates"]] == [
        "1x1x8",
        "1x2x4",
        "1x4x2",
        "2x1x4",
        "2x2x2",
        "4x1x2",
    ]
    for one in record["candidates"]:
        line = next(line for line in done.output.splitlines() if one["grid"] in line)
        assert line.endswith(one["reason"])
    mpi, slurm = done.output.splitlines()[-2:]
    settings = "--local-batch 35 --dim-memory 8 --dim-time 4 --dim-embedding 8 --pair-features --grid 1x2x4"
    assert mpi == f"mpiexec -n 10 -ppn 5 disttgl train {store} --run runs/x {settings}"
    assert slurm == f"EVENTS={store} sbatch --nodes=2 --ntasks-per-node=5 jobs/train.sbatch {settings}"


@pytest.mark.parametrize(
    "text", ['{"grids": 3}', '{"grids": [{}]}', '{"calibration": 3}', '{"calibration": [3]}', "{}", "[]", "{"]
)
def test_a_file_without_a_measurement_is_refused(store, tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    done = invoke(store, "--calibration", tmp_path / "bad.json")
    assert isinstance(done.exception, ConfigError), done.output
    assert ": " in str(done.exception)


@pytest.fixture
def measured(store, tmp_path, monkeypatch):
    """A plan of two trainers that has measured batches of 20, and its file."""
    monkeypatch.setattr(calibration, "_WARMUP_EVENTS", 100)
    monkeypatch.setattr(calibration, "_MEASURED_EVENTS", 200)
    file = tmp_path / "plan.json"
    done = invoke(store, *TWO, "--local-batch", 20, *SMALL, "--json", file)
    assert done.exit_code == 0, done.output
    return done, file


def test_a_calibration_is_measured_once_and_used_again(store, measured):
    first, file = measured
    again = invoke(store, *TWO, "--calibration", file, "--base-batch", 20, *SMALL)
    assert again.exit_code == 0, again.output
    told = first.output.replace("are measured here", f"were measured before ({file})")
    told = told.replace("(those of this machine)", "(those of the machine that was measured)")
    assert told.count("measured before") == told.count("that was measured") == 1
    assert again.output.splitlines()[:-2] == told.splitlines()[:-2]
    assert "20" in first.output.splitlines()[1].split(), "the local batch that was measured"


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"stream": "other"}, [], "stream was 'other', is 'x'"),
        ({"train_events": 141}, [], "train_events was 141, is 140"),
        ({"edge_bytes": 8}, [], "edge_bytes was 8, is 0"),
        ({"dim_static": 8}, [], "dim_static was 8, is 0"),
        ({"settings": {}}, [], "dim_memory was 100, is 8"),
        ({"machine": {}}, [], "names its stream, settings and machine, not found: 'cores'"),
        ({}, ["--num-neighbors", 3], "num_neighbors was 10, is 3"),
        ({}, ["--pair-features"], "pair_features was False, is True; give the same"),
        ({}, ["--local-batch", 40], "--local-batch, 40"),
        ({}, ["--local-batch", 20, "--lr", 0.1], ""),
    ],
)
def test_another_measurement_is_refused(store, measured, changed, options, message):
    record = json.loads(measured[1].read_text())
    record["calibration"][0] |= changed
    measured[1].write_text(json.dumps(record))
    done = invoke(store, "--calibration", measured[1], "--base-batch", 20, *SMALL, *options)
    if message:
        assert isinstance(done.exception, ConfigError), done.output
        assert message in str(done.exception)
    else:
        assert done.exit_code == 0, done.output


def test_epochs_count(store, tmp_path):
    file = tmp_path / "plan.json"
    options = ["--trainers-per-node", 4, "--no-calibration", "--local-batch", 35, "--epochs", 3, *SMALL]
    done = invoke(store, *options, "--json", file)
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text())
    assert {one["grid"]: (one["passes"], one["steps"]) for one in record["candidates"]}["1x1x4"] == (4, 4)
    told = [
        line.removeprefix("Caution: ") for line in done.output.splitlines() if line.startswith("Caution: ")
    ]
    assert told == [f"{caution}." for caution in record["cautions"]]
    assert len(told) == 2
    line = next(line for line in done.output.splitlines() if "1x1x4" in line)
    assert line.split()[7:9] == ["4", "4"]


def test_cores_are_those_of_the_machine_that_was_measured_or_given(store, measured, tmp_path):
    first, file = measured
    own = len(own_cores())
    assert f"nodes of {own} cores (those of this machine)" in first.output
    assert json.loads(file.read_text())["cores_per_node"] == own
    given = invoke(store, "--calibration", file, "--base-batch", 20, *SMALL, "--cores", 77)
    assert "nodes of 77 cores (--cores)" in given.output


def test_static_memory_is_opened_and_counts(store, measured, tmp_path):
    rows = np.ones((12, 6), np.float32)
    learned = {"method": "embedding", "name": "x", "train_end": 140, "learned_end": 100}
    origin = StaticOrigin(events=EventStore.open(store).checksum, settings={}, report={}, **learned)
    write_static_store(tmp_path / "x.static.h5", rows, origin)
    options = [*SMALL, "--base-batch", 20, "--static"]
    assert "/nowhere" in str(invoke(store, *options, "/nowhere.static.h5", "--no-calibration").exception)
    done = invoke(store, *options, tmp_path / "x.static.h5", "--calibration", measured[1])
    assert "dim_static was 0, is 6" in str(done.exception)


def test_a_given_local_batch_is_taken_from_a_calibration_of_several(store, measured, tmp_path):
    record = json.loads(measured[1].read_text())
    (one,) = record["calibration"]
    record["calibration"].append(one | {"settings": one["settings"] | {"local_batch": 40}})
    measured[1].write_text(json.dumps(record))
    file = tmp_path / "again.json"
    done = invoke(store, "--calibration", measured[1], "--local-batch", 40, *SMALL, "--json", file)
    assert done.exit_code == 0, done.output
    assert [one["local_batch"] for one in json.loads(file.read_text())["local_batches"]] == [40]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory-per-node", "lots"], "write 64G, 512M or 1.5T"),
        (["--plot", "x.svg"], "--captured"),
        (["--grid", "1x1x1"], "No such option"),
        (["--no-calibration", "--memory-per-node", "1K"], "at least one replica"),
        (["--calibration", "/nowhere/x.json"], "cannot be read"),
    ],
)
def test_plans_that_cannot_be(store, options, message):
    done = invoke(store, *options)
    assert done.exit_code != 0
    told = str(done.exception) if isinstance(done.exception, DisttglError) else done.output
    assert message in told


def test_settings_of_a_file_count_but_for_the_grid(store, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("local_batch = 35\ndim_memory = 8\n")
    done = invoke(store, "--config", settings, "--no-calibration")
    assert done.output.splitlines()[-1].endswith("--local-batch 35 --dim-memory 8 --grid 1x1x1")
    settings.write_text('grid = "1x1x1"\n')
    for grid in (["--config", settings], ["--set", "grid=1x1x1"]):
        error = str(invoke(store, *grid, "--no-calibration").exception)
        assert "grid" in error
        assert "1x1x1" in error


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an MPI launcher")
def test_training_chooses_its_grid(store, tmp_path):
    training = [
        "--grid",
        "auto",
        "--epochs",
        "2",
        "--local-batch",
        "35",
        "--evaluation-negatives",
        "3",
        *SMALL,
    ]
    command = [
        sys.executable,
        "-m",
        "disttgl_hpc",
        "train",
        str(store),
        "--run",
        str(tmp_path / "run"),
        *training,
    ]
    done = subprocess.run(
        ["timeout", "100", "mpiexec", "-n", "3", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["grid"] == "1x1x2"
    assert "disttgl plan says why" in done.stderr
