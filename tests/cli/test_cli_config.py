"""Settings: as a TOML file, by --set, by option; and what every command has in common."""

import importlib
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from command_line import disttgl

from disttgl_hpc.cli import _COMMANDS
from disttgl_hpc.cli.config import config
from disttgl_hpc.config import TrainConfig, read_toml, train_config
from disttgl_hpc.errors import ConfigError


def printed(*words):
    result = CliRunner().invoke(config, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def settings_in(text, folder):
    file = folder / "printed.toml"
    file.write_text(text, encoding="utf-8")
    return train_config(read_toml(file))


def test_the_defaults_are_a_file_that_train_takes(tmp_path):
    text = printed("--defaults")
    assert settings_in(text, tmp_path) == TrainConfig()
    assert "# Passes over the training events" in text
    assert "One of float32, bfloat16." in text


def test_options_win_over_set_which_wins_over_the_file(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("epochs = 2\nseed = 2\nlr = 0.5\n")
    own = ["--config", file, "--set", "epochs=3", "--set", "seed=3", "--seed", 4]
    found = settings_in(printed(*own), tmp_path)
    assert (found.epochs, found.seed, found.lr) == (3, 4, 0.5)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("epochs=3", "epochs", 3),
        ("local-batch = 50", "local_batch", 50),
        ("lr=1e-3", "lr", 0.001),
        ("pair_features=true", "pair_features", True),
        ("grid=1x2x2", "grid", "1x2x2"),
        ("static=a=b.h5", "static", "a=b.h5"),
    ],
)
def test_a_setting_is_read_as_what_it_is(text, name, value, tmp_path):
    assert getattr(settings_in(printed("--set", text), tmp_path), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "'epochs' must be NAME=VALUE, as in epochs=5"),
        ("=5", "'=5' must be NAME=VALUE"),
        ("epochs=many", "epochs must be int: got 'many'"),
        ("epochs=2.5", "epochs must be int: got 2.5"),
        ("pair_features=on", r"pair_features must be bool \(true or false\): got 'on'"),
        ("epocs=3", "unknown setting 'epocs': did you mean epochs?"),
        ("precision=half", "precision must be one of float32, bfloat16: got 'half'"),
    ],
)
def test_a_setting_that_is_none_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(config, ["--set", text], catch_exceptions=False)


def test_the_settings_of_a_run_are_printed(tmp_path):
    stream, run = tmp_path / "s.events.h5", tmp_path / "run"
    disttgl("generate", stream, "--events", 300)
    disttgl("train", stream, "--run", run, "--epochs", 1, "--set", "dim_memory=8", "--seed", 5)
    found = settings_in(printed(run), tmp_path)
    assert found.time_unit > 0  # it was chosen, as the grid was
    assert found == TrainConfig(epochs=1, dim_memory=8, seed=5, grid="1x1x1", time_unit=found.time_unit)
    assert settings_in(printed(run, "--seed", 6), tmp_path).seed == 6


def test_defaults_are_printed_alone():
    with pytest.raises(click.UsageError, match="--defaults"):
        config.main(["--defaults", "--seed", "1"], standalone_mode=False)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_explains_itself_with_an_example(name):
    command = getattr(importlib.import_module(f"disttgl_hpc.cli.{name}"), name)
    several = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for one in several:
        assert one.help
        assert "disttgl" in one.epilog
        options = [option for option in one.params if isinstance(option, click.Option)]
        assert all(option.help for option in options), [option.name for option in options if not option.help]


def test_an_unknown_command_is_told_what_is_near():
    done = disttgl("trian", check=False)
    assert done.returncode == 2
    assert "No such command 'trian'. Did you mean train?" in done.stderr
    assert "prepare, generate" in disttgl("zzz", check=False).stderr


def test_a_shell_completes_commands_options_and_values():
    lines = ["disttgl tr", "disttgl train --local", "disttgl train --precision b"]
    program = """if True:
        import contextlib, os, sys
        sys.argv[0] = "disttgl"
        from disttgl_hpc.cli import main
        for line in sys.stdin.read().splitlines():
            os.environ |= {"COMP_WORDS": line, "COMP_CWORD": f"{line.count(' ')}"}
            with contextlib.suppress(SystemExit):
                main()
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"_DISTTGL_COMPLETE": "bash_complete"},
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["plain,train", "plain,--local-batch", "plain,bfloat16"]
