"""A training from Python in which one rank alone finds an error: it ends on all ranks, long before any deadline."""

import pytest
from run_helpers import SMALL, make_store

import disttgl_hpc
from disttgl_hpc.errors import PeerError, TrainingError
from disttgl_hpc.evaluation.evaluator import Evaluator
from disttgl_hpc.training import sweep_ends


@pytest.mark.ranks(3)
@pytest.mark.parametrize(
    "place", [(Evaluator, "_metrics"), (sweep_ends, "_besides")], ids=["metrics", "heuristics"]
)
def test_an_error_that_the_first_rank_finds_in_an_evaluation(
    comm, on_all_ranks, monkeypatch, tmp_path, place
):
    def fail(*_):
        raise TrainingError("a score is NaN")

    monkeypatch.setattr(*place, fail)

    def body():
        folder = comm.bcast(tmp_path)
        store = make_store(folder) if comm.rank == 0 else None
        path = comm.bcast(store and store.path)
        expected = TrainingError if comm.rank == 0 else PeerError
        with pytest.raises(expected, match="NaN" if comm.rank < 2 else "has failed"):
            disttgl_hpc.train(path, {**SMALL, "epochs": 1, "grid": "1x2x1"}, folder / "run", comm)

    on_all_ranks(body)
