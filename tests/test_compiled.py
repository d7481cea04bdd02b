import importlib
import os
import pkgutil
import resource
import subprocess
import sys

import numba
import pytest

import disttgl_hpc.model
from disttgl_hpc.compiled import Compilations, cache_folder, compiled, vectorized

WHOLE = """
from disttgl_hpc.compiled import compiled
{import_}

@compiled
def whole(x):
    return {piece}(x) + {constant}
"""
PART = """
from disttgl_hpc.compiled import inlined

CONSTANT = {}

@inlined
def piece(x):
    return {} * x
"""
START = """
from loops.whole import whole
print({}, sum(whole.stats.cache_hits.values()), sum(whole.stats.cache_misses.values()))
"""


class Package:
    """A package of two modules: a compiled loop, and the constant and inlined function that it uses."""

    def __init__(self, path):
        self.path = path
        (path / "loops").mkdir()
        self.write("__init__", "")
        self.write(
            "whole",
            WHOLE.format(
                import_="from loops.part import (\n    CONSTANT,\n    piece,\n)",
                piece="piece",
                constant="CONSTANT",
            ),
        )
        self.write("part", PART.format(1, 2))

    def write(self, module, text):
        (self.path / "loops" / f"{module}.py").write_text(text)

    def start(self, expression="whole(3)", **environment):
        """Start a process that evaluates an expression; it prints the value, cache hits and misses."""
        return subprocess.Popen(
            [sys.executable, "-B", "-c", START.format(expression)],
            cwd=self.path,
            env=os.environ | {"NUMBA_CACHE_DIR": str(self.path / "cache")} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, expression="whole(3)", **environment):
        """Value, hits, misses and log of a process."""
        process = self.start(expression, **environment)
        output, error = process.communicate(timeout=200)
        assert process.returncode == 0, error
        return (*output.split(), error)

    def read_only(self):
        """Bar the folder for byte code beside the source; the tests may run as root, whom no permission stops."""
        (self.path / "loops" / "__pycache__").touch()


@pytest.fixture
def package(tmp_path):
    return Package(tmp_path)


def double(x):
    return 2.0 * x


@pytest.mark.parametrize("decorator", [compiled, vectorized])
def test_division_by_zero_is_numpys_and_nan_stays(decorator):
    def divide(a, b):
        return a / b

    divided = decorator(divide)
    assert divided(1.0, 0.0) == float("inf")
    assert divided(0.0, 0.0) != divided(0.0, 0.0)


def test_vectorized_loops_call_no_other_compiled_function():
    loops = {}
    for found in pkgutil.walk_packages(disttgl_hpc.model.__path__, "disttgl_hpc.model."):
        loops |= vars(importlib.import_module(found.name))
    loops = {name: loop for name, loop in loops.items() if isinstance(loop, numba.core.dispatcher.Dispatcher)}
    reordered = {name for name, loop in loops.items() if loop.targetoptions.get("fastmath")}
    assert "mix_backward" in reordered
    for name, loop in loops.items():
        called = set(loop.py_func.__code__.co_names) & loops.keys()
        assert all(loops[other].targetoptions.get("inline") == "always" for other in called), (name, called)


def test_a_read_only_installation_caches_in_the_users_folder(package):
    package.read_only()
    folders = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(package.path / "user")}
    assert package.call(**folders) == ("7", "0", "1", "")
    assert package.call(**folders) == ("7", "1", "0", "")


def test_loops_compile_where_no_folder_is_writable(package):
    package.read_only()
    (package.path / "file").touch()
    folders = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(package.path / "file")}
    for _ in range(2):
        result, hits, _, error = package.call(**folders)
        assert (result, hits, error) == ("7", "0", "")


def test_the_cache_folder_is_the_one_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert cache_folder().startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("import_", "prefix"),
    [
        ("from loops.part import (\n    CONSTANT,\n    piece,\n)", ""),
        ("from loops import part", "part."),
        ("import loops.part", "loops.part."),
    ],
)
def test_an_edit_of_an_imported_module_is_noticed(package, import_, prefix):
    package.write(
        "whole", WHOLE.format(import_=import_, piece=f"{prefix}piece", constant=f"{prefix}CONSTANT")
    )
    assert package.call()[:3] == ("7", "0", "1")
    package.write("part", PART.format(4, 5))
    assert package.call()[:3] == ("19", "0", "1")


def test_processes_that_start_at_once_share_no_code_of_other_types_or_processors(package):
    """Later ones of the same types and processor load it, whichever process wrote last."""
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    variants = [("whole(3)", {}, "7"), ("whole(3.0)", {}, "7.0"), ("whole(3)", generic, "7")]
    processes = [package.start(expression, **environment) for expression, environment, _ in variants]
    for process, (_, _, value) in zip(processes, variants, strict=True):
        output, error = process.communicate(timeout=200)
        assert output.split() == [value, "0", "1"], error
    for expression, environment, value in variants:
        assert package.call(expression, **environment)[:3] == (value, "1", "0")


def _empty(path):
    path.write_bytes(b"")


def _flip_a_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _make_unreadable(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_empty, _flip_a_bit, _make_unreadable])
def test_damaged_files_are_compiled_again_and_logged_once(package, damage):
    both = "whole(3) + whole(3.0)"
    assert package.call(both) == ("14.0", "0", "2", "")
    paths = list((package.path / "cache").rglob("*.nbc"))
    assert len(paths) == 2
    for path in paths:
        damage(path)
    value, hits, misses, error = package.call(both)
    assert (value, hits, misses) == ("14.0", "0", "2")
    assert len(error.splitlines()) == 1
    if damage is not _make_unreadable:
        assert package.call(both) == ("14.0", "2", "0", "")


def test_a_full_disk_costs_the_cache_only(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), Compilations.so_far()
    loop = compiled(double)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert loop(21.0) == 42.0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "not stored" in before.outcome(7)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert compiled(double)(21.0) == 42.0
    assert [path for path in tmp_path.rglob("*.nbc") if path.is_file()]


def test_the_log_says_whether_anything_was_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for outcome in ("the next start loads it", "nothing had to be compiled"):
        before = Compilations.so_far()
        assert compiled(double)(21.0) == 42.0
        assert outcome in before.outcome(7)
    monkeypatch.setattr("disttgl_hpc.compiled.cache_folder", lambda: "")
    assert "NUMBA_CACHE_DIR" in before.outcome(7)


def test_one_function_with_other_options_has_other_code(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    loops = [decorator(double) for decorator in (compiled, vectorized, compiled)]
    assert [loop(21.0) for loop in loops] == [42.0] * 3
    assert [sum(loop.stats.cache_hits.values()) for loop in loops] == [0, 0, 1]
