"""TGB's datasets: its split, its negatives, and its metrics on the same scores."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from prepare_inputs import run
from run_helpers import SMALL

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.evaluation.candidates import Candidates, check_negatives, held_out_parts
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.evaluation.heuristics import best_half_life, heuristic_scores
from disttgl_hpc.evaluation.metrics import link_metrics, mid_ranks, ranked
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.model.input_builder import InputBuilder, build_model
from disttgl_hpc.planning.run_plan import batching_of

pytest.importorskip("tgb")
NUM_EVENTS, NUM_USERS, NUM_PAGES = 200, 12, 9


def tgb(module):
    """A module of TGB, whose imports warn of their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return __import__(f"tgb.linkproppred.{module}", fromlist=["tgb"])


@pytest.fixture
def wiki(tmp_path):
    """A small tgbl-wiki as TGB stores it: users and pages count from 0 each, negatives are pages."""
    folder = tmp_path / "tgbl_wiki"
    folder.mkdir()
    rng = np.random.default_rng(0)
    users, pages = rng.integers(0, NUM_USERS, NUM_EVENTS), rng.integers(0, NUM_PAGES, NUM_EVENTS)
    users[0], pages[:NUM_PAGES] = NUM_USERS - 1, np.arange(NUM_PAGES)
    times, features = np.sort(rng.integers(0, 150, NUM_EVENTS)), rng.integers(-5, 5, (NUM_EVENTS, 2)) / 4
    rows = zip(users, pages, times, times * 0, *features.T, strict=True)
    header = "user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"
    text = header + "".join(",".join(str(value) for value in row) + "\n" for row in rows)
    (folder / "tgbl-wiki_edgelist_v2.csv").write_text(text)
    begins = np.quantile(times, [0.7, 0.85])
    parts = {"val": (times > begins[0]) & (times <= begins[1]), "test": times > begins[1]}
    negatives = {}
    for part, mask in parts.items():
        negatives[part] = {
            (user, NUM_USERS + page, time): rng.permutation(np.delete(np.arange(NUM_PAGES), page))[
                : rng.integers(1, 6)
            ]
            + NUM_USERS
            for user, page, time in zip(users[mask], pages[mask], times[mask], strict=True)
        }
        (folder / f"tgbl-wiki_{part}_ns_v2.pkl").write_bytes(pickle.dumps(negatives[part]))
    (tmp_path / "in.csv").write_text(text)
    return folder, negatives


@pytest.mark.parametrize("bipartite", [True, False])
def test_events_split_and_negatives_are_tgbs(tmp_path, wiki, bipartite):
    folder, negatives = wiki
    store = run(tmp_path, folder, format="tgb", bipartite=bipartite, chunk_events=37)
    stream, ids = store.stream, store.node_ids()
    if bipartite:
        plain = run(tmp_path / "tgbl_wiki", tmp_path / "in.csv", format="jodie").stream
        for name in ("src", "dst", "time", "edge_features"):
            np.testing.assert_array_equal(getattr(stream, name), getattr(plain, name))
    bounds = stream.split.train_end, stream.split.validation_end, NUM_EVENTS
    for first, last, part, given in zip(
        bounds,
        bounds[1:],
        ("val", "test"),
        (stream.validation_negatives, stream.test_negatives),
        strict=False,
    ):
        assert len(given) == last - first
        for event, row in zip(range(first, last), given, strict=True):
            key = ids[stream.src[event]], ids[stream.dst[event]], stream.time[event]
            assert ids[row[row >= 0]].tolist() == negatives[part][key].tolist()
    assert run(tmp_path, folder, format="tgb", bipartite=bipartite).checksum == store.checksum
    assert [name for name, _ in store.sources] == [
        "tgbl-wiki_edgelist_v2.csv",
        "tgbl-wiki_val_ns_v2.pkl",
        "tgbl-wiki_test_ns_v2.pkl",
    ]


def by_tgb(monkeypatch, positive, negatives):
    """Mean of TGB's MRR and Hits@10, event by event; its float32 as float64."""
    evaluator = tgb("evaluate").Evaluator(name="tgbl-wiki")
    ask = {"eval_metric": ["mrr", "hits@"]}
    with monkeypatch.context() as patch:
        patch.setattr(np, "float32", np.float64)
        found = [
            evaluator.eval(ask | {"y_pred_pos": own[None], "y_pred_neg": others[None]})
            for own, others in zip(positive, negatives, strict=True)
        ]
    return [np.mean([one[name] for one in found]) for name in ("mrr", "hits@10")]


def test_metrics_are_tgbs(monkeypatch):
    """On scores with ties, which both rank in the middle, and varying numbers of negatives."""
    rng = np.random.default_rng(1)
    positive, negatives = rng.integers(0, 6, 300).astype(float), rng.integers(0, 6, (300, 40)).astype(float)
    counted = np.arange(40) < rng.integers(1, 41, (300, 1))
    ours = link_metrics(positive, negatives, counted)
    lists = [row[there] for row, there in zip(negatives, counted, strict=True)]
    assert [ours.mrr, ours.hits_at_10] == pytest.approx(by_tgb(monkeypatch, positive, lists), abs=1e-12)
    # TGB rounds each event's reciprocal rank to float32.
    evaluator = tgb("evaluate").Evaluator(name="tgbl-wiki")
    for own, others, rank in zip(positive, lists, mid_ranks(positive, negatives, counted), strict=True):
        ask = {"eval_metric": ["mrr"], "y_pred_pos": own[None], "y_pred_neg": others[None]}
        assert evaluator.eval(ask)["mrr"] == np.float32(1 / rank)


def test_an_evaluation_among_given_negatives_is_tgbs(tmp_path, wiki, monkeypatch):
    """The model's scores of the candidates, ranked by TGB."""
    from disttgl_hpc.evaluation import evaluator as evaluate

    stream = run(tmp_path, wiki[0], format="tgb", bipartite=True).stream
    config = TrainConfig(**SMALL, evaluation_strategy="given")
    evaluator = Evaluator(
        stream,
        config,
        batching_of(stream, config, GridShape(1, 1, 1)),
        InputBuilder(stream, torch.device("cpu")),
        Team(),
    )
    state, seen = np.zeros((stream.num_nodes, 2 * SMALL["dim_memory"]), np.float32), []
    monkeypatch.setattr(evaluate, "ranked", lambda *given: (seen.append(given), ranked(*given))[1])
    for part in held_out_parts(stream, config):
        found = evaluator.evaluate(build_model(stream, config), state, part).links
        scores, _, counted = seen.pop()
        positive, negatives = scores[:, 0], scores[:, 1:]
        asked = evaluator.candidates.of(part.first, part.last)[:, 1:]
        given = stream.validation_negatives if part.name == "validation" else stream.test_negatives
        assert (asked[counted] == given[given >= 0]).all()
        lists = [row[there] for row, there in zip(negatives, counted, strict=True)]
        expected = by_tgb(monkeypatch, positive, lists)
        assert [found.mrr, found.hits_at_10] == pytest.approx(expected, abs=1e-9)
        assert evaluator.candidates.num_negatives(part) == max(map(len, lists))


def test_heuristics_do_not_count_padding(tmp_path, wiki):
    """Ranks equal those among each event's own negatives alone."""
    stream = run(tmp_path, wiki[0], format="tgb", bipartite=True).stream
    config = TrainConfig(**SMALL, evaluation_strategy="given")
    candidates, (_, test) = Candidates(stream, config), held_out_parts(stream, config)
    bounds = test.first, test.last
    counted = candidates.counted(*bounds)
    asked = candidates.of(*bounds)
    half_life = best_half_life(stream, *bounds, asked, counted=counted)
    for name, scores in heuristic_scores(stream, *bounds, asked, half_life):
        alone = [
            dict(heuristic_scores(stream, event, event + 1, row[None, [True, *there]], half_life))[name]
            for event, row, there in zip(range(*bounds), asked, counted, strict=True)
        ]
        expected = np.mean([link_metrics(one[:, 0], one[:, 1:]).mrr for one in alone])
        found = link_metrics(scores[:, 0], scores[:, 1:], counted)
        assert found.mrr == pytest.approx(expected, abs=1e-12)


def test_missing_negatives_are_refused(tmp_path, wiki):
    stream = run(tmp_path, tmp_path / "in.csv", format="jodie").stream
    with pytest.raises(ConfigError, match="prepare"):
        check_negatives(stream, TrainConfig(**SMALL, evaluation_strategy="given"))


def test_missing_files_are_refused_with_a_download_command(tmp_path, wiki):
    (wiki[0] / "tgbl-wiki_test_ns_v2.pkl").unlink()
    for place, name in ((wiki[0], "tgbl-wiki"), (type(tmp_path)("tgbl-review"), "tgbl-review")):
        with pytest.raises(InputError, match=rf"{name} are missing.*download"):
            run(tmp_path, place, format="tgb")


def test_damaged_files_and_other_tasks_are_refused(tmp_path, wiki):
    with pytest.raises(InputError, match="tgbl-"):
        run(tmp_path, tmp_path, format="tgb")
    (wiki[0] / "tgbl-wiki_val_ns_v2.pkl").write_bytes(b"no pickle")
    with pytest.raises(InputError, match="cannot read tgbl-wiki"):
        run(tmp_path, wiki[0], format="tgb")
    (wiki[0] / "tgbl-wiki_val_ns_v2.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="negatives"):
        run(tmp_path, wiki[0], format="tgb")
