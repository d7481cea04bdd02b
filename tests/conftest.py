"""Tests that communicate: how many ranks they want, and verdicts that no rank gives alone.

Plain pytest runs the one-rank tests and skips the rest. Under mpiexec only tests that take ``comm`` are run:
the others would but repeat themselves on every rank.
"""

import traceback

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time: a change does not fail for what another one might have met. Others, and more of a
# search: pytest --hypothesis-profile default. A slow machine fails no test.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(config, items):
    items.sort(
        key=lambda item: item.get_closest_marker("slow") is None
    )  # so that no process waits for a slow one at the end
    communicating = [item for item in items if "comm" in item.fixturenames]
    if not communicating:
        return
    from mpi4py import MPI

    if MPI.COMM_WORLD.size > 1:
        config.hook.pytest_deselected(items=[item for item in items if item not in communicating])
        items[:] = communicating


@pytest.fixture
def comm(request):
    """The first n ranks that were started, n from the test's ``ranks`` marker; other ranks skip its body."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    wanted = request.node.get_closest_marker("ranks").args[0]
    if world.size < wanted:
        pytest.skip(f"needs mpiexec -n {wanted}")
    part = world.Split(0 if world.rank < wanted else MPI.UNDEFINED, world.rank)
    if part == MPI.COMM_NULL:
        pytest.skip(f"runs on the first {wanted} ranks")
    yield part
    part.Free()


@pytest.fixture
def on_all_ranks(comm):
    """Run a body on every rank of ``comm`` and fail on all of them if it fails on one."""

    def run(body):
        failure = None
        try:
            body()
        except (Exception, pytest.fail.Exception):
            failure = traceback.format_exc()
        failures = comm.allgather(failure)
        assert not any(failures), "\n".join(f"rank {r}: {f}" for r, f in enumerate(failures) if f)

    return run
