"""Writes checkpoints in a child process that is killed at its n-th operation on the file system, for every n.

python checkpoint_kills.py FOLDER: leaves the number of kills in FOLDER/kills. After each, the newest whole
checkpoint must be one of the two latest, with the contents that were written, and the best one must be there.
"""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.planning.run_plan import Before
from disttgl_hpc.store.checkpoint_files import read_checkpoint
from disttgl_hpc.training.checkpoints import RunCheckpoints, newest_whole
from disttgl_hpc.training.run_directory import RunDirectory

PLAN = SimpleNamespace(
    before=Before(), num_batches=3, sweep_ends=range(2, 99, 3), epochs_per_sweep=1, shape=GridShape(1, 1, 2)
)
COUNTERS = range(5)


def main(folder: Path) -> None:
    """Kill one operation later each time, until nothing is left to kill."""
    kills = 0
    while True:
        run = RunDirectory(folder / f"run-{kills}")
        run.checkpoints.mkdir(parents=True)
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            kill_at(kills)
            write_all(run, tell)
            os._exit(0)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        completed = len(os.read(told, 100))
        os.close(told)
        assert_whole(run, completed)
        if status == 0:
            break
        kills += 1
    (folder / "kills").write_text(f"{kills}")


def arrays(counter, node):
    """What a node writes after batch ``counter``."""
    return {f"memory/{node}": np.full((40, 4), counter, np.float32), "weights/w": np.arange(counter + 1.0)}


def write_all(run, tell):
    """All checkpoints of two nodes; a byte for each complete one. The first sweep is the best."""
    writers = [RunCheckpoints(run, PLAN, node, {"checksum": "0"}, keep=1) for node in range(2)]
    for counter in COUNTERS:
        checksums = [writer.write_part(counter, arrays(counter, n)) for n, writer in enumerate(writers)]
        writers[0].complete(counter, checksums)
        os.write(tell, b".")
        if counter == 2:
            run.record("sweep", {"sweep": 1, "step": 3, "best": {"step": 3, "sweep": 1, "score": 0.5}})


def kill_at(number):
    """Have this process killed before the ``number``-th operation."""
    left = [number]

    def killing(operation):
        def counted(*arguments, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return operation(*arguments, **options)

        return counted

    os.fsync = lambda _: None  # counted, but for a process that dies it makes no difference
    for name in ("fsync", "unlink", "mkdir", "rmdir", "rename", "replace"):
        setattr(os, name, killing(getattr(os, name)))
    for name in ("write_text", "open"):
        setattr(Path, name, killing(getattr(Path, name)))
    h5py.File.create_dataset = killing(h5py.Group.create_dataset)
    h5py.File.close = killing(h5py.File.close)


def assert_whole(run, completed):
    """The newest whole checkpoint is the last completed one or, if its manifest just made it, the next."""
    newest = newest_whole(run, "1x1x2")
    if newest is None:
        assert completed == 0
        return
    counter = newest.attributes["step"] - 1
    assert counter in (completed - 1, completed)
    for node in range(2):
        stored = read_checkpoint(newest.part(node)).arrays
        for name, array in arrays(counter, node).items():
            assert np.array_equal(stored[name], array)
    if completed > 3:
        assert run.best_checkpoint.is_file()
    run.begin({}, newest.attributes["step"], Before())  # as a resumed run does: what is not whole goes
    assert all((folder / "manifest.json").exists() for folder in run.checkpoints.glob("step-*"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
