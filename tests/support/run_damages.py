"""Damage to a run directory that has two checkpoints or more: what a sync tool, an editor or a mistake may leave.

Each function damages a run and draws from a random.Random; files that must stay as they are lie in ``outside``.
"""

import json
import os
from functools import partial

from disttgl_hpc.store.checkpoint_files import read_manifest, write_manifest


def best_missing(run, outside, draws):
    change_last_sweep(run, lambda record: record.pop("best"))


def best_changed(changes, run, outside, draws):
    change_last_sweep(run, lambda record: record["best"].update(changes))


def best_names_another(run, outside, draws):
    steps = {read_manifest(folder).attributes["step"] for folder in run.whole_checkpoints}
    best_changed({"step": draws.choice(sorted(steps - {run.read_best().step}))}, run, outside, draws)


def change_last_sweep(run, change):
    """Change the last record of a sweep in place."""
    records = run.records()
    change([record for record in records if record["record"] == "sweep"][-1])
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))


def cut(name, run, outside, draws):
    content = getattr(run, name).read_bytes()
    getattr(run, name).write_bytes(content[: draws.randrange(len(content))])


def link_to_file(name, run, outside, draws):
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(outside / "letter.txt")


def link_to_folder(run, outside, draws):
    (run.checkpoints / f"step-{draws.choice([1, 10**6]):09d}").symlink_to(outside / "letters")


def newest_moved_and_linked(run, outside, draws):
    newest = run.whole_checkpoints[-1]
    newest.rename(outside / newest.name)
    newest.symlink_to(outside / newest.name)


def swapped(run, outside, draws):
    one, other = draws.sample(run.whole_checkpoints, 2)
    one.rename(run.path / "one")
    other.rename(one)
    (run.path / "one").rename(other)


def other_step(run, outside, draws):
    manifest = read_manifest(draws.choice(run.whole_checkpoints))
    step = draws.choice([0, manifest.attributes["step"] + 1, 10**9])
    write_manifest(manifest.folder, manifest.checksums, manifest.attributes | {"step": step})


def records_missing(run, outside, draws):
    run.metrics_file.unlink()


def records_empty(run, outside, draws):
    os.truncate(run.metrics_file, 0)


def last_record_missing(run, outside, draws):
    lines = run.metrics_file.read_bytes().splitlines(keepends=True)
    run.metrics_file.write_bytes(b"".join(lines[:-1]))


def foreign_file(run, outside, draws):
    for folder in run.whole_checkpoints:
        (folder / ".nfs000001").write_text("x")


def foreign_folder(run, outside, draws):
    for folder in run.whole_checkpoints:
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "x").write_text("x")


def file_named_like_a_step(run, outside, draws):
    (run.checkpoints / f"step-{draws.choice([2, 10**6 + 1]):09d}").write_text("x")


DAMAGES = {
    "no best sweep": best_missing,
    "a best sweep of a step that is not there": partial(best_changed, {"step": 10**6}),
    "a best sweep of another step": best_names_another,
    "a best sweep with a NaN": partial(best_changed, {"score": float("nan")}),
    "a best sweep with another score": partial(best_changed, {"score": 0.99}),
    "lock a link": partial(link_to_file, "lock"),
    "report.html a link": partial(link_to_file, "report.html"),
    "metrics.jsonl a link": partial(link_to_file, "metrics.jsonl"),
    "a link named like a step": link_to_folder,
    "the newest checkpoint a link": newest_moved_and_linked,
    "two checkpoints swapped": swapped,
    "a manifest of another step": other_step,
    "metrics.jsonl missing": records_missing,
    "metrics.jsonl empty": records_empty,
    "metrics.jsonl cut": partial(cut, "metrics_file"),
    "metrics.jsonl without its last record": last_record_missing,
    "a foreign file in checkpoints": foreign_file,
    "a foreign folder in checkpoints": foreign_folder,
    "a file named like a step": file_named_like_a_step,
}


def make_outside(folder):
    """Files outside a run, which links in it lead to."""
    (folder / "letters").mkdir(parents=True)
    for name in ("letter.txt", "letters/one.txt", "letters/node-0.h5"):
        (folder / name).write_text("dear reader\n")


def contents(folder):
    """Bytes of every file below a folder, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
