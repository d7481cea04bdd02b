"""``disttgl report`` and ``schedule`` as a user types them, and the timeline of a run under mpiexec."""

import json
import os
import shutil
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import disttgl, needs_mpi

from disttgl_hpc.cli.report import report
from disttgl_hpc.cli.schedule import schedule
from disttgl_hpc.errors import ConfigError, DisttglError, StoreError
from disttgl_hpc.grid.spans import PHASES

pytestmark = pytest.mark.slow

FIRST, COUNT, NUM_BATCHES = 5, 4, 14
SMALL = (
    "--epochs 8 --local-batch 10 --dim-memory 8 --dim-time 6 --dim-embedding 8 --num-neighbors 4 "
    "--evaluation-batch 20 --evaluation-negatives 9"
)
TRACE = f"--grid 1x2x2 --trace-steps {COUNT} --trace-after {FIRST}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two sweeps of 14 steps on four trainers and a daemon, of which four steps are traced."""
    if shutil.which("mpiexec") is None:
        pytest.skip("needs an MPI launcher")
    folder = tmp_path_factory.mktemp("reports")
    ends = np.random.default_rng(0).integers(0, 30, (200, 2))
    lines = "".join(f"{one} {other} {time}\n" for time, (one, other) in enumerate(ends))
    (folder / "toy.txt").write_text(lines)
    disttgl("prepare", folder / "toy.txt", folder / "toy.events.h5")
    options = f"{SMALL} {TRACE}".split()
    disttgl("train", folder / "toy.events.h5", "--run", folder / "run", *options, ranks=5)
    return folder / "run"


@pytest.fixture(scope="module")
def trace(run):
    return json.loads((run / "trace.json").read_text())


def spans_of(trace, pid, tid):
    """(name, begin, end, what is told) of a track's spans in their order, µs."""
    return [
        (event["name"], event["ts"], event["ts"] + event["dur"], event.get("args", {}))
        for event in trace["traceEvents"]
        if event["ph"] == "X" and (event["pid"], event["tid"]) == (pid, tid)
    ]


def test_a_sweeps_record_tells_of_every_rank(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sweeps = [record for record in records if record["record"] == "sweep"]
    assert [sweep["events"] for sweep in sweeps] == [140 * 4 - 2 * 10, 140 * 4], (
        "lanes begin one after the other"
    )
    for sweep in sweeps:
        timing = sweep["timing"]
        trainers, daemons = timing["trainers"], timing["daemons"]
        assert trainers["rank"] == [0, 1, 2, 3]
        assert daemons["rank"] == [4]
        assert all(len(column) == 4 for column in trainers.values())
        assert set(PHASES) <= set(trainers)
        for rank in range(4):
            spent = sum(trainers[phase][rank] for phase in PHASES)
            assert 0 < spent <= trainers["train"][rank] + 1e-2
        assert min(daemons["read"] + daemons["write"] + daemons["wait"]) > 0
        assert min(trainers["resident_mib"] + daemons["resident_mib"]) > 1
        course = timing["course"]
        assert course["step"] == list(range(sweep["step"] - NUM_BATCHES + 1, sweep["step"] + 1))
        assert 0 < min(course["loss"]) <= sweep["loss"] <= max(course["loss"])


def test_every_rank_has_tracks_and_phases_lie_within_steps(trace):
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert [("daemon" if "daemon" in names[rank] else "trainer") for rank in sorted(names)] == [
        *["trainer"] * 4,
        "daemon",
    ]
    for rank in range(4):
        spans = spans_of(trace, rank, 0)
        steps = [span for span in spans if span[0] == "step"]
        assert [about["step"] for *_, about in steps] == list(range(FIRST, FIRST + COUNT))
        for (_, _, end, _), (_, begin, _, _) in pairwise(steps):
            assert end <= begin + 0.2
        phases = [span for span in spans if span[0] != "step"]
        assert {"sample", "read", "inputs", "forward", "write", "backward", "reduce", "optimiser"} == {
            name for name, *_ in phases
        }
        for name, begin, end, _ in phases:
            assert name in PHASES
            assert any(first - 0.2 <= begin and end <= last + 0.2 for _, first, last, _ in steps)
        assert all(name == "load" for name, *_ in spans_of(trace, rank, 1))
    assert trace["otherData"] | {"clock_error_us": 0} == {
        "kind": "disttgl-trace",
        "schema_version": 1,
        "grid": "1x2x2",
        "first_step": FIRST,
        "last_step": FIRST + COUNT - 1,
        "clock_error_us": 0,
    }


def test_the_daemon_serves_reads_and_writes_in_the_schedules_order_and_before_they_are_taken(trace):
    """R(c) W(c) R(c+1) …, each done before the next; and no trainer has its rows before they were read."""
    for replica in (0, 1):
        served = spans_of(trace, 4, replica)
        order = [(name, about["counter"]) for name, _, _, about in served]
        assert order == [(name, c) for c in range(FIRST, FIRST + COUNT) for name in ("read", "write")]
        assert {about["replica"] for *_, about in served} == {replica}
        for (_, _, end, _), (_, begin, _, _) in pairwise(served):
            assert end <= begin + 0.2
        begins = defaultdict(dict)
        for name, begin, _, about in served:
            begins[name][about["counter"]] = begin
        for lane in (0, 1):
            spans = spans_of(trace, 2 * replica + lane, 0)
            steps = {about["step"]: (begin, end) for name, begin, end, about in spans if name == "step"}
            for step, (first, last) in steps.items():
                within = {
                    name: (begin, end) for name, begin, end, _ in spans if first <= begin and end <= last
                }
                assert ("read" in within) == ("write" in within) == (step % 2 == lane)
                if step % 2 == lane:
                    assert begins["read"][step] <= within["read"][1] + 0.2
                    assert begins["write"][step] >= within["write"][0] - 0.2


def test_a_report_is_one_file_with_the_timeline_in_it(run, tmp_path):
    told = disttgl("report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{run / 'report.html'}: " in told.stdout
    assert len(page) < 3 << 20
    for text in (
        "1×2×2",
        "Where the time goes",
        "A window of steps",
        "read of batch 6",
        "rank 4 · daemon",
        "PopTrack",
    ):
        assert text in page
    again = disttgl("report", run, "-o", tmp_path / "other.html", "--plots", tmp_path / "plots")
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == page
    charts = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert {"timeline.svg", "memory-by-rank.svg", "validation-mrr-by-events.svg"} <= set(charts)
    assert f"{len(charts)} charts" in again.stdout


def test_under_mpiexec_one_rank_speaks(run, tmp_path):
    told = disttgl("report", run, "-o", tmp_path / "page.html", ranks=2)
    assert told.stdout.count("page.html: ") == 1


def test_a_resumed_run_may_be_traced_anew(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    disttgl("train", "--resume", copy, "--epochs", "12", "--trace-after", "1", "--trace-steps", "2", ranks=5)
    found = json.loads((copy / "trace.json").read_text())["otherData"]
    assert (found["first_step"], found["last_step"]) == (2 * NUM_BATCHES + 1, 2 * NUM_BATCHES + 2)
    assert CliRunner().invoke(report, [str(copy)], catch_exceptions=False).exit_code == 0


@needs_mpi
def test_a_single_process_is_traced_as_well(run, tmp_path):
    options = f"{SMALL} --epochs 1 --trace-steps 2".split()
    disttgl("train", run.parent / "toy.events.h5", "--run", tmp_path / "run", *options)
    found = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert {event["pid"] for event in found["traceEvents"]} == {0}
    assert len([span for span in spans_of(found, 0, 0) if span[0] == "step"]) == 2
    CliRunner().invoke(report, [str(tmp_path / "run")], catch_exceptions=False)
    assert "A window of steps" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_nothing_but_a_report_is_replaced(run, tmp_path):
    (tmp_path / "notes.html").write_text("mine")
    with pytest.raises(ConfigError, match="report"):
        CliRunner().invoke(report, [str(run), "-o", str(tmp_path / "notes.html")], catch_exceptions=False)
    assert (tmp_path / "notes.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.html", "plots/timeline.svg", "board/run"])
def test_a_report_is_not_written_through_a_link(run, tmp_path, name):
    copy = shutil.copytree(run, tmp_path / "run")
    place, outside = copy / name, tmp_path / "outside"
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    if name == "board/run":
        pytest.importorskip("tensorboard")
        outside.mkdir()
    place.symlink_to(outside)
    options = ["--plots", copy / "plots", *(["--tensorboard", copy / "board"] if outside.exists() else [])]
    done = CliRunner().invoke(report, [str(word) for word in (copy, *options)])
    assert isinstance(done.exception, StoreError) if outside.exists() else not place.is_symlink()
    assert not outside.exists() or not list(outside.iterdir())


@pytest.mark.parametrize("name", ["report.html", "metrics.jsonl", "config.json", "trace.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_folder_or_pipe_in_place_of_a_file_is_one_line(run, tmp_path, name, make):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    assert isinstance(CliRunner().invoke(report, [str(copy)]).exception, DisttglError)


def test_a_schedule_is_told_and_drawn(tmp_path):
    files = ["-o", str(tmp_path / "s.svg"), "--grid-picture", str(tmp_path / "g.svg")]
    done = CliRunner().invoke(schedule, ["1x1x2", "--batches", "3", *files], catch_exceptions=False)
    assert done.output.splitlines()[0] == "| step | replica 0, lane 0 | replica 1, lane 0 |"
    assert "| 2 | batch 2, pass 0 R W | batch 0, pass 0 R W (memory zeroed) |" in done.output
    assert all((tmp_path / name).read_text().startswith("<svg") for name in ("s.svg", "g.svg"))
