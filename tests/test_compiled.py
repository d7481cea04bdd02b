import importlib
import pkgutil

import numba
import pytest

import disttgl_hpc.model
from disttgl_hpc import compiled as module
from disttgl_hpc.compiled import CacheFile, compiled, vectorized


def double(x):
    return 2.0 * x


@pytest.mark.parametrize("decorator", [compiled, vectorized])
def test_loops_compile_where_no_cache_can_be_written(monkeypatch, decorator):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available for file")
        return numba.njit(**options)

    monkeypatch.setattr(module, "njit", njit)
    assert decorator(double)(21.0) == 42.0


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


def test_two_processes_that_keep_code_at_once_do_not_take_each_others(tmp_path, monkeypatch):
    """Both have read an empty index; the one keeps its code while the other is between index and code."""
    one, other = (CacheFile(str(tmp_path), "loop", "stamp") for _ in range(2))
    monkeypatch.setattr(other, "_load_index", dict)
    keep = one._save_data

    def keep_late(name, data):
        other.save("avx2", "code for AVX2")
        keep(name, data)

    monkeypatch.setattr(one, "_save_data", keep_late)
    one.save("avx512", "code for AVX-512")
    later = CacheFile(str(tmp_path), "loop", "stamp")
    assert later.load("avx2") == "code for AVX2"
    assert later.load("avx512") in {None, "code for AVX-512"}  # None is compiled again


def test_loops_keep_their_code_so():
    assert type(vectorized(double)._cache._cache_file) is CacheFile
