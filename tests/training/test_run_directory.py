"""Damaged run directories: a resumed run ends as an undamaged one, or an error says what to restore."""

import json
import os
import shutil

import pytest
from run_helpers import make_store
from run_records import records
from serial_jobs import job
from stored_states import assert_same_state

from disttgl_hpc.errors import ConfigError, DisttglError, StoreError
from disttgl_hpc.store.checkpoint_files import _digest, checkpoint_folder
from disttgl_hpc.training.run_directory import RunDirectory

BATCHES = 7  # of a sweep
OPTIONS = {"epochs": 5, "checkpoint_steps": 2, "keep_checkpoints": 4, "lr": 0.05}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("events"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, store):
    """A finished run."""
    run = RunDirectory(tmp_path_factory.mktemp("whole") / "run")
    assert job(run.path, store, **OPTIONS)
    return run


@pytest.fixture(scope="module")
def half(tmp_path_factory, store):
    """The same run, stopped in its fourth sweep."""
    run = RunDirectory(tmp_path_factory.mktemp("half") / "run")
    assert not job(run.path, store, stop_after=3 * BATCHES + 3, **OPTIONS)
    return run


@pytest.fixture
def run(tmp_path, half):
    """A copy of the stopped run, to be damaged."""
    return RunDirectory(shutil.copytree(half.path, tmp_path / "run"))


def lines(run, *numbers, **changes):
    """Write only these lines of metrics.jsonl, with values changed in the last of them."""
    found = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    kept = [found[number] for number in numbers]
    kept[-1] |= changes
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in kept))


def swap(run, one, other):
    """Give two checkpoints each other's names."""
    folders = [checkpoint_folder(run.checkpoints, step) for step in (one, other)]
    folders[0].rename(run.path / "aside")
    folders[1].rename(folders[0])
    (run.path / "aside").rename(folders[1])


def rewrite_manifest(run, folder, name=None, **changes):
    """Change a manifest, with a right checksum, and rename its folder."""
    folder = checkpoint_folder(run.checkpoints, folder)
    values = json.loads((folder / "manifest.json").read_text())
    values["attributes"] |= changes
    values["sha256"] = _digest({key: values[key] for key in ("checksums", "attributes")})
    (folder / "manifest.json").write_text(json.dumps(values))
    if name is not None:
        folder.rename(checkpoint_folder(run.checkpoints, name))


def cut(file):
    """Cut the second half of the last line off a file."""
    file.write_bytes(file.read_bytes()[:-400])


HARMLESS = {
    "last record missing": lambda run: lines(run, 0, 1),
    "last record cut": lambda run: cut(run.metrics_file),
    "two checkpoints swapped": lambda run: swap(run, 22, 24),
    "manifest of another step": lambda run: rewrite_manifest(run, 24, step=10**9),
    "files of others": lambda run: [
        ((folder / ".ipynb_checkpoints").mkdir(), (folder / ".nfs0001").touch())
        for folder in run.whole_checkpoints
    ],
    "a folder like a partial file": lambda run: (run.path / ".lock.1.partial").mkdir(),
    "a checkpoint that is a link": lambda run: link_to_folder(run, checkpoint_folder(run.checkpoints, 28)),
}
"""Damage that a resumed run makes good."""

REFUSED = {
    "no records": (lambda run: run.metrics_file.unlink(), "missing"),
    "empty records": (lambda run: run.metrics_file.write_text(""), "missing"),
    "a middle record missing": (lambda run: lines(run, 0, 2), "sweep 2 is missing"),
    "no best sweep": (lambda run: lines(run, 0, 1, 2, best=None), "best"),
    "best sweep without a checkpoint": (
        lambda run: lines(run, 0, 1, 2, best={"step": 14, "sweep": 2, "score": 0.9}),
        "best",
    ),
    "best sweep of another score": (
        lambda run: lines(run, 0, 1, 2, best={"step": 21, "sweep": 3, "score": 0.9}),
        "best",
    ),
    "best sweep with a NaN score": (
        lambda run: lines(run, 0, 1, 2, best={"step": 21, "sweep": 3, "score": float("nan")}),
        "best",
    ),
    "best checkpoint missing": (lambda run: shutil.rmtree(run.best_checkpoint.parent), "best"),
    "best checkpoint damaged": (lambda run: run.best_checkpoint.write_bytes(b""), "best"),
    "best and last checkpoints swapped": (lambda run: swap(run, 21, 24), "own name"),
    "checkpoint of a step beyond the end": (
        lambda run: rewrite_manifest(run, 24, name=10**9, step=10**9),
        r"35 steps",
    ),
    "fewer epochs in the configuration": (
        lambda run: run.config_file.write_text(
            json.dumps({**json.loads(run.config_file.read_text()), "epochs": 1})
        ),
        "epochs 5",
    ),
    "records are a folder": (lambda run: (run.metrics_file.unlink(), run.metrics_file.mkdir()), "metrics"),
    "records are a pipe": (lambda run: (run.metrics_file.unlink(), os.mkfifo(run.metrics_file)), "metrics"),
    "a file named like a checkpoint": (
        lambda run: checkpoint_folder(run.checkpoints, 28).touch(),
        "move it elsewhere",
    ),
}
"""Damage that ends a resumed run with an error, and a word of it."""


def link_to_folder(run, name):
    """Put a link to a folder with files in place of ``name``."""
    outside = run.path.parent / "outside"
    outside.mkdir(exist_ok=True)
    for file in ("manifest.json", "node-0.h5", "diary.txt"):
        (outside / file).write_text("mine")
    name.symlink_to(outside)
    return outside


@pytest.mark.parametrize("damage", HARMLESS.values(), ids=HARMLESS)
def test_damage_that_changes_no_result(run, store, whole, damage):
    damage(run)
    outside = contents(run.path.parent / "outside")
    assert job(run.path, store, resume=True)
    assert records(run.path) == records(whole.path)
    assert_same_state(run, whole)
    assert contents(run.path.parent / "outside") == outside


def contents(folder):
    """The bytes of a folder's files."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("damage", "word"), REFUSED.values(), ids=REFUSED)
def test_damage_that_is_refused_before_anything_is_removed(run, store, damage, word):
    damage(run)
    before = sorted(path for path in run.path.rglob("*"))
    with pytest.raises(DisttglError, match=word):
        job(run.path, store, resume=True)
    assert sorted(path for path in run.path.rglob("*")) == before


def test_a_sweep_keeps_its_record_when_a_finished_run_is_trained_further(tmp_path, store, whole):
    run = RunDirectory(shutil.copytree(whole.path, tmp_path / "run"))
    before = run.records()
    assert job(run.path, store, resume=True, epochs=6)
    assert run.records()[:5] == before[:5]


def test_a_sweep_that_this_job_only_validated_has_no_speed(run, store):
    lines(run, 0, 1)
    assert job(run.path, store, resume=True)
    speeds = [sweep["timing"].get("events_per_s") for sweep in run.sweeps()]
    assert speeds[2] is None
    assert all(speed > 0 for number, speed in enumerate(speeds) if number != 2)


def test_a_tested_run_without_its_test_is_tested_again(tmp_path, store, whole):
    run = RunDirectory(shutil.copytree(whole.path, tmp_path / "run"))
    lines(run, 0, 1, 2, 3, 4)
    assert job(run.path, store, resume=True)
    assert records(run.path) == records(whole.path)


def test_a_live_run_is_not_said_to_be_in_the_way(run, store):
    with run.locked(), pytest.raises(ConfigError, match="is training") as found:
        job(run.path, store)
    assert "remove" not in f"{found.value}"
    with pytest.raises(ConfigError, match="remove"):
        job(run.path, store)


@pytest.mark.parametrize("name", ["lock", "checkpoints"])
def test_parts_of_a_run_that_are_links_are_refused(run, store, name):
    part, outside = run.path / name, run.path.parent / "outside"
    part.rename(outside)
    (outside if outside.is_file() else outside / "diary.txt").write_text("mine")
    part.symlink_to(outside)
    before = contents(run.path.parent)
    with pytest.raises(StoreError, match=name):
        job(run.path, store, resume=True)
    assert contents(run.path.parent) == before


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "trace.json"])
def test_files_that_are_links_are_replaced_and_what_they_name_is_left_alone(run, store, whole, name):
    file, outside = run.path / name, run.path.parent / "outside"
    if file.exists():
        shutil.copyfile(file, outside)
    else:
        outside.write_text("mine")
    file.unlink(missing_ok=True)
    file.symlink_to(outside)
    before = outside.read_bytes()
    assert job(run.path, store, resume=True, trace_steps=1, trace_after=1)
    assert outside.read_bytes() == before
    assert not file.is_symlink()
    assert records(run.path) == records(whole.path)


def test_a_run_directory_may_be_a_link(run, store, whole, tmp_path):
    (tmp_path / "link").symlink_to(run.path)
    assert job(tmp_path / "link", store, resume=True)
    assert records(run.path) == records(whole.path)


def test_a_run_is_removed_with_its_own_files_only(run):
    (run.path / "diary.txt").write_text("mine")
    outside = link_to_folder(run, checkpoint_folder(run.checkpoints, 28))
    before = contents(outside)
    run.remove()
    assert [path.name for path in run.path.rglob("*")] == ["diary.txt"]
    assert contents(outside) == before
