"""Room in shared memory: nothing is allocated that does not fit, and MPI is not loaded where it has no room."""

import sys
from types import SimpleNamespace

import pytest
from command_line import DISTTGL, needs_mpi, with_small_shared_memory
from run_helpers import make_store, small_options

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid import shared_memory
from disttgl_hpc.grid.shared_memory import check_room, check_room_for_mpi, free_shared_memory


def test_shared_memory_is_limited():
    assert 0 < free_shared_memory() < 2**60


def test_what_mpi_may_take_is_left_to_it(monkeypatch):
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    alone = free_shared_memory()
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    assert 30 * 2**20 < free_shared_memory() < alone < 64 * 2**20
    check_room(30 * 2**20, "windows")
    with pytest.raises(GridError, match=r"windows need 60\.0 MiB .*--shm-size"):
        check_room(60 * 2**20, "windows")
    monkeypatch.setenv("MPI_LOCALNRANKS", "99")
    assert free_shared_memory() == 0
    with pytest.raises(GridError, match="MPI's buffers need"):
        check_room_for_mpi()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "command"),
    [
        ("64k", [*DISTTGL, "inspect", "events.h5"]),
        ("64k", [sys.executable, "-c", "import disttgl_hpc; disttgl_hpc.load_run('run')"]),
        pytest.param("8m", ["mpiexec", "-n", "2", *DISTTGL, "doctor"], marks=needs_mpi),
    ],
)
def test_a_program_that_mpi_has_no_room_for_says_so(size, command):
    done = with_small_shared_memory(size, command)
    assert done.returncode in {1, 2}, done
    assert "--shm-size" in done.stderr
    assert "Bus error" not in done.stderr


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_gradients_that_shared_memory_cannot_hold_are_refused(tmp_path, command):
    """Of the table of static memory, and of the model: the node memory before them has room."""
    if command == "pretrain":
        store = make_store(tmp_path, num_events=2000, num_nodes=50_000)
        words = [2, store.path, tmp_path / "out.h5", "--kind", "static-gnn", "--epochs", 1]
    else:
        store = make_store(tmp_path)
        words = [3, store.path, "--run", tmp_path / "run", *small_options(dim_embedding=2000, num_heads=1)]
    ranks, *words = map(str, words)
    done = with_small_shared_memory("40m", ["mpiexec", "-n", ranks, *DISTTGL, command, *words])
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the trainers' gradients need" in done.stderr
    assert "Bus error" not in done.stdout + done.stderr
