"""The library as its users have it: documented examples, one process or two, and a package that imports fast."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import needs_mpi
from run_helpers import SMALL, make_store

import disttgl_hpc
from disttgl_hpc import api
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, InputError, StoreError

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "support" / "api_script.py"


def test_the_documented_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(api)
    assert found.attempted > 10
    assert not found.failed


def test_the_package_has_the_names_of_its_library():
    assert disttgl_hpc.__all__ == api.__all__
    assert disttgl_hpc.train is api.train
    assert set(api.__all__) <= set(dir(disttgl_hpc))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = disttgl_hpc.trian


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch", "numpy", "mpi4py", "h5py", "pyarrow", "numba"
    code = f"import sys, disttgl_hpc; sys.exit(', '.join({{*{heavy}}} & {{*sys.modules}}) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_mpi
def test_a_script_gives_the_same_alone_and_under_mpiexec(tmp_path):
    store = make_store(tmp_path)
    paths = os.pathsep.join([str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")])
    found = []
    for name, launcher in (("alone", []), ("two", ["timeout", "100", "mpiexec", "-n", "2"])):
        output = tmp_path / f"{name}.npz"
        words = [sys.executable, "-m", "mpi4py", SCRIPT, store.path, tmp_path / name, output]
        subprocess.run([*launcher, *words], check=True, env=os.environ | {"PYTHONPATH": paths})
        found.append(dict(np.load(output)))
    assert found[0].keys() == found[1].keys()
    for key, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][key])


def test_a_run_is_trained_further_asked_and_updated(tmp_path):
    store = make_store(tmp_path, dim_edge=2)
    config = TrainConfig(**{**SMALL, "epochs": 1})
    assert disttgl_hpc.train(store, config, tmp_path / "run").metrics[-1]["record"] == "test"
    run = disttgl_hpc.train(store.path, {"epochs": 2}, tmp_path / "run", resume=True)
    assert run.config.epochs == 2
    assert [record["record"] for record in run.metrics] == ["sweep", "sweep", "test"]
    at = store.stream.time[200].item()
    before = run.embed([3, 1], at=at)
    assert before.ids.tolist() == [3, 1]
    assert before.kinds is None
    run.update()
    np.testing.assert_array_equal(run.embed([3, 1], at=at).rows, before.rows)
    logits = run.score([3, 4], [1, 2], [at, at + 5])
    assert logits.shape == (2,)
    best = run.recommend(top=2, at=at)
    assert best.rank.max() == 2
    assert (best.src != best.dst).all()
    np.testing.assert_allclose(run.score(best.src[:1], best.dst[:1], [at]), best.logit[:1], atol=1e-5)
    with pytest.raises(InputError, match="99"):
        run.embed([99])
    with pytest.raises(InputError, match="99"):
        run.recommend([99])


def test_errors_are_those_of_the_command_line(tmp_path):
    with pytest.raises(StoreError, match="no run's configuration: give a run directory"):
        disttgl_hpc.load_run(tmp_path)
    with pytest.raises(ConfigError, match="did you mean epochs"):
        disttgl_hpc.train(make_store(tmp_path), {"epoch": 3}, tmp_path / "run")
    with pytest.raises(ConfigError, match="must be three shares"):
        disttgl_hpc.prepare("in.csv", tmp_path / "out.events.h5", split="1/2")
