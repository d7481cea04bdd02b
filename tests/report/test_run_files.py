import json

import h5py
import pytest
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import StoreError
from disttgl_hpc.report.page import render_report
from disttgl_hpc.report.run_files import read_run, read_runs, write_tensorboard

SWEEP = {"record": "sweep", "sweep": 1, "step": 4, "loss": 0.5, "validation": {"mrr": 0.25}}


def write_run(folder, events, lines=(), **settings):
    """Files of a run, as far as reports read them."""
    folder.mkdir(parents=True)
    config = TrainConfig(**SMALL | {"grid": "2x1x1"} | settings).as_dict()
    config |= {"events": str(events), "checksum": "c" * 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_a_run_is_read_though_a_kill_has_left_half_a_record(tmp_path):
    events = make_store(tmp_path).path
    run = read_run(write_run(tmp_path / "run", events, [json.dumps(SWEEP) + "\n", '{"record": "sw']), "run")
    assert [sweep["step"] for sweep in run.sweeps] == [4]
    assert (run.test, run.trace, run.last_step, run.stream) == (None, None, None, "random")
    assert [one["batch"] for one in run.captured] == [25, 50], "of a slice, and of the global batch"
    assert 0 < run.captured[1]["share"] < run.captured[0]["share"] < 1
    assert "not finished: 1 sweep" in render_report([run])


def test_a_run_that_has_only_begun_is_read(tmp_path):
    folder = write_run(tmp_path / "run", make_store(tmp_path).path)
    (folder / "metrics.jsonl").unlink()
    assert read_run(folder, "run").sweeps == []


def test_events_that_are_gone_leave_staleness_out(tmp_path, caplog):
    run = read_run(
        write_run(tmp_path / "run", tmp_path / "gone.events.h5", [json.dumps(SWEEP) + "\n"]), "run"
    )
    assert run.captured == []
    assert "gone.events.h5" in caplog.text
    assert "Staleness of the memory" not in render_report([run])


@pytest.mark.parametrize("name", ["tcsr/neighbors", "tcsr/event_ids", "tcsr/indptr", "events/src"])
def test_damaged_events_leave_staleness_out(tmp_path, caplog, name):
    events = make_store(tmp_path).path
    with h5py.File(events, "r+") as file:
        file[name][5] = 1 << 30
    assert read_run(write_run(tmp_path / "run", events), "run").captured == []
    assert name in caplog.text


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = [write_run(tmp_path / place / "run", tmp_path / "gone") for place in ("a", "b")]
    other = write_run(tmp_path / "other", tmp_path / "gone")
    assert [run.name for run in read_runs([*paths, other])] == [*map(str, paths), "other"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"traceEvents": []}',
        '{"otherData": {"kind": "disttgl-trace"}, "traceEvents": [{"ph": "X"}]}',
    ],
)
def test_a_damaged_trace_is_refused_with_a_remedy(tmp_path, content):
    folder = write_run(tmp_path / "run", tmp_path / "gone")
    (folder / "trace.json").write_text(content)
    with pytest.raises(StoreError, match=r"trace\.json: .*restore or delete"):
        read_run(folder, "run")


@pytest.mark.parametrize("change", [{"loss": "low"}, {"validation": [1]}, {"timing": None}, {"sweep": {}}])
def test_a_damaged_record_is_refused_with_a_remedy(tmp_path, change):
    folder = write_run(tmp_path / "run", tmp_path / "gone", [json.dumps(SWEEP | change) + "\n"])
    with pytest.raises(StoreError, match=r"metrics\.jsonl: .*damaged"):
        read_run(folder, "run")


def test_a_record_without_a_loss_or_with_none_that_is_a_number_has_no_point(tmp_path):
    lines = [
        json.dumps({"record": "sweep", "step": 4}) + "\n",
        json.dumps(SWEEP | {"loss": float("nan")}) + "\n",
    ]
    run = read_run(write_run(tmp_path / "run", tmp_path / "gone", lines), "run")
    assert run.curve("loss", "steps") == ([], [])
    assert "Validation MRR" in render_report([run])


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="run directory"):
        read_runs([tmp_path])


def test_tensorboard_gets_curves_and_results(tmp_path):
    accumulation = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record = {"record": "test", "test": {"mrr": 0.5}, "validation": {"mrr": 0.25}}
    lines = [json.dumps(one) + "\n" for one in (SWEEP, SWEEP | {"sweep": 2, "step": 8}, record)]
    run = read_run(write_run(tmp_path / "run", tmp_path / "gone", lines), "run")
    write_tensorboard([run], tmp_path / "board")
    found = accumulation.EventAccumulator(str(tmp_path / "board" / "run")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("validation/MRR")] == [(4, 0.25), (8, 0.25)]
    assert [event.step for event in found.Scalars("loss/training")] == [4, 8]
    assert [event.value for event in found.Scalars("test/MRR")] == [0.5]
