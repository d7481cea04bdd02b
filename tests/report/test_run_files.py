import json
from contextlib import suppress
from itertools import product

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
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(**SMALL).as_dict() | {"grid": "2x1x1"} | settings
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


NAME = {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "daemon of node 0"}}
THREAD = {"ph": "M", "name": "thread_name", "pid": 0, "tid": 0, "args": {"name": "replica 0"}}
STEP = {"ph": "X", "name": "step", "pid": 0, "tid": 0, "ts": 0.0, "dur": 9.0, "args": {"step": 1}}
READ = {"ph": "X", "name": "read", "pid": 0, "tid": 0, "ts": 1.0, "dur": 3.0, "args": {"counter": 1}}
EVENTS = [NAME, THREAD, STEP, READ]


def trace(events):
    """A trace with these events."""
    return {"otherData": {"kind": "disttgl-trace"}, "traceEvents": events}


def odd_traces():
    """Traces of which one event is missing or odd."""
    yield trace([THREAD, STEP, READ])
    yield trace([NAME, STEP, READ])
    for number, event in enumerate(EVENTS):
        for field in event:
            for odd in (None, {}, "x", 1e18, float("nan"), {"counter": "1"}):
                yield trace([*EVENTS[:number], {**event, field: odd}, *EVENTS[number + 1 :]])


@pytest.mark.parametrize("events", [EVENTS, EVENTS[:3], EVENTS[:2], [], [{**STEP, "dur": 0.0}, *EVENTS[:2]]])
def test_traces_with_few_events_are_shown(tmp_path, events):
    folder = write_run(tmp_path / "run", tmp_path / "gone")
    (folder / "trace.json").write_text(json.dumps(trace(events)))
    assert render_report([read_run(folder, "run")])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"traceEvents": []}',
        '{"otherData": {"kind": "disttgl-trace"}, "traceEvents": [{"ph": "X"}]}',
        json.dumps(trace([THREAD, STEP, READ])),
        json.dumps(trace([NAME, THREAD, {**STEP, "args": {}}])),
        json.dumps(trace([NAME, THREAD, {**STEP, "ts": "1"}])),
    ],
)
def test_a_damaged_trace_is_refused_with_a_remedy(tmp_path, content):
    folder = write_run(tmp_path / "run", tmp_path / "gone")
    (folder / "trace.json").write_text(content)
    with pytest.raises(StoreError, match=r"trace\.json: .*restore or delete"):
        read_run(folder, "run")


RANKS = {"rank": [0, 1], "node": [0, 0], "resident_mib": [1.0, 1.0], "peak_mib": [2.0, 2.0]}
RANKS |= {"read": [0.1, 0.1], "train": [1.0, 1.0], "evaluate": [0.1, 0.1]}
COURSE = {"step": [2, 4], "loss": [0.6, 0.4], "elapsed_s": [0.1, 0.2]}
TIMING = {
    "train_s": 1.0,
    "evaluate_s": 0.1,
    "events_per_s": 4.0,
    "course": COURSE,
    "trainers": RANKS,
    "daemons": {},
}
TEST = {"record": "test", "best_sweep": 1, "validation": {"mrr": 0.5}, "test": {"mrr": 0.5}}


def odd_timings():
    """Timings of which one field is odd."""
    for name in TIMING:
        for odd in (None, "1", [1], {"rank": 3}, 1e301, 10**400, float("inf"), True):
            if not (odd is True and name in ("course", "trainers", "daemons")):
                yield {**TIMING, name: odd}
    for name, table in (("course", COURSE), ("trainers", RANKS)):
        for column, values in table.items():
            for odd in (None, values[:1], ["1", "2"], [None, 1.0], [1e301, 1.0], {}):
                yield {**TIMING, name: {**table, column: odd}}
    yield {**TIMING, "trainers": {name: RANKS[name] for name in ("rank", "read")}}
    yield {**TIMING, "trainers": {name: values for name, values in RANKS.items() if name != "evaluate"}}


@pytest.mark.parametrize(
    "record",
    [
        SWEEP | {"loss": "low"},
        SWEEP | {"loss": 10**400},
        SWEEP | {"validation": [1]},
        SWEEP | {"timing": None},
        SWEEP | {"sweep": {}},
        SWEEP | {"step": True},
        SWEEP | {"events": float("nan")},
        SWEEP | {"timing": TIMING | {"train_s": "1"}},
        SWEEP | {"timing": TIMING | {"course": {"step": [1, 2], "loss": [0.5]}}},
        SWEEP | {"timing": TIMING | {"trainers": {"rank": [0], "read": [1.0]}}},
        SWEEP | {"timing": TIMING | {"trainers": RANKS | {"read": [1.0, None]}}},
        TEST | {"heuristics": {"edgebank": 0.5}},
        TEST | {"baselines": [1]},
        TEST | {"test": "0.5"},
    ],
)
def test_a_damaged_record_is_refused_with_a_remedy(tmp_path, record):
    folder = write_run(tmp_path / "run", tmp_path / "gone", [json.dumps(record) + "\n"])
    with pytest.raises(StoreError, match=r"metrics\.jsonl"):
        read_run(folder, "run")


def test_odd_records_and_traces_are_refused_or_shown(tmp_path):
    """Nothing else happens: no error that the report does not expect."""
    folder = write_run(tmp_path / "run", tmp_path / "gone")
    for timing in odd_timings():
        (folder / "metrics.jsonl").write_text(json.dumps(SWEEP | {"timing": timing}) + "\n")
        refused_or_shown(folder)
    for one in odd_traces():
        (folder / "trace.json").write_text(json.dumps(one))
        refused_or_shown(folder)
    (folder / "trace.json").unlink()
    for name, odd in product(
        ("grid", "local_batch", "seed", "events", "lr"), (None, [], {}, "\0", 10**400, 1e999)
    ):
        write_run(folder, odd if name == "events" else "gone", **({} if name == "events" else {name: odd}))
        refused_or_shown(folder)


def refused_or_shown(folder):
    """Read a run and render its report, unless it is refused."""
    with suppress(StoreError):
        render_report([read_run(folder, "run")])


def test_whole_records_are_shown(tmp_path):
    odd = {"mrr": 10**400, "hits_at_10": float("inf"), "f1_micro": "x", "inductive": {"mrr": True}}
    lines = [
        json.dumps(SWEEP | {"timing": TIMING, "validation": odd}) + "\n",
        json.dumps(TEST | {"test": odd}) + "\n",
    ]
    run = read_run(write_run(tmp_path / "run", tmp_path / "gone", lines), "run")
    assert "Memory by rank" in render_report([run])


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
