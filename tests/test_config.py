"""Settings: refused with rule, value and remedy, whoever gives them."""

import dataclasses

import pytest

from disttgl_hpc.config import TrainConfig, read_toml, train_config
from disttgl_hpc.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1: got 0"),
        ({"dropout": 1.0}, "dropout must be below 1.0: got 1.0"),
        ({"lr": float("nan")}, "lr must be finite.*nan.*0.001"),
        ({"timeout_s": float("inf")}, "timeout_s must be finite: got inf"),
        ({"epochs": 10**5000}, "epochs must be below 2147483648: got a number of more than 30 digits"),
        ({"dim_memory": 10**9}, "dim_memory must be below 65536: got 1000000000"),
        ({"epochs": 2.0}, "epochs must be int: got 2.0"),
        ({"epochs": True}, "epochs must be int: got True"),
        ({"scale_lr": True}, "scale_lr must be str: got True"),
        ({"time_encoding": "none"}, "must be one of learned, log-learned, fixed: got 'none'"),
        ({"dim_embedding": 101}, "dim_embedding.*multiple of num_heads.*101.*100"),
        ({"local_bach": 5}, "unknown setting 'local_bach': did you mean local_batch"),
        ({"zzz": 5}, "unknown setting 'zzz': known are epochs"),
    ],
)
def test_a_bad_setting_is_refused_with_its_remedy(settings, message):
    with pytest.raises(ConfigError, match=message):
        train_config(settings)


def test_integers_pass_for_floats():
    assert train_config({"lr": 1}).lr == 1


def test_later_sources_win():
    assert train_config({"seed": 1, "epochs": 2}, {"seed": 3}) == TrainConfig(seed=3, epochs=2)


def test_settings_survive_being_written_down():
    config = TrainConfig(seed=3, grid="2x1x1")
    assert train_config(config.as_dict()) == config


def test_the_dataset_has_no_say():
    """Settings have no default that depends on the data: each is a plain value of the class."""
    for setting in dataclasses.fields(TrainConfig):
        assert setting.default is not dataclasses.MISSING


@pytest.mark.parametrize("text", ["epochs = ", "\x00", "[train"])
def test_a_broken_file_is_named(tmp_path, text):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.toml: cannot be read as TOML"):
        read_toml(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")


def test_a_table_in_the_file_is_an_unknown_setting(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[train]\nepochs = 1\n")
    with pytest.raises(ConfigError, match="unknown setting 'train'"):
        train_config(read_toml(file))
