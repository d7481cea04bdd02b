"""``disttgl plan`` in one process."""

import json
import sys

import pytest
from click.testing import CliRunner

from disttgl_hpc.cli.plan import plan
from disttgl_hpc.cli.prepare import prepare
from disttgl_hpc.errors import ConfigError


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
        (["--captured", "--batch-sizes", "0"], "at least one event"),
        (["--captured", "--plot", "/nowhere/x.svg"], "no such folder"),
        (["--captured", "--plot", "x.events"], "end its name in .svg"),
        (["--captured", "--json", "/nowhere/x.json"], "no such folder"),
    ],
)
def test_usage_errors(store, options, message):
    done = invoke(store, *options)
    assert done.exit_code != 0
    told = str(done.exception) if isinstance(done.exception, ConfigError) else done.output
    assert message in told
