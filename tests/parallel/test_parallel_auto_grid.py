"""The grid that is chosen for the ranks that were started: all agree, and a refusal names what they can change."""

import numpy as np
import pytest

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import GridError
from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.planning import grid_choice as plan_grid

CONFIG = TrainConfig(dim_memory=8, local_batch=25)


@pytest.fixture
def stream():
    src, dst, time = np.arange(200) % 7, np.arange(200) % 11, np.arange(200)
    index = build_tcsr(src, dst, time, 11)
    return EventStream("seven and eleven", 11, 0, src, dst, time, Split(140, 170), index)


@pytest.mark.ranks(3)
def test_all_ranks_take_the_grid_that_the_least_room_allows(comm, stream, on_all_ranks, monkeypatch):
    monkeypatch.setattr(
        plan_grid, "room_for_node_memory", lambda trainers: 10**9 * (trainers == 2) - comm.rank
    )

    def body():
        assert plan_grid.auto_grid(stream, CONFIG, comm, 1000) == GridShape(1, 1, 2)

    on_all_ranks(body)


@pytest.mark.ranks(3)
def test_the_refusal_of_a_started_job_names_what_it_can_change(comm, stream, on_all_ranks, monkeypatch):
    monkeypatch.setattr(plan_grid, "room_for_node_memory", lambda trainers: 1000)

    def body():
        with pytest.raises(GridError, match=r"and has 1,000: .*start fewer ranks") as refused:
            plan_grid.auto_grid(stream, CONFIG, comm, 1000)
        assert "--memory-per-node" not in str(refused.value)

    on_all_ranks(body)
