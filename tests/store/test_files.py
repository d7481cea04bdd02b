"""Files on the way to their names: what killed writers leave, file systems without locks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import small_options

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


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory):
    """A library that refuses every lock when it is preloaded, as a file system without locks does."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("no_locks") / "no_locks.so"
    source = Path(__file__).parents[1] / "support" / "no_locks.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


# What a user types on such a file system, in one process, since each start takes seconds.
COMMANDS = """
import fcntl, sys
from command_line import disttgl
with open("lock", "w") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        raise SystemExit("a lock was granted")
    except OSError:
        pass
for words in {commands}:
    done = disttgl(*words.split(), check=False)
    print(done.returncode, words)
    print(done.stderr, file=sys.stderr)
"""


@pytest.mark.slow
def test_every_command_works_where_locks_are_refused(tmp_path, no_locks):
    (tmp_path / "in.csv").write_text("src,dst,time\n" + "".join(f"{k % 7},{k % 5},{k}\n" for k in range(200)))
    small = " ".join(map(str, small_options(epochs=1)))
    commands = [
        "prepare in.csv x.events.h5",
        "inspect x.events.h5",
        "doctor x.events.h5 --threads 1",
        f"train x.events.h5 --run run {small}",
        "update run",
        "embed run all.h5",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    environment |= {"LD_PRELOAD": f"{no_locks}", "PYTHONPATH": f"{Path(__file__).parents[1] / 'support'}"}
    script = COMMANDS.format(commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"0 {words}" for words in commands], done.stderr
    assert "no second job" in done.stderr
