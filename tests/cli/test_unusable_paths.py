"""Paths that lead nowhere or to a folder where a file must be read or written: one line, no traceback."""

import pytest
from command_line import disttgl
from run_helpers import make_store, small_options

EVENTS = "random.events.h5"
TRAIN = " ".join(map(str, small_options(epochs=1, trace_steps=2)))
LINES = [
    f"train {EVENTS} --run new --static loop.h5 {TRAIN}",
    f"train {EVENTS} --run new --batches loop.h5 --negative-sets 1 {TRAIN}",
    "report loop",
    "evaluate static",
    "embed static out.h5",
    "classify run",
    *(f"train {EVENTS} --run {name} {TRAIN}" for name in ("config", "metrics", "trace")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store, two runs, links to themselves, and runs to be begun in each of which one file's name is a folder's."""
    made = tmp_path_factory.mktemp("paths")
    store = make_store(made, num_classes=3)
    disttgl("train", store.path, "--run", made / "run", *small_options(epochs=1))
    static = made / "loop.h5"
    disttgl("pretrain", store.path, static, "--kind", "static-gnn", "--epochs", 1, "--dim-memory", 8)
    disttgl("train", store.path, "--run", made / "static", "--static", static, *small_options(epochs=1))
    static.unlink()
    for name in ("loop", "loop.h5"):
        (made / name).symlink_to(name)
    for name in (
        "run/classify.json",
        "config/config.json",
        "metrics/metrics.jsonl",
        "trace/trace.json",
    ):
        (made / name / "x").mkdir(parents=True)
    return made


@pytest.mark.parametrize("line", LINES)
def test_a_path_that_cannot_be_used_is_named_in_one_line(folder, monkeypatch, line):
    monkeypatch.chdir(folder)
    done = disttgl(*line.split(), check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Error: ") == 1
