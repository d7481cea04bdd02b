"""Files on the way to their names: what killed writers leave."""

import os
import subprocess
import sys

import pytest

from disttgl_hpc.store.files import replacing, working_folder

# A process that is killed while it writes NAME in the current folder, beside a folder of temporary files.
KILLED = """
import os, signal
from pathlib import Path
from disttgl_hpc.store.files import replacing, working_folder
with working_folder(Path("{name}")) as folder, replacing(Path("{name}")) as partial:
    (folder / "spill").write_bytes(b"rows")
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(tmp_path):
    """A folder in which writers of "store.h5" and of "store.h5.old" were killed."""
    for name in ("store.h5", "store.h5.old"):
        subprocess.run([sys.executable, "-c", KILLED.format(name=name)], cwd=tmp_path, check=False)
    assert len(list(tmp_path.iterdir())) == 4
    return tmp_path


@pytest.mark.parametrize("writer", [replacing, working_folder])
def test_the_next_writer_removes_what_a_killed_one_left(left, writer):
    with writer(left / "store.h5") as own:
        if writer is replacing:
            own.write_bytes(b"whole")
    assert all(".store.h5.old." in path.name for path in left.iterdir() if path.name != "store.h5")
    assert len([path for path in left.iterdir() if path.name.startswith(".")]) == 2


def test_what_may_still_be_written_is_kept_and_mentioned(left, caplog):
    """Files of a process that lives, or that is of another machine, and links."""
    (partial,) = (path for path in left.glob(".store.h5.*.partial") if ".old." not in path.name)
    machine, number = partial.name.split(".")[-3:-1]
    alive = partial.rename(partial.with_name(partial.name.replace(f".{number}.", f".{os.getppid()}.")))
    elsewhere = partial.with_name(partial.name.replace(machine, "0" * len(machine)))
    elsewhere.write_bytes(b"half")
    (left / "precious").mkdir()
    (left / "precious" / "file").touch()
    link = partial.with_name(partial.name.replace("partial", "folder").replace(number, f"{1 << 22}"))
    link.symlink_to(left / "precious")
    with replacing(left / "store.h5") as own:
        own.write_bytes(b"whole")
    assert {alive, elsewhere, link} <= set(left.iterdir())
    assert (left / "precious" / "file").exists()
    assert {record.args[0] for record in caplog.records} == {f"{path}" for path in (alive, elsewhere, link)}
