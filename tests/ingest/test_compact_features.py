"""Features of every dtype, from raw input to the model's tensors."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from prepare_inputs import run_text

from disttgl_hpc.cli.inspect import inspect
from disttgl_hpc.ingest.columns import parse_columns
from disttgl_hpc.model.input_builder import InputBuilder
from disttgl_hpc.sampling.mail import Groups, MeanMail
from disttgl_hpc.sampling.mfg import Mfg

FEATURES = np.random.default_rng(5).normal(0, [1e-4, 3, 200], (60, 3)).astype(np.float32)
TEXT = "src,dst,time,a,b,c\n" + "".join(
    f"{k % 7},{k % 5},{k},{row[0]},{row[1]},{row[2]}\n" for k, row in enumerate(FEATURES)
)


def prepared(tmp_path, dtype, **options):
    columns = parse_columns("src=src,dst=dst,time=time,features=a:c")
    return run_text(tmp_path, TEXT, columns=columns, feature_dtype=dtype, **options)


def test_int8_steps_are_those_of_the_largest_value(tmp_path):
    store = prepared(tmp_path, "int8")
    stream = store.stream
    assert stream.edge_features.dtype == np.int8
    np.testing.assert_allclose(stream.edge_scale, np.abs(FEATURES).max(axis=0) / 127, rtol=1e-6)
    error = np.abs(stream.edge_features * stream.edge_scale - FEATURES)
    assert (error <= 0.501 * stream.edge_scale).all()
    store.verify()


def test_int8_does_not_depend_on_chunks(tmp_path):
    checksums = {prepared(tmp_path, "int8", chunk_events=chunk).checksum for chunk in (7, 60)}
    assert len(checksums) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_model_gets_the_stored_features(tmp_path, dtype):
    stream = prepared(tmp_path, dtype).stream
    event_ids = np.array([[3, 59], [0, 3]])
    rows = np.zeros((2, 2), np.int64)
    mfg = Mfg(np.arange(2), rows[0], rows, event_ids, np.zeros((2, 2), np.float32), np.full(2, 2))
    inputs = InputBuilder(stream, torch.device("cpu"))
    found = inputs.graph(mfg).edges.gather(torch.float32)
    assert (found.dtype, found.shape) == (torch.float32, (2, 2, 3))
    largest = np.abs(FEATURES).max(axis=0)
    tolerance = {"float32": 0, "float16": 1e-3, "int8": 0.51 / 127}[dtype]
    assert (np.abs(found.numpy() - FEATURES[event_ids]) <= tolerance * largest).all()
    mail = MeanMail(rows[0, :1], event_ids[0, 1:], mfg.elapsed[0, :1], Groups(event_ids[0], rows[0, :1]))
    means = inputs.nodes(rows[0, :1], mail, np.zeros((1, 4), np.float32)).mail_edges.gather(torch.float32)
    assert (np.abs(means.numpy() - FEATURES[event_ids[0]].mean(0)) <= (tolerance + 1e-6) * largest).all()


def test_inspect_prints_the_dtype(tmp_path):
    path = prepared(tmp_path, "int8").path
    shown = CliRunner().invoke(inspect, [str(path)]).output
    assert "3 × int8" in shown
