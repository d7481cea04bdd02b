"""Inference: embeddings, scores and recommendations depend only on the run and on earlier events."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from mpi4py import MPI
from run_helpers import SMALL

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, InputError, StoreError
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.inference import queries
from disttgl_hpc.inference import trained_run as opening
from disttgl_hpc.inference.queries import embed, recommend, score
from disttgl_hpc.inference.trained_run import Moment, NodeIds, Trained, open_trained, update
from disttgl_hpc.ingest.append import AppendSettings, append
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.ingest.prepare import PrepareSettings, prepare
from disttgl_hpc.model.input_builder import InputBuilder
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.store.node_rows import StaticOrigin, write_static_store
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.sweep_ends import evaluate_run
from disttgl_hpc.training.train import train

COLUMNS = parse_columns("src=u,dst=v,time=t,features=x")
EVERYTHING = {"comb": "mean", "pair_features": True, "static": "co-trained", "static_dropout": 0.0}
SHORT, MIDDLE, LONG = 300, 345, 420
SPLIT_TIMES = 2 * 210, 2 * 255


def rows_of(seed=0):
    """Random events two seconds apart, a few at the same time; new nodes appear over the whole stream."""
    rng = np.random.default_rng(seed)
    latest = np.linspace(6, 40, LONG)[:, None]
    ends = (rng.random((LONG, 2)) ** 2 * latest).astype(int)
    times = 2 * np.arange(LONG) - (np.arange(LONG) % 7 == 3) * 2
    return [f"n{u},n{v},{t},{x:.3f}\n" for (u, v), t, x in zip(ends, times, rng.random(LONG), strict=True)]


def store_of(folder, name, rows, *, bipartite=True):
    (folder / f"{name}.csv").write_text("u,v,t,x\n" + "".join(rows))
    options = {"columns": COLUMNS, "bipartite": bipartite, "split_times": SPLIT_TIMES, "force": True}
    return prepare(
        PrepareSettings(inputs=(folder / f"{name}.csv",), output=folder / f"{name}.events.h5", **options)
    )


def appended(folder, name, store, rows):
    (folder / f"{name}.csv").write_text("u,v,t,x\n" + "".join(rows))
    output = folder / f"{name}.events.h5"
    return append(AppendSettings(store=store.path, inputs=(folder / f"{name}.csv",), output=output))


def trained_run(path, store, **settings):
    run = RunDirectory(path)
    train(store, TrainConfig(**{**SMALL, "epochs": 1, **settings}), run, MPI.COMM_SELF)
    return run


@pytest.fixture(scope="module", params=[{}, EVERYTHING], ids=["plain", "everything"])
def options(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def short(folder):
    return store_of(folder, "short", rows_of()[:SHORT])


@pytest.fixture(scope="module")
def run(folder, short, options):
    return trained_run(folder / f"run{len(options)}", short, **options)


def as_dict(trained, moment=None):
    """Embeddings of all nodes by kind and id, as bytes."""
    nodes, ids = np.arange(trained.stream.num_nodes), trained.ids
    rows = embed(trained, nodes, moment or trained.moment())
    kinds = ids.kinds(nodes) if ids.is_bipartite else [""] * len(nodes)
    return {(kind, f"{name}"): row.tobytes() for kind, name, row in zip(kinds, ids.all, rows, strict=True)}


def test_scores_are_those_of_the_evaluation_where_a_batch_begins(run):
    """The first event of an evaluation batch has the memory, neighbours and mail that it was ranked with."""
    trained = open_trained(run)
    stream, config = trained.stream, trained.config
    batching = batching_of(stream, config, GridShape(1, 1, 1))
    evaluator = Evaluator(stream, config, batching, trained.inputs, Team())
    with trained.memory(stream.split.train_end) as memory:
        state = memory.copy()
    compared, ends = 0, (stream.split.train_end, stream.split.validation_end, stream.num_events)
    bounds = [one for part in pairwise(ends) for one in batching.evaluation_bounds(*part)]
    for first, last in bounds:
        with torch.no_grad():
            expected = evaluator.score(trained.model, state, first, first, first + 1).links[0]
            evaluator.advance(trained.model, state, first, last)
        if stream.time[first] > stream.time[first - 1]:
            candidates = evaluator.candidates.of(first, first + 1)[0]
            src, at = (np.full(len(candidates), column[first]) for column in (stream.src, stream.time))
            assert np.allclose(score(trained, src, candidates, at), expected, atol=1e-5)
            compared += 1
    assert compared > 4


@pytest.mark.parametrize("position", [60, 133, 222, 270, 299])
def test_later_events_change_no_bit_of_an_embedding(tmp_path_factory, folder, short, monkeypatch, position):
    """Replace later events so that nodes are new, missing or renumbered: in training, validation, test."""
    path, tmp_path = folder / "later", tmp_path_factory.mktemp("later")
    run = RunDirectory(path) if path.exists() else trained_run(path, short, pair_features=True, comb="mean")
    monkeypatch.setattr(queries, "_ROOTS_AT_ONCE", 8)
    trained, rows = open_trained(run), rows_of()[:SHORT]
    moment = trained.moment(short.stream.time[position].item())
    position, at = moment.position, moment.time
    others = [f"a{k % 50},n{k % 13},{at + k // 3},9\n" for k in range(40)]
    others += [f"n{k % 5},b{k % 4},{at + 13 + k},9\n" for k in range(SHORT)]
    changed = trained_on(trained, store_of(tmp_path, "changed", [*rows[:position], *others]))
    assert changed.stream.num_nodes != trained.stream.num_nodes
    found, expected = as_dict(changed, moment), as_dict(trained, moment)
    past = {("source", row.split(",")[0]) for row in rows[:position]}
    past |= {("destination", row.split(",")[1]) for row in rows[:position]}
    assert len(past) > 15
    assert {node: found[node] for node in past} == {node: expected[node] for node in past}


def trained_on(trained, store):
    """The weights and final training memory of a run, on another stream."""
    stream = replace(store.stream, split=trained.stream.split)
    ids = NodeIds(store.node_ids(), stream.num_src)
    batching = batching_of(stream, trained.config, GridShape(1, 1, 1))
    inputs = InputBuilder(stream, torch.device("cpu"))
    other = Trained(
        trained.model, stream, ids, config=trained.config, batching=batching, inputs=inputs, origin={}
    )
    numbers = np.concatenate([find(trained, ids, name) for name in ("sources", "destinations")])

    def memory():
        with trained.memory(stream.split.train_end) as state:
            return np.where((numbers >= 0)[:, None], state[numbers], 0)

    other.start_at(stream.split.train_end, memory)
    return other


def find(trained, ids, kind):
    """Node in the run of each source or destination of another stream, −1 if missing."""
    of_kind = ids.all[ids.nodes(None, kind)]
    return trained.ids.sources(of_kind) if kind == "sources" else trained.ids.targets(of_kind)


def test_update_equals_training_on_the_whole_stream(tmp_path, folder, short, run, options, monkeypatch):
    """Two appends and updates, one pass, or preparing and training on the whole stream: the same bits."""
    rows = rows_of()
    middle = appended(tmp_path, "middle", short, rows[SHORT:MIDDLE])
    longer = appended(tmp_path, "longer", middle, rows[MIDDLE:])
    whole = store_of(tmp_path, "whole", rows)
    assert longer.checksum == whole.checksum
    at_once = as_dict(open_trained(run, longer.path))
    origin = update(run, middle.path)
    assert origin.position == MIDDLE - (MIDDLE - 256) % 20 < MIDDLE
    assert open_trained(run).stream.num_events == MIDDLE
    not_loaded(monkeypatch)
    assert as_dict(open_trained(run, longer.path)) == at_once
    origin = update(run, longer.path)
    assert origin.position == LONG - (LONG - 256) % 20 < LONG
    assert as_dict(open_trained(run)) == at_once
    monkeypatch.undo()
    early = open_trained(run).moment(2 * 260)
    assert as_dict(open_trained(run), early) == as_dict(open_trained(run, whole.path), early)
    from_start = trained_run(tmp_path / "run", whole, **options)
    assert as_dict(open_trained(from_start)) == at_once
    run.memory_file.unlink()


def not_loaded(monkeypatch):
    """Fail if the memory of the checkpoint is loaded."""
    monkeypatch.setattr(
        opening._Opened, "_checkpointed", lambda _: pytest.fail("must start from the kept memory")
    )


def test_a_store_may_be_replaced_by_a_longer_one(tmp_path):
    rows = rows_of()
    store = store_of(tmp_path, "events", rows[:SHORT])
    run = trained_run(tmp_path / "run", store)
    before = as_dict(open_trained(run))
    (tmp_path / "new.csv").write_text("u,v,t,x\n" + "".join(rows[SHORT:]))
    append(AppendSettings(store=store.path, inputs=(tmp_path / "new.csv",)))
    trained = open_trained(run)
    assert trained.stream.num_events == LONG
    found = as_dict(trained, Moment(SHORT, store.stream.time[-1].item()))
    assert {node: found[node] for node in before} == before
    with pytest.raises(StoreError, match="original store"):
        evaluate_run(run, None, MPI.COMM_SELF)


def test_a_kept_memory_of_other_weights_is_ignored(tmp_path, short, caplog):
    run = trained_run(tmp_path / "run", short)
    update(run)
    config = resumed_config(run, {"epochs": 6})
    train(short, config, run, MPI.COMM_SELF, resume=True)
    assert run.read_best().sweep > 1
    with caplog.at_level("INFO"):
        found = as_dict(open_trained(run))
    assert "other weights" in caplog.text
    run.memory_file.unlink()
    assert as_dict(open_trained(run)) == found


def test_a_static_memory_file_has_zeros_for_new_nodes(tmp_path, short):
    table = np.random.default_rng(0).normal(size=(short.stream.num_nodes, 5)).astype(np.float32)
    origin = StaticOrigin(
        method="embedding",
        events=short.checksum,
        name="",
        train_end=210,
        learned_end=200,
        settings={},
        report={},
    )
    write_static_store(tmp_path / "table.static.h5", table, origin)
    run = trained_run(tmp_path / "run", short, static=str(tmp_path / "table.static.h5"))
    longer = appended(tmp_path, "longer", short, rows_of()[SHORT:])
    rows = open_trained(run, longer.path).stream.static_memory
    trained = open_trained(run)
    numbers = np.concatenate(
        [
            find(trained, NodeIds(longer.node_ids(), longer.stream.num_src), kind)
            for kind in ("sources", "destinations")
        ]
    )
    assert (numbers < 0).any()
    np.testing.assert_array_equal(rows, np.where((numbers >= 0)[:, None], table[numbers], 0))


def test_embeddings_do_not_depend_on_the_requested_nodes(run, monkeypatch):
    monkeypatch.setattr(queries, "_ROOTS_AT_ONCE", 7)
    trained = open_trained(run)
    for at in (100, 2 * 230, None):
        moment, all_nodes = trained.moment(at), np.arange(trained.stream.num_nodes)
        expected = embed(trained, all_nodes, moment)
        nodes = np.array([11, 3, 40, 3, 0])
        np.testing.assert_array_equal(embed(trained, nodes, moment), expected[nodes])
    assert embed(trained, nodes[:0], moment).shape == (0, SMALL["dim_embedding"])


def test_scores_do_not_depend_on_order_or_other_pairs(run):
    trained = open_trained(run)
    rng, stream = np.random.default_rng(0), trained.stream
    src = rng.integers(0, stream.num_src, 40)
    dst = rng.integers(stream.num_src, stream.num_nodes, 40)
    at = rng.integers(0, 2 * SHORT, 40) // 8 * 8
    together = score(trained, src, dst, at)
    for row in (0, 7, 39):
        alone = score(trained, src[row : row + 1], dst[row : row + 1], at[row : row + 1])
        assert alone[0] == pytest.approx(together[row], abs=1e-5)
    order = rng.permutation(40)
    np.testing.assert_allclose(score(trained, src[order], dst[order], at[order]), together[order], atol=1e-5)
    ends = embed(trained, np.array([src[0], dst[0]]), trained.moment())
    assert np.isfinite(ends).all()


@pytest.mark.parametrize("bipartite", [True, False])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_recommended_are_the_best_of_all_scores(tmp_path, monkeypatch, bipartite, exclude_seen):
    """Compare with the scores of all pairs: only earlier nodes, not the node itself, in small pieces."""
    store = store_of(tmp_path, "events", rows_of()[:SHORT], bipartite=bipartite)
    trained = open_trained(trained_run(tmp_path / "run", store, pair_features=True))
    monkeypatch.setattr(queries, "_LARGEST_TABLE", 100)
    monkeypatch.setattr(queries, "_PAIRS_AT_ONCE", 20)
    stream, moment = trained.stream, trained.moment(2 * 150)
    first, last = trained.ids.destinations
    src = np.array([5, 0, 2, 9])
    found = recommend(trained, src, 6, moment, exclude_seen=exclude_seen)
    past = np.arange(stream.num_events) < moment.position
    known = set(stream.dst[past]) | (set() if bipartite else set(stream.src[past]))
    for row, node in enumerate(src):
        met = set(stream.dst[past & (stream.src == node)]) | set(stream.src[past & (stream.dst == node)])
        candidates = np.array(sorted(known - {node} - (met if exclude_seen else set())))
        assert candidates.min() >= first
        assert candidates.max() < last
        logits = score(
            trained, np.full(len(candidates), node), candidates, np.full(len(candidates), moment.time)
        )
        expected = candidates[np.argsort(-logits)[:6]]
        own = found.src == node
        assert found.rank[own].tolist() == list(range(1, len(expected) + 1))
        assert found.dst[own].tolist() == expected.tolist(), row
        np.testing.assert_allclose(found.logit[own], np.sort(logits)[::-1][:6], atol=1e-5)


def test_nothing_is_recommended_before_the_first_event(run):
    trained = open_trained(run)
    no_nodes = np.array([], np.int64)
    assert len(recommend(trained, np.array([0, 1]), 3, trained.moment(-5)).dst) == 0
    assert len(recommend(trained, no_nodes, 3, trained.moment()).dst) == 0
    assert len(score(trained, no_nodes, no_nodes, no_nodes)) == len(score(trained, no_nodes, no_nodes)) == 0


def test_integer_times_need_integers(run):
    trained = open_trained(run)
    assert trained.moment(7.0) == trained.moment(7)
    with pytest.raises(ConfigError, match=r"integer times, found 7\.5"):
        trained.moment(7.5)
    with pytest.raises(ConfigError, match=r"integer times, found 7\.5"):
        score(trained, np.array([0, 0]), np.array([40, 40]), np.array([1.0, 7.5]))


@pytest.mark.parametrize("at", [2**63, -(2**63) - 1, 1e19, float("nan"), float("inf")])
def test_times_that_no_event_can_have_are_refused(run, at):
    trained = open_trained(run)
    with pytest.raises(ConfigError, match="time"):
        trained.moment(at)


@pytest.mark.parametrize("at", [10**400, float("nan"), float("inf")])
def test_a_stream_with_other_times_needs_finite_ones(run, at):
    trained = open_trained(run)
    trained.stream = replace(trained.stream, time=trained.stream.time.astype(np.float64))
    assert trained.moment(7.5).time == 7.5
    with pytest.raises(ConfigError, match="finite"):
        trained.moment(at)


def test_ids_of_a_kind_and_unknown_ones(run):
    ids = open_trained(run).ids
    assert [ids.kinds(ids.nodes(["n1"], of)).tolist() for of in (None, "sources", "destinations")] == [
        ["source", "destination"],
        ["source"],
        ["destination"],
    ]
    with pytest.raises(InputError, match="x, y"):
        ids.nodes(["n1", "x", "y", "x"])
    numbers = NodeIds(np.array([3, 10, 9]), 0)
    assert numbers.sources(["9", " 10", "x", "-3", "3.0", "11"]).tolist() == [2, 1, -1, -1, -1, -1]
    assert numbers.targets(np.array([10, 3])).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="one set of nodes"):
        numbers.nodes(None, "sources")


def test_runs_without_node_memory_can_embed(tmp_path, short):
    trained = open_trained(trained_run(tmp_path / "run", short, node_memory=False))
    embeddings = embed(trained, np.arange(5), trained.moment())
    assert np.isfinite(embeddings).all()
    assert len(np.unique(embeddings, axis=0)) > 1
