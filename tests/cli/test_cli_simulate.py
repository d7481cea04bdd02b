"""``disttgl simulate`` on a made-up record."""

import json

import pytest
from click.testing import CliRunner
from run_helpers import make_store, small_options
from scaling_records import scaling_record

from disttgl_hpc.cli.simulate import simulate
from disttgl_hpc.cli.train import train
from disttgl_hpc.errors import ConfigError, DisttglError


@pytest.fixture
def record(tmp_path):
    file = tmp_path / "one.json"
    file.write_text(json.dumps(scaling_record([[0.05, 0.07] * 5, [0.06, 0.06] * 5])))
    return file


def invoke(record, *options):
    return CliRunner().invoke(simulate, [str(record), *map(str, options)])


def test_a_prediction_is_printed_plotted_and_written(record, tmp_path):
    pytest.importorskip("matplotlib")
    figure, file = tmp_path / "scaling.svg", tmp_path / "scaling.json"
    done = invoke(record, "--max-trainers", 32, "--plot", figure, "--json", file)
    assert done.exit_code == 0, done.output
    told = json.loads(file.read_text())
    assert [one["grid"] for one in told["measured"]] == ["1x1x1"]
    assert [one["trainers"] for one in told["predicted"]] == [1, 2, 4, 8, 16, 32]
    assert [one["nodes"] for one in told["predicted"]] == [1, 1, 1, 1, 2, 4]
    assert figure.stat().st_size > 10_000
    measured, predicted = done.output.split("\n\n")
    assert measured.splitlines()[2].split()[0] == "1x1x1"
    assert [line.split()[0] for line in predicted.splitlines()[2:8]] == [
        one["grid"] for one in told["predicted"]
    ]


def test_figures_of_the_machine_change_the_prediction(record, tmp_path):
    file = tmp_path / "scaling.json"
    slow = ["--bandwidth", "1e6", "--trainers-per-node", 2, "--minibatch", 2, "--max-trainers", 8]
    assert invoke(record, *slow, "--json", file).exit_code == 0
    last = json.loads(file.read_text())["predicted"][-1]
    assert (last["grid"], last["nodes"], last["bottleneck"]) == ("2x1x4", 4, "gradient sum")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bandwidth", "0"], "'--bandwidth'"),
        (["--trainers-per-node", "4", "--epoch", "3"], "multiple of 3"),
        (["--grids", "1x1x3@2"], "cannot be spread evenly over 2 nodes"),
        (["--grids", "1x1x3", "--minibatch", "1"], "--minibatch"),
        (["--json", "/nowhere/x.json"], "folder"),
        (["--plot", "x.events"], "end its name in .svg"),
    ],
)
def test_usage_errors(record, options, message):
    done = invoke(record, *options)
    assert done.exit_code != 0
    assert message in (str(done.exception) if isinstance(done.exception, DisttglError) else done.output)


def test_named_grids_take_any_number_of_nodes(record, tmp_path):
    file = tmp_path / "scaling.json"
    done = invoke(record, "--grids", "1x1x9@3,1x2x1", "--json", file)
    assert done.exit_code == 0, done.output
    told = json.loads(file.read_text())
    assert [(one["grid"], one["nodes"]) for one in told["predicted"]] == [("1x2x1", 1), ("1x1x9", 3)]
    assert told["machine"]["cores"] == 4, "three trainers of a node, and one more"


def test_the_time_is_of_training_only(record):
    done = invoke(record, "--max-trainers", 1)
    assert "excludes the validation" in done.output
    heads = done.output.split("\n\n")[1].splitlines()[:2]
    assert [head.split()[-1] for head in heads] == ["training", "time"]


def test_a_plan_calibrates_with_its_local_batch(record, tmp_path):
    one = json.loads(record.read_text())
    other = scaling_record([[0.5] * 10] * 2, events=1200)
    plan, file = tmp_path / "plan.json", tmp_path / "scaling.json"
    plan.write_text(json.dumps({"local_batch": 600, "calibration": [other, one]}))
    assert invoke(plan, "--max-trainers", 1, "--json", file).exit_code == 0
    assert json.loads(file.read_text())["calibration"]["events"] == pytest.approx(600)
    plan.write_text(json.dumps({"local_batch": 600, "calibration": []}))
    assert "without --no-calibration" in str(invoke(plan).exception)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grids": []}'])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "one.json").write_text(text)
    error = invoke(tmp_path / "one.json").exception
    assert isinstance(error, ConfigError)
    assert "disttgl bench scaling" in str(error)


def test_a_run_calibrates_with_its_recorded_phases(tmp_path):
    store = make_store(tmp_path)
    run = ["--run", tmp_path / "run", *small_options()]
    assert CliRunner().invoke(train, [str(word) for word in (store.path, *run)]).exit_code == 0
    done = invoke(tmp_path / "run", "--max-trainers", 2)
    assert done.exit_code == 0, done.output
    assert "a processor that the run did not record" in done.output
    assert "Assumed: phases and the loading thread" in done.output
