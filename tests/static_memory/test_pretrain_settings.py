"""Settings of pre-training: where they come from, and which it rejects or ignores."""

import tomllib

import pytest

from disttgl_hpc.config import TrainConfig, toml_text
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.static_memory.pretrain import DEFAULTS, log, pretrain_config

PLAIN = tomllib.loads(toml_text(TrainConfig()))


@pytest.fixture
def said(monkeypatch):
    """Lines logged at level info."""
    lines = []
    monkeypatch.setattr(log, "info", lambda text, *values: lines.append(text % values))
    return lines


def test_a_file_of_all_defaults_leaves_those_of_the_method(said):
    config = pretrain_config("static-gnn", {}, PLAIN)
    own = DEFAULTS["static-gnn"]
    assert {name: getattr(config, name) for name in own} == own
    assert config == pretrain_config("static-gnn", {}, {})
    assert said[0].startswith("static-gnn uses epochs 30, lr 0.03, local_batch 6000, static_decay 1e-05")


def test_a_file_wins_over_defaults_and_what_is_given_over_both():
    file = {**PLAIN, "epochs": 4, "lr": 0.2, "local_batch": 50}
    config = pretrain_config("static-gnn", {"lr": 0.001, "local_batch": 600}, file)
    assert (config.epochs, config.lr, config.local_batch, config.static_decay) == (4, 0.001, 600, 1e-5)


def test_unused_settings_are_rejected_when_given_and_logged_when_from_a_file(said):
    with pytest.raises(ConfigError, match=r"grid, device: .*static-gnn"):
        pretrain_config("static-gnn", {"grid": "1x1x2", "device": "cpu", "epochs": 2}, {})
    with pytest.raises(ConfigError, match=r"task: .*embedding"):
        pretrain_config("embedding", {"task": "edge"}, {})
    assert pretrain_config("embedding", {"grid": "1x1x2"}, {"task": "edge"}).grid == "1x1x2"
    assert said[-1].endswith("ignored: task edge")
    assert not pretrain_config("static-gnn", {}, {"grid": "1x1x2", "comb": "mean"}).grid
    assert said[-2].endswith("ignored: grid 1x1x2, comb mean")
    with pytest.raises(ConfigError, match="griid"):
        pretrain_config("static-gnn", {}, {"griid": "1x1x2"})


@pytest.mark.parametrize("method", DEFAULTS)
def test_given_negatives_become_random_ones_and_the_log_says_so(said, method):
    assert pretrain_config(method, {}, {"evaluation_strategy": "given"}).evaluation_strategy == "random"
    assert any("given negatives" in line for line in said)
    said.clear()
    kept = pretrain_config(method, {"evaluation_strategy": "historical"}, {})
    assert kept.evaluation_strategy == "historical"
    assert not any("given negatives" in line for line in said)
